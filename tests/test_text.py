"""Text: against transformers' RoBERTa and data2vec, corruption, masks that spare special tokens, padding, pictures."""

import html
import math
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import Data2VecTextConfig, Data2VecTextForMaskedLM, RobertaConfig, RobertaForMaskedLM

from tests.conftest import QUICK, make_mae
from tests.test_product import texts
from unmask.address import noise
from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.masking.bert import BertMask
from unmask.masking.block import InverseBlockMask
from unmask.masking.random import RandomMask
from unmask.masking.strategy import MaskStrategy
from unmask.modality.guesses import Guess, guesses
from unmask.modality.text import HIDDEN, RIGHT, WRONG, Text
from unmask.nn.block import Style
from unmask.nn.encoder import Encoder
from unmask.objective.base import Objective
from unmask.objective.data2vec import Data2Vec
from unmask.objective.mae import MAE
from unmask.objective.mlm import MLM
from unmask.schema import Batch, Mask, Sample
from unmask.training.module import PretrainModule

BLOCK, WIDTH, DEPTH, HEADS = 24, 32, 3, 4
BOS, PAD, EOS, UNK, MASK = 0, 1, 2, 3, 44  # as RoBERTa's, the mask last
WORDS = range(4, MASK)
ROBERTA = Style(norm_first=False, norm_eps=1e-5, init="normal")
PEERS = {"roberta": (RobertaConfig, RobertaForMaskedLM), "data2vec_text": (Data2VecTextConfig, Data2VecTextForMaskedLM)}
PAIRS = {
    "attn.proj": "attention.output.dense", "norm1": "attention.output.LayerNorm", "mlp.0": "intermediate.dense",
    "mlp.2": "output.dense", "norm2": "output.LayerNorm",
}  # fmt: skip


def make_tokenizer() -> str:
    names = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{i}" for i in WORDS), "<mask>"]
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer.to_str()


def make_text(random_tokens: float = 0.1, kept_tokens: float = 0.1, block: int = BLOCK) -> Text:
    return Text(WIDTH, block, make_tokenizer(), random_tokens, kept_tokens)


def make_backbone(style: Style = ROBERTA, **options: float) -> Backbone:
    """A toy RoBERTa whose every weight is random."""
    backbone = Backbone(make_text(**options), Encoder(WIDTH, DEPTH, HEADS, style=style), class_token=False)
    return randomise(backbone)


