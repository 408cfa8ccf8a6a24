"""Classification: logits of transformers' models, pools and mixed samples restated, scores and label budgets."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Data2VecVisionConfig, Data2VecVisionForImageClassification

from tests.test_data2vec_vision_parity import DEPTH, EPS, HEADS, PATCH, WIDTH, make_backbone, pairs
from tests.test_speech import alone, randomise
from tests.test_speech import make_backbone as make_speech
from tests.test_speech import make_batch as make_clips
from unmask.backbone import Backbone
from unmask.data.budget import Balanced, Chosen, choose, hold_out
from unmask.data.digits import Digits
from unmask.errors import ConfigError
from unmask.masking.random import RandomMask
from unmask.modality.image import Image
from unmask.nn.encoder import Encoder
from unmask.schema import Batch, Sample
from unmask.task.classification import Classification
from unmask.task.mixing import cutmix, mixup
from unmask.training.groups import layer_scale

CLASSES = ("ant", "bee", "cat")


def images(count: int = 6, labels: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Batch(pixels, torch.arange(count), torch.arange(count) % 3 if labels else None)


def make_task(**settings) -> Classification:
    torch.manual_seed(0)
    backbone = Backbone(Image(32, 16, 4, 3, [0.5] * 3, [0.25] * 3), Encoder(32, 2, 4))
    return Classification(backbone, CLASSES, **settings)


def test_logits_loss_and_gradients_equal_transformers():
    config = Data2VecVisionConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        image_size=[16, 16], patch_size=PATCH, layer_norm_eps=EPS, use_mask_token=True, num_labels=3,
        use_absolute_position_embeddings=False, use_relative_position_bias=False,
        use_shared_relative_position_bias=True, use_mean_pooling=True, attn_implementation="eager",
    )  # fmt: skip
    peer = Data2VecVisionForImageClassification(config).eval()
    randomise(peer)
    trunk = peer.data2vec_vision
    trunk.layernorm = nn.LayerNorm(WIDTH, EPS)  # for `pairs` alone: with mean pooling there is none
    ours = Classification(make_backbone((16, 16)), CLASSES).eval()
    with torch.no_grad():
        for _, mine, theirs in pairs(ours.backbone, nn.Parameter(torch.zeros(1, 1, WIDTH)), trunk, lambda p: p.data):
            mine.copy_(theirs)
    trunk.layernorm = nn.Identity()
    ours.norm.load_state_dict(trunk.pooler.layernorm.state_dict())
    ours.norm.eps = trunk.pooler.layernorm.eps
    ours.head.load_state_dict(peer.classifier.state_dict())
    batch = images()
    expected = peer((batch.inputs / 255 - 0.5) / 0.25, labels=batch.labels)
    torch.testing.assert_close(ours.logits(batch), expected.logits, rtol=1e-5, atol=1e-5)
    output = ours(batch)
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-5, atol=1e-5)
    output.loss.backward()
    expected.loss.backward()
    for mine, theirs in (
        (ours.head.weight, peer.classifier.weight),
        (ours.norm.weight, trunk.pooler.layernorm.weight),
        (ours.backbone.encoder.blocks[0].mlp[0].weight, trunk.encoder.layer[0].intermediate.dense.weight),
    ):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_padding_changes_no_logit():
    for pool in ("mean", "linear_softmax"):
        task = Classification(make_speech(), CLASSES, pool=pool).eval()
        randomise(task)
        batch = make_clips(task.backbone.modality, 9000, 16_000, 5000)
        rows = [task.logits(alone(batch, row)) for row in range(3)]
        torch.testing.assert_close(task.logits(batch), torch.cat(rows), rtol=1e-5, atol=1e-4)


def test_linear_softmax_weighs_each_tokens_probability_by_itself():
    task = make_task(pool="linear_softmax", multi_label=True, head_std=1.0).eval()
    tokens = task.backbone.encode(images(), last_norm=False)[:, 1:]
    p = torch.sigmoid(task.head(task.norm(tokens)))
    torch.testing.assert_close(task.logits(images()).sigmoid(), p.square().sum(1) / p.sum(1), rtol=1e-4, atol=1e-6)


def test_hidden_tokens_are_not_seen():
    task, batch = make_task().eval(), images()
    mask = RandomMask(0.5).draw(0, batch.positions, (4, 4))
    seen = task.logits(batch, mask)
    patches = batch.inputs.clone()
    for row, hidden in enumerate(mask.hidden.tolist()):
        for token in hidden:
            y, x = 4 * (token // 4), 4 * (token % 4)
            patches[row, :, y : y + 4, x : x + 4] = 7
    torch.testing.assert_close(task.logits(replace(batch, inputs=patches), mask), seen)
    assert not torch.allclose(task.logits(batch), seen)


def test_several_classes_a_sample_are_zeros_and_ones():
    task = make_task(multi_label=True, head_std=1.0).eval()
    assert task.encode_label((0, 2)).tolist() == [1, 0, 1]
    assert task.encode_label(()).tolist() == [0, 0, 0]
    labels = torch.stack([task.encode_label(label) for label in ((0,), (1, 2), (), (0, 1, 2), (2,), (1,))])
    batch = replace(images(), labels=labels)
    p = task.logits(batch).sigmoid()
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(task(batch).loss, expected, rtol=1e-5, atol=1e-6)


def test_smoothing_spreads_a_share_of_the_label():
    task, plain = make_task(smoothing=0.3, head_std=1.0).eval(), make_task(head_std=1.0).eval()
    log_p = plain.logits(images()).log_softmax(1)
    expected = -(0.7 * log_p.gather(1, images().labels[:, None]).mean() + 0.3 * log_p.mean())
    torch.testing.assert_close(task(images()).loss, expected)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_labels_are_mixed_as_pixels_are(mix):
    torch.manual_seed(1)
    blank = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 20, 30)  # each picture of one value
    shares = torch.eye(4)
    for _ in range(20):
        mixed, labels = mix(blank, shares, 1.0)
        kept = labels.diagonal()
        torch.testing.assert_close(labels.sum(1), torch.ones(4))
        assert (kept == kept[0]).all()
        # The mean value of a picture is that of its label's classes.
        torch.testing.assert_close(mixed.mean((1, 2, 3)), labels @ torch.arange(4.0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(labels[1], torch.tensor([1 - kept[0], kept[0], 0, 0]))


def test_mixed_training_sees_mixed_pictures_and_evaluation_does_not():
    task = make_task(mixup=0.8, cutmix=1.0, head_std=1.0)
    plain = make_task(head_std=1.0)
    assert task.eval()(images()).loss == plain.eval()(images()).loss
    torch.manual_seed(0)
    losses = {float(task.train()(images()).loss) for _ in range(4)}
    assert len(losses) == 4


def test_a_share_of_the_steps_is_mixed():
    plain = float(make_task(head_std=1.0).train()(images()).loss.detach())
    torch.manual_seed(0)
    task = make_task(mixup=0.8, mix_share=0.25, head_std=1.0).train()
    same = sum(float(task(images()).loss.detach()) == plain for _ in range(100))
    assert same == pytest.approx(75, abs=12)


def test_scores_are_those_of_a_plain_count():
    task = make_task()
    said = [("ant", "ant"), ("bee", "ant"), ("cat", "cat"), ("cat", "bee")]
    records = [
        {"label": label, "prediction": best, "probabilities": [0.9 if c == best else 0.05 for c in CLASSES]}
        for label, best in said
    ]
    scores = task.score(records)
    assert scores["accuracy"] == 0.5
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)  # 2 tp / (2 tp + fp + fn) of each class
    several = make_task(multi_label=True)
    table = [[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.1, 0.6, 0.3]]
    labels = ["ant", "bee|cat", "ant"]
    found = several.score([{"label": a, "probabilities": b} for a, b in zip(labels, table, strict=True)])
    # By rank: ant at 1 and 3 of 3; bee at 1; cat at 3.
    assert found["mAP"] == pytest.approx(((1 + 2 / 3) / 2 + 1 + 1 / 3) / 3)
    assert found["top1"] == pytest.approx(1 / 3)  # ant, ant and bee come first; the first alone is right


def test_views_of_a_sample_are_averaged():
    task = make_task(head_std=1.0).eval()
    batch = images(6, labels=False)
    alone_ = [record["probabilities"] for record in task.predict(batch)]
    together = [record["probabilities"] for record in task.predict(batch, views=3)]
    assert len(together) == 2
    np.testing.assert_allclose(together[1], np.mean(alone_[3:], axis=0), rtol=1e-5)


def test_layers_learn_at_maes_rates():
    # §13.4 of MAE's fine-tuning: B at .65, L at .75.
    assert layer_scale("backbone.modality.projection.weight", 0.65, 12) == pytest.approx(0.003697206, rel=1e-6)
    assert layer_scale("backbone.encoder.blocks.0.attn.qkv.weight", 0.65, 12) == pytest.approx(0.005688009, rel=1e-6)
    assert layer_scale("backbone.encoder.blocks.11.mlp.0.bias", 0.65, 12) == 0.65
    assert layer_scale("head.weight", 0.65, 12) == 1
    assert layer_scale("backbone.class_token", 0.75, 24) == pytest.approx(7.525434e-4, rel=1e-6)


def test_a_vit_for_a_thousand_classes_has_as_many_parameters_as_the_paper():
    with torch.device("meta"):
        image = Image(768, 224, 16, 3, [0.5] * 3, [0.25] * 3)
        task = Classification(Backbone(image, Encoder(768, 12, 12)), [str(i) for i in range(1000)])
    learned = sum(p.numel() for name, p in task.named_parameters() if not name.startswith("backbone.encoder.norm"))
    assert learned + 197 * 768 == 86_567_656  # positions are fixed here, and learned there


class Clips:
    """Samples of given labels and lengths."""

    def __init__(self, labels: list[int | None], seconds: list[float] | None = None) -> None:
        self.labels, self.classes = labels, tuple(str(i) for i in sorted({x for x in labels if x is not None}))
        if seconds:
            self.lengths = [round(16_000 * s) for s in seconds]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return Sample(torch.zeros(1), self.labels[index])


@pytest.mark.parametrize(
    ("small", "large"), [("5", "20"), ("2/class", "7/class"), ("5%", "50%"), ("10s", "1min"), ("30s", "all")]
)
def test_a_larger_budget_holds_the_smaller(small: str, large: str):
    source = Clips([i % 4 for i in range(80)], [1 + i % 3 for i in range(80)])
    for seed in range(3):
        assert set(choose(source, small, seed)) < set(choose(source, large, seed))
    assert choose(source, large, 0) != choose(source, large, 1)


def test_budgets_count_what_they_say():
    source = Clips([0, 1, None, 1] * 25, [2.0] * 100)
    assert Counter(source.labels[i] for i in choose(source, "6/class", 0)) == {0: 6, 1: 6}
    assert len(choose(source, "12%", 0)) == 12
    assert len(choose(source, "all", 0)) == 75  # one in four has no label
    assert len(choose(source, "21s", 0)) == 11
    with pytest.raises(ConfigError, match="class 0 has 25 samples"):
        choose(source, "26/class", 0)
    with pytest.raises(ConfigError, match=r"there is: 2\.5 minutes"):
        choose(source, "1h", 0)


def test_what_is_held_out_is_not_trained_on():
    kept, held = hold_out(list(range(50)), 0.2)
    assert sorted(kept + held) == list(range(50))
    assert len(held) == 10
    assert hold_out([3, 1, 2], 0.0) == ([3, 1, 2], [])


def test_balanced_classes_are_seen_equally_often():
    source = Clips([0] * 7 + [1] * 2 + [2])
    balanced = Balanced(source, source.labels)
    assert Counter(balanced[i].label for i in range(len(balanced))) == {0: 7, 1: 7, 2: 7}
    several = [(0, 1), (1,), (1,), (1,), ()]  # 1/1 + 1/4, 1/4, 1/4, 1/4, nothing
    balanced = Balanced(Clips(list(range(5))), several)
    assert Counter(balanced[i].label for i in range(len(balanced))) == {0: 5, 1: 1, 2: 1, 3: 1}
    digits = Chosen(Digits("train"), [5, 3])
    assert digits[0].label == Digits("train")[5].label