def randomise(module: torch.nn.Module, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module


def make_texts(count: int = 5, lengths: list[int] | None = None, block: int = BLOCK, seed: int = 0) -> Batch:
    """Random words after `<s>`, a `</s>` in the middle; zeros where rows are padded, as the loader pads."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(WORDS.start, WORDS.stop, (count, block), generator=generator)
    ids[:, 0] = BOS
    ids[1::2, 5] = EOS
    if lengths is None:
        return Batch(ids, torch.arange(count))
    real = torch.tensor(lengths)
    return Batch(ids * (torch.arange(block) < real[:, None]), torch.arange(count), lengths=real)


def draw(objective: Objective | Backbone, batch: Batch, strategy: MaskStrategy | None = None) -> Mask:
    """The masks that training would draw."""
    objective = MLM(objective) if isinstance(objective, Backbone) else objective
    return PretrainModule(objective, strategy or RandomMask(0.3), None, seed=0).draw_mask(batch)


# Against transformers


def make_peer(kind: str) -> torch.nn.Module:
    config, model = PEERS[kind]
    peer = model(config(
        vocab_size=MASK + 1, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, max_position_embeddings=BLOCK + 2, layer_norm_eps=1e-5, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        attn_implementation="eager",
    ))  # fmt: skip
    return randomise(peer)


Rows = list[tuple[str, torch.Tensor, torch.Tensor]]


def pairs(ours: MLM, peer: torch.nn.Module, kind: str, read) -> Rows:
    """(name, ours, theirs) for every parameter of theirs but token types; `read` picks the value or the gradient."""
    rows = trunk_pairs(ours.backbone, getattr(peer, kind), read)
    dense, _, norm = ours.head.transform
    for name, mine, theirs in (("dense", dense, "dense"), ("norm", norm, "layer_norm")):
        for part in ("weight", "bias"):
            other = getattr(peer.lm_head.get_submodule(theirs), part)
            rows.append((f"head.{name}.{part}", read(getattr(mine, part)), read(other)))
    return [*rows, ("head.bias", read(ours.head.bias), read(peer.lm_head.bias))]


def trunk_pairs(backbone: Backbone, trunk: torch.nn.Module, read) -> Rows:
    """The same of what is below the head."""
    rows = []

    def add_both(name: str, mine: torch.nn.Module, theirs: torch.nn.Module) -> None:
        rows.append((f"{name}.weight", read(mine.weight), read(theirs.weight)))
        rows.append((f"{name}.bias", read(mine.bias), read(theirs.bias)))

    embeddings = trunk.embeddings
    rows.append(("tokens", read(backbone.modality.tokens.weight), read(embeddings.word_embeddings.weight)))
    rows.append(("positions", read(backbone.modality.positions.weight), read(embeddings.position_embeddings.weight)))
    add_both("norm", backbone.encoder.norm, embeddings.LayerNorm)
    for i, (block, layer) in enumerate(zip(backbone.encoder.blocks, trunk.encoder.layer, strict=True)):
        attention = layer.attention.self
        projections = [attention.query, attention.key, attention.value]
        for part in ("weight", "bias"):
            theirs = torch.cat([read(getattr(p, part)) for p in projections])
            rows.append((f"{i}.qkv.{part}", read(getattr(block.attn.qkv, part)), theirs))
        for mine, name in PAIRS.items():
            add_both(f"{i}.{mine}", block.get_submodule(mine), layer.get_submodule(name))
    return rows


@pytest.mark.parametrize("lengths", [None, [24, 7, 24, 2, 15]], ids=["full", "padded"])
@pytest.mark.parametrize("kind", PEERS)
def test_layers_loss_and_all_gradients_equal_transformers(kind: str, lengths: list[int] | None):
    peer, ours = make_peer(kind), MLM(make_backbone())
    types = getattr(peer, kind).embeddings.token_type_embeddings
    with torch.no_grad():
        for _, mine, theirs in pairs(ours, peer, kind, lambda p: p.data):
            mine.copy_(theirs)
        # Theirs adds the type of every token, which is always 0; in ours it is a part of the positions.
        ours.backbone.modality.positions.weight += types.weight[0]
    batch = make_texts(5, lengths)
    mask = draw(ours, batch, BertMask(0.35))
    text = ours.backbone.modality
    ids, labels = text.corrupt(batch, mask), torch.full_like(batch.inputs, -100)
    for row in range(len(batch)):
        for token, counts in zip(mask.hidden[row], mask.counted[row], strict=True):
            if counts:
                labels[row, token] = batch.inputs[row, token]
    real = torch.ones_like(ids, dtype=torch.bool) if lengths is None else text.real(batch)

    out = ours(batch, mask)
    out.loss.backward()
    theirs = peer(
        ids.masked_fill(~real, PAD), attention_mask=real.long(), labels=labels, output_hidden_states=True
    )  # fmt: skip
    theirs.loss.backward()

    assert (labels >= 0).sum() > 10
    assert {MASK} < set(ids[labels >= 0].tolist())  # some are random, or themselves
    torch.testing.assert_close(out.loss, theirs.loss, rtol=1e-5, atol=1e-5)
    fill = text.filling(batch, mask, None)
    tokens, bias = ours.backbone.prepare(batch, mask, fill, keep_hidden=True)
    layers = [ours.backbone.encoder.norm(tokens), *(x for x, _ in ours.backbone.encoder.layers(tokens, bias))]
    for mine, layer in zip(layers, theirs.hidden_states, strict=True):
        torch.testing.assert_close(mine[real], layer[real], rtol=1e-5, atol=1e-5)
    compared = 0
    for name, mine, gradient in pairs(ours, peer, kind, lambda p: p.grad):
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(mine, gradient, rtol=1e-5, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
        compared += mine.numel()
    assert compared == sum(p.numel() for p in ours.parameters())
    assert compared + types.weight.numel() == sum(p.numel() for p in peer.parameters())
    torch.testing.assert_close(text.positions.weight.grad.sum(0), types.weight.grad[0], rtol=1e-5, atol=1e-5)


def test_positions_begin_after_paddings_own():
    text = make_text()
    assert text.positions.weight.shape == (BLOCK + 2, WIDTH)
    tokens = text.add_position(torch.zeros(1, BLOCK, WIDTH))
    assert torch.equal(tokens[0], text.positions.weight[2:])
    assert torch.equal(text.add_position(torch.zeros(1, 2, WIDTH), torch.tensor([[0, 7]]))[0], tokens[0, [0, 7]])


# Corruption


@pytest.mark.parametrize(("random", "kept"), [(0.1, 0.1), (0.0, 0.0), (0.3, 0.0), (0.0, 1.0)])
def test_hidden_tokens_are_replaced_in_the_published_shares(random: float, kept: float):
    text, word, count = make_text(random, kept), 20, 2000
    batch = Batch(torch.full((count, BLOCK), word), torch.arange(count))
    mask = RandomMask(0.5).draw(0, batch.positions, (BLOCK,))
    ids = text.corrupt(batch, mask)
    hidden = mask.is_hidden(BLOCK)
    assert (ids[~hidden] == word).all()
    drawn = Counter(ids[hidden].tolist())
    total = hidden.sum().item()
    lucky = random / len(WORDS)  # a random token may be the same word again
    expected = {MASK: 1 - random - kept, word: kept + lucky}
    expected |= {other: lucky for other in WORDS if other != word}
    for token in range(MASK + 1):
        share = expected.get(token, 0.0)
        assert abs(drawn[token] - total * share) <= 4 * math.sqrt(total * share * (1 - share)), token


def test_corruption_does_not_depend_on_the_rest_of_the_batch():
    text = make_text(0.4, 0.3)
    batch = make_texts(6)
    mask = RandomMask(0.5).draw(0, batch.positions, (BLOCK,))
    whole = text.corrupt(batch, mask)
    for row in range(6):
        alone = Mask(mask.visible[row : row + 1], mask.hidden[row : row + 1])
        assert torch.equal(text.corrupt(batch.rows(row, row + 1), alone)[0], whole[row])
    # Padded further, the same tokens are hidden and become the same.
    longer = Batch(F.pad(batch.inputs, (0, 9)), batch.positions, lengths=torch.full((6,), BLOCK))
    assert torch.equal(text.corrupt(longer, Mask(mask.visible, mask.hidden))[:, :BLOCK], whole)


def test_runs_of_other_seeds_corrupt_otherwise():
    text, batch = make_text(0.4, 0.3), make_texts(6)
    mask = RandomMask(0.5).draw(0, batch.positions, (BLOCK,))
    first, second = (text.corrupt(replace(batch, seed=seed), mask) for seed in (0, 1))
    assert torch.equal(first, text.corrupt(batch, mask))
    assert not torch.equal(first, second)
    hidden = mask.is_hidden(BLOCK)
    assert torch.equal(first[~hidden], second[~hidden])


def test_every_mask_of_a_sample_has_its_own_corruption():
    text, batch = make_text(0.5, 0.2), make_texts(3)
    mask = RandomMask(0.5).draw(0, torch.arange(6), (BLOCK,))
    same = Mask(mask.visible[:1].expand(6, -1), mask.hidden[:1].expand(6, -1))
    ids = text.corrupt(batch, same)
    assert ids.shape == (6, BLOCK)
    hidden = same.is_hidden(BLOCK)
    assert torch.equal(ids[~hidden], batch.inputs.repeat_interleave(2, 0)[~hidden])
    assert not torch.equal(ids[0] == MASK, ids[1] == MASK)


def test_shares_of_more_than_everything_are_refused():
    with pytest.raises(ConfigError, match=r"modality\.random_tokens=0\.7 and modality\.kept_tokens=0\.5 are more"):
        make_text(0.7, 0.5)


# Masks


@pytest.mark.parametrize("lengths", [None, [24, 7, 23, 2, 15]])
def test_bert_hides_the_count_of_its_rule(lengths: list[int] | None):
    ratio, rows = 0.15, 500
    counts = None if lengths is None else torch.tensor(lengths).repeat(rows // 5)
    mask = BertMask(ratio).draw(3, torch.arange(rows), (BLOCK,), counts)
    chance = noise(3, "bert", torch.arange(rows), 1)[:, 0].tolist()
    for row in range(rows):
        length = BLOCK if lengths is None else lengths[row % 5]
        number = min(max(int(ratio * length + chance[row]), 1), length - 1)
        hidden = mask.hidden[row][mask.counted[row]].tolist()
        assert len(hidden) == len(set(hidden)) == number
        assert max(hidden) < length
        assert set(mask.hidden[row].tolist()) == set(hidden)  # those that do not count are hidden tokens again
        visible = mask.visible[row].tolist()
        assert visible == sorted(set(visible))
        assert not set(visible) & set(hidden)
        assert len({*visible, *hidden} & set(range(length))) >= length - 1  # one may be left over
        assert mask.hidden[row].tolist() == sorted(mask.hidden[row].tolist())
    if lengths is None:
        assert mask.hidden.shape == (rows, 4)  # 24 x .15 = 3.6
        assert abs(mask.counted.sum().item() - rows * 3.6) < 4 * math.sqrt(rows * 0.6 * 0.4)
        often = torch.bincount(mask.hidden[mask.counted], minlength=BLOCK)
        assert (often - rows * ratio).abs().max() < 4.5 * math.sqrt(rows * ratio * (1 - ratio))
        seen = torch.bincount(mask.visible.flatten(), minlength=BLOCK)
        assert seen.min() > 0.75 * rows  # no place is always the one left over


def test_bert_masks_are_a_function_of_seed_and_position():
    whole = BertMask(0.15).draw(7, torch.arange(64), (BLOCK,))
    part = BertMask(0.15).draw(7, torch.arange(20, 30), (BLOCK,))
    assert torch.equal(whole.hidden[20:30], part.hidden)
    assert torch.equal(whole.counted[20:30], part.counted)
    assert not torch.equal(whole.hidden, BertMask(0.15).draw(8, torch.arange(64), (BLOCK,)).hidden)


@pytest.mark.parametrize("lengths", [None, [24, 7, 23, 3, 15] * 40])
@pytest.mark.parametrize("ratio", [0.15, 0.6])
@pytest.mark.parametrize("strategy", [RandomMask, BertMask])
def test_special_tokens_are_never_hidden(strategy, ratio: float, lengths: list[int] | None):
    backbone, batch = make_backbone(), make_texts(200, lengths)
    mask = draw(backbone, batch, strategy(ratio))
    for row in range(200):
        length = BLOCK if lengths is None else lengths[row]
        ids = batch.inputs[row]
        hidden = [i for i in mask.hidden[row].tolist() if i < length]
        assert not {BOS, EOS, PAD} & {ids[i].item() for i in hidden}
        assert 0 in mask.visible[row]
        if strategy is RandomMask:  # sparing some does not change how many are hidden
            visible = math.floor(length * (1 - ratio) + 1e-6)
            assert mask.counted[row].sum() == length - visible
    spread = torch.bincount(mask.hidden[mask.counted], minlength=BLOCK)
    assert (spread[[1, 2, 3]] > 0).all()


def test_special_tokens_that_have_to_be_hidden_do_not_count():
    backbone, batch = make_backbone(), make_texts(4)
    batch.inputs[:, 1:20] = EOS
    for strategy in (RandomMask(0.9), BertMask(0.9)):
        mask = draw(backbone, batch, strategy)
        ids = batch.inputs.gather(1, mask.hidden)
        assert ((ids != EOS) & (ids != BOS))[mask.counted].all()
        assert mask.counted.sum(1).tolist() == [4] * 4
    assert MLM(backbone)(batch, mask).loss.isfinite()


def test_masks_without_anything_to_spare_are_as_they_were():
    nothing = torch.zeros(8, 16, dtype=torch.bool)
    for strategy in (RandomMask(0.5), InverseBlockMask(0.5)):
        plain, spared = (strategy.draw(0, torch.arange(8), (4, 4), None, never) for never in (None, nothing))
        assert plain.counted is None
        assert torch.equal(plain.hidden, spared.hidden)


# Leaks and padding


@pytest.mark.parametrize("keep_hidden", [False, True])
def test_hidden_words_never_reach_the_encoder(keep_hidden: bool):
    backbone = make_backbone(random_tokens=0.0, kept_tokens=0.0)
    batch = make_texts()
    mask = draw(backbone, batch)
    other = Batch(batch.inputs.clone(), batch.positions)
    other.inputs.scatter_(1, mask.hidden, torch.full_like(mask.hidden, 17))
    assert not torch.equal(other.inputs, batch.inputs)
    first, second = (
        backbone.encode(b, mask, backbone.modality.filling(b, mask, None), keep_hidden) for b in (batch, other)
    )
    assert torch.equal(first, second)
    assert not torch.equal(backbone.encode(batch), backbone.encode(other))


def test_embedding_only_visible_words_equals_embedding_all():
    backbone, batch = make_backbone(), make_texts(5, [24, 7, 24, 3, 15])
    mask = draw(backbone, batch)
    tokens, _ = backbone.prepare(batch, mask)
    everything, _ = backbone.prepare(batch)
    for row in range(5):
        assert torch.equal(tokens[row], everything[row, mask.visible[row]])


@pytest.mark.parametrize("make", [MLM, lambda b: MAE(b, 16, 1, 4, normalize=False)], ids=["mlm", "mae"])
def test_a_short_text_in_a_padded_batch_gives_what_it_gives_alone(make):
    objective = randomise(make(make_backbone()))
    batch = make_texts(4, [24, 7, 15, 12])
    batch.inputs[~objective.backbone.modality.real(batch)] = 17  # what stands behind a text is not read
    mask = draw(objective, batch)
    prediction = objective.predict(batch, mask)
    features = objective.backbone.features(batch)
    for row, length in enumerate(batch.lengths.tolist()):
        alone = Batch(batch.inputs[row : row + 1, :length], batch.positions[row : row + 1])
        own = draw(objective, alone)
        count = mask.counted[row]
        assert mask.hidden[row][count].tolist() == own.hidden[0].tolist()
        torch.testing.assert_close(
            prediction[row][count], objective.predict(alone, own)[0], rtol=1e-5, atol=1e-5
        )  # fmt: skip
        torch.testing.assert_close(features[row], objective.backbone.features(alone)[0], rtol=1e-5, atol=1e-5)


# Objectives


@pytest.mark.parametrize("kept", [0.0, 0.3])
def test_maes_loss_on_text_is_the_cross_entropy_of_the_hidden_words(kept: float):
    torch.manual_seed(0)
    mae = randomise(MAE(make_backbone(Style(), kept_tokens=kept), 16, 2, 4, normalize=True))
    batch = make_texts(4, [24, 7, 15, 12])
    drawn = draw(mae, batch)
    mask = mae.backbone.modality.keep(batch, drawn)
    out = mae(batch, drawn)
    logits = mae.predict(batch, mask)
    losses, right = [], []
    for row in range(4):
        for slot, token in enumerate(mask.hidden[row].tolist()):
            if token < batch.lengths[row]:
                scores, word = logits[row, slot].double(), batch.inputs[row, token]
                losses.append(scores.exp().sum().log() - scores[word])
                right.append(float(scores.argmax() == word))
    assert len(losses) < mask.hidden.numel()
    mean = sum(losses) / len(losses)
    assert out.loss.item() == pytest.approx(mean.item(), rel=1e-5)
    assert out.metrics["perplexity"].item() == pytest.approx(mean.exp().item(), rel=1e-5)
    assert out.metrics["accuracy"].item() == pytest.approx(sum(right) / len(right))


@pytest.mark.parametrize("lengths", [None, [24, 7, 15, 12]])
def test_a_share_of_the_hidden_words_stays_visible_to_mae(lengths: list[int] | None):
    text, batch = make_text(kept_tokens=0.3), make_texts(4, lengths)
    mask = draw(make_backbone(), batch)
    shown = text.keep(batch, mask)
    assert torch.equal(shown.hidden.sort(1).values, mask.hidden.sort(1).values)  # the same are predicted
    assert torch.equal(shown.visible[:, : -shown.kept], mask.visible)
    assert torch.equal(shown.visible[:, -shown.kept :], shown.hidden[:, : shown.kept])
    for row, length in enumerate(lengths or [BLOCK] * 4):
        counts = shown.hidden[row] < length
        assert shown.counted is None or torch.equal(shown.counted[row], counts)
        assert int(counts[: shown.kept].sum()) == int(0.3 * int(counts.sum()))
    assert not torch.equal(text.keep(replace(batch, seed=1), mask).hidden, shown.hidden)
    assert make_text(kept_tokens=0.0).keep(batch, mask) is mask


def test_what_mae_keeps_of_a_text_does_not_depend_on_the_rest_of_the_batch():
    text, backbone, batch = make_text(kept_tokens=0.3), make_backbone(), make_texts(4, [24, 7, 15, 12])
    shown = text.keep(batch, draw(backbone, batch))
    for row in range(4):
        alone = batch.rows(row, row + 1)
        own = text.keep(alone, draw(backbone, alone))
        kept = {token for token in shown.hidden[row, : shown.kept].tolist() if token < alone.inputs.shape[1]}
        assert kept == set(own.hidden[0, : own.kept].tolist())


def test_maes_kept_words_are_predicted_from_what_is_seen_of_them_and_others_are_not():
    mae = randomise(MAE(make_backbone(Style(), kept_tokens=0.3), 16, 2, 4, normalize=True))
    batch = make_texts(2)
    shown = mae.backbone.modality.keep(batch, draw(mae, batch))
    before = mae.predict(batch, shown)
    other = Batch(batch.inputs.clone(), batch.positions)
    other.inputs.scatter_(1, shown.hidden[:, shown.kept :], 7)
    assert torch.equal(mae.predict(other, shown), before)
    other.inputs.scatter_(1, shown.hidden[:, : shown.kept], 7)
    assert not torch.allclose(mae.predict(other, shown)[:, : shown.kept], before[:, : shown.kept])


@pytest.mark.parametrize("make", [MLM, lambda b: MAE(b, 16, 1, 4, normalize=False)], ids=["mlm", "mae"])
def test_an_objective_learns_a_text_by_heart(make):
    torch.manual_seed(0)
    backbone = Backbone(make_text(0, 0), Encoder(WIDTH, 1, HEADS, style=ROBERTA), class_token=False)
    objective, batch = make(backbone), make_texts(2)
    mask = draw(objective, batch)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        out = objective(batch, mask)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
    assert losses[0] == pytest.approx(math.log(MASK + 1), rel=0.2)
    assert losses[-1] < 0.05 * losses[0]
    assert out.metrics["accuracy"] == 1
    assert all(p.grad is not None for p in objective.parameters())


def test_data2vecs_teacher_copies_the_embeddings_and_their_norm_and_averages_the_rest():
    backbone = make_backbone(random_tokens=0.0, kept_tokens=0.0)
    objective = Data2Vec(
        backbone, head_layers=2, top_k=None, target="ffn", layer_norm="layer", target_norm="none", beta=4.0,
        reduction="sum", tau_start=0.9, tau_end=0.9, tau_steps=100,
    )  # fmt: skip
    batch = make_texts()
    objective(batch, draw(objective, batch)).loss.backward()
    before = {name: value.clone() for name, value in objective.teacher.model.named_parameters()}
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter += 1.0
    objective.after_step(1)
    for name, value in objective.teacher.model.named_parameters():
        copied = name.startswith(("modality.tokens", "modality.positions", "encoder.norm."))
        torch.testing.assert_close(value, before[name] + (1.0 if copied else 0.1), rtol=1e-5, atol=1e-5)
    assert objective.mask_token is None


def test_a_language_model_needs_a_vocabulary():
    with pytest.raises(ConfigError, match=r"objective=mlm .*modality=image has none\. Use objective=mae\."):
        MLM(make_mae().backbone)


# The rest of the modality


def test_raw_features_count_the_words():
    text, batch = make_text(), make_texts(4, [24, 7, 15, 12])
    batch.inputs[~text.real(batch)] = 17  # what stands behind a text is not read
    features = text.raw_features(batch)
    for row in range(4):
        counts = Counter(batch.inputs[row, : batch.lengths[row]].tolist())
        expected = [math.log(1 + counts[word]) for word in WORDS]
        assert features[row].tolist() == pytest.approx(expected, rel=1e-5)


def test_a_long_text_is_cut():
    sample = Sample(torch.arange(BLOCK + 9), None)
    assert make_text().transform(train=True)(sample).tolist() == list(range(BLOCK))


def test_a_backbone_folder_needs_no_other_file(tmp_path: Path):
    backbone, batch = make_backbone(random_tokens=0.2), make_texts()
    backbone.save(tmp_path)
    loaded = Backbone.load(tmp_path)
    assert torch.equal(loaded.encode(batch), backbone.encode(batch))
    mask = draw(backbone, batch)
    assert torch.equal(loaded.modality.corrupt(batch, mask), backbone.modality.corrupt(batch, mask))


def test_a_picture_marks_hidden_words_and_tells_right_from_wrong():
    text, batch = make_text(), make_texts(2, [24, 7])
    mask = draw(make_backbone(), batch)
    truth = F.one_hot(text.target(batch, mask, normalize=False), MASK + 1).float()

    def area(picture, colour: str) -> int:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return int((picture == rgb).all(-1).sum())

    plain, right = (text.picture(batch, mask, p, normalized=False) for p in (None, truth))
    wrong = text.picture(batch, mask, truth.roll(1, dims=-1), normalized=False)
    assert plain.shape[2] == 3
    assert plain.dtype.name == "uint8"
    assert [area(plain, c) > 0 for c in (HIDDEN, RIGHT, WRONG)] == [True, False, False]
    assert [area(right, c) > 0 for c in (HIDDEN, RIGHT, WRONG)] == [True, True, False]
    assert [area(wrong, c) > 0 for c in (HIDDEN, RIGHT, WRONG)] == [True, False, True]
    assert right.shape[0] > plain.shape[0]


# Runs


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of made-up texts."""
    root = tmp_path_factory.mktemp("stories")
    for label in ("even", "odd"):
        (root / label).mkdir()
    for number in range(40):
        words = " ".join(f"{(number * i) % 97} goes before {number + i}," for i in range(30))
        (root / ("odd" if number % 2 else "even") / f"{number}.txt").write_text(words)
    return root


@pytest.mark.parametrize("objective", ["mlm", "mae", "data2vec"])
def test_text_trains(train, stories: Path, tmp_path: Path, objective: str):
    run = train(
        *QUICK, "modality=text", f"objective={objective}", "data=text", f"data.root={stories}", "data.vocab_size=300",
        f"paths.cache={tmp_path}/cache", "data.block_size=32", "trainer.max_steps=3", "scheduler.warmup=1 steps",
    )  # fmt: skip
    backbone = Backbone.load(run)
    assert isinstance(backbone.modality, Text)
    assert backbone.prefix == 0
    assert not backbone.encoder.style.norm_first
    shares = (0.0, 0.0) if objective == "data2vec" else (0.1, 0.1)
    assert (backbone.modality.random_tokens, backbone.modality.kept_tokens) == shares


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["objective=mlm"], "objective=mlm predicts words, and modality=image has none"),
        (["modality=text", "modality.kept_tokens=2"], "modality.kept_tokens=2 is not possible"),
        (["modality=text", "modality.random_tokens=-1"], "modality.random_tokens=-1 is not possible"),
        (["modality=text", "modality.block_size=1"], "modality.block_size=1 is not possible"),
    ],
)
def test_a_mistake_gets_one_sentence(train, capsys: pytest.CaptureFixture[str], words: list[str], expected: str):
    with pytest.raises(SystemExit):
        train(*words)
    error = capsys.readouterr().err.strip()
    assert expected in error
    assert len(error.splitlines()) == 1


def test_guesses_are_the_likeliest_words_of_each_hidden_place_in_the_order_of_the_text():
    text, batch = make_text(), make_texts(2, lengths=[6, 4])
    # Row 0 hides two places, listed backwards; row 1 hides one, and its second entry does not count.
    hidden, counted = torch.tensor([[4, 2], [3, 3]]), torch.tensor([[True, True], [True, False]])
    visible = torch.tensor([[0, 1, 3, 5], [0, 1, 2, 4]])
    logits = torch.zeros(2, 2, text.target_size)
    answer = batch.inputs[0, 4].item()
    best = [word for word in WORDS if word != answer][:5]
    for place, order in ((0, (best[0], answer, best[1])), (1, (best[2], best[3], best[4]))):
        for height, word in zip((9.0, 8.0, 7.0), order, strict=True):
            logits[0, place, word] = height
    logits[1, 0, batch.inputs[1, 3]] = 20.0
    note = text.media(batch, Mask(visible, hidden, counted), logits, normalized=False)["guesses"].text
    shares = torch.tensor([9.0, 8.0, 7.0] + [0.0] * (text.target_size - 3)).softmax(0)[:3]
    first, second = note.split("text 2: ")
    words = [f"w{word}" for word in batch.inputs[0].tolist()]
    assert first.startswith("text 1: 2 of 6 tokens hidden; 0 right (*), 1 among the likeliest")
    assert f"[1 {words[2]}]" in first
    assert f"[2 {words[4]}]" in first
    rows = [line.split() for line in first.splitlines() if "%" in line]
    assert rows[0][:2] == ["1", words[2]]
    assert rows[0][2::2] == [f"w{best[i]}" for i in (2, 3, 4)]
    assert rows[1] == [
        *("2", words[4]), *(f"w{best[0]}", f"{shares[0]:.0%}"), *(words[4], f"{shares[1]:.0%}*"),
        *(f"w{best[1]}", f"{shares[2]:.0%}"),
    ]  # fmt: skip
    assert second.startswith("1 of 4 tokens hidden; 1 right (*), 1 among the likeliest")
    assert "100%*" in second
    assert text.media(batch, Mask(visible, hidden, counted), None, normalized=False) == {}


def test_a_hidden_piece_keeps_its_space_and_its_line_break_is_told():
    said = guesses("text 1", ["The", " sea", "\n", "!"], [1, 2], [
        Guess(" sea", [(" tree", 0.5), (" sea", 0.25)], 1), Guess("\n", [(".", 0.9), ("\n", 0.1)], 1),
    ])  # fmt: skip
    assert "  The [1 sea][2 \\n]!\n" in said
    assert "▁sea" in said
    assert "▁tree 50%" in said
    assert "\\n 10%*" in said


def test_guesses_reach_tensorboard_wandb_and_the_report(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    quick = [word for word in QUICK if word not in ("callbacks.pictures=null", "logger=csv")]
    run = train(
        *quick, "modality=text", "objective=mlm", "logger=wandb", "data=text", f"data.root={texts(tmp_path / 'texts')}",
        "data.block_size=16", "data.tokenizer.vocab_size=300", f"paths.cache={tmp_path / 'cache'}",
        "trainer.max_steps=4",
        "callbacks.pictures={_target_: unmask.callbacks.pictures.Pictures, every: 100 %, count: 2}",
    )  # fmt: skip
    said = (run / "pictures" / "step=000000004-guesses.txt").read_text()
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    (event,) = events.Tensors("guesses/text_summary")
    shown = event.tensor_proto.string_val[0].decode()
    assert all(line.startswith("    ") for line in shown.splitlines())  # code, so that nothing in it is Markdown
    assert textwrap.dedent(shown) == said
    (page,) = run.glob("wandb/offline-run-*/files/media/html/text/guesses_*.html")
    assert html.escape(said) in page.read_text()
    report = html.unescape((run / "report.html").read_text())
    assert said.strip() in report
