"""data2vec: what the teacher teaches, how it follows the student, and the loss, each against its equation."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import QUICK, make_batch
from tests.test_resume import assert_bit_equal
from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.masking.random import RandomMask
from unmask.modality.image import Image
from unmask.nn.block import Style
from unmask.nn.ema import EMA, linear_tau
from unmask.nn.encoder import Encoder
from unmask.objective.data2vec import Data2Vec, regression
from unmask.schema import Mask
from unmask.training.checkpoint import newest_checkpoint
from unmask.training.groups import parameter_groups

WIDTH, DEPTH, TOKENS = 16, 4, 16
EPS = 1e-5  # of every norm without parameters


def make_data2vec(style: Style | None = None, **changed) -> Data2Vec:
    """A toy whose teacher is not its student."""
    torch.manual_seed(0)
    image = Image(WIDTH, 16, 4, 3, [0.5] * 3, [0.25] * 3)
    arguments = {
        "top_k": 2, "target": "block", "layer_norm": "layer", "target_norm": "layer", "beta": 2.0, "reduction": "mean",
        "head_layers": 1, "tau_start": 0.9, "tau_end": 0.99, "tau_steps": 10,
    }  # fmt: skip
    model = Data2Vec(Backbone(image, Encoder(WIDTH, DEPTH, 4, style=style)), **(arguments | changed))
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def make_mask(count: int = 4) -> Mask:
    return RandomMask(0.5).draw(0, torch.arange(count), (4, 4))


# Targets.


def normalized(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / math.sqrt(variance + EPS) for value in values]


def slow_norm(features: Tensor, how: str, real: int) -> Tensor:
    """(N, D) of one sample, of which the first `real` tokens are real, value by value."""
    if how == "none":
        return features
    if how == "layer":
        return torch.tensor([normalized(token.tolist()) for token in features])
    columns = [normalized(features[:real, channel].tolist()) for channel in range(features.shape[1])]
    return torch.tensor(columns).T


def watched_blocks(teacher: Backbone, run: Callable[[], object]) -> tuple[list[Tensor], list[Tensor]]:
    """What each block and each block's feed-forward put out while `run` runs."""
    blocks, feed_forwards, handles = [], [], []
    for block in teacher.encoder.blocks:
        handles.append(block.register_forward_hook(lambda _, __, out: blocks.append(out[0])))
        handles.append(block.mlp.register_forward_hook(lambda _, __, out: feed_forwards.append(out)))
    run()
    for handle in handles:
        handle.remove()
    return blocks, feed_forwards


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("target_norm", ["layer", "instance", "none"])
@pytest.mark.parametrize("layer_norm", ["layer", "instance", "none"])
@pytest.mark.parametrize("target", ["block", "ffn"])
def test_targets_are_the_mean_of_the_last_normalised_layers(target, layer_norm, target_norm, norm_first, padded):
    model = make_data2vec(
        Style(norm_first=norm_first), target=target, layer_norm=layer_norm, target_norm=target_norm, top_k=3
    )
    batch, teacher, counts = make_batch(3), model.teacher.model, [TOKENS] * 3
    if padded:
        counts = [TOKENS, 11, 2]
        real = torch.arange(TOKENS) < torch.tensor(counts)[:, None]
        teacher.modality.real = lambda _: real
    got = model.targets(batch)
    blocks, feed_forwards = watched_blocks(teacher, lambda: teacher.encode(batch))
    layers = (blocks if target == "block" else feed_forwards)[1:]
    assert len(layers) == 3
    for row, count in enumerate(counts):
        total = torch.zeros(count, WIDTH)
        for layer in layers:
            grid_tokens = layer[row, 1:].detach()  # without the class token
            total += slow_norm(grid_tokens, layer_norm, count)[:count]
        expected = slow_norm(total / 3, target_norm, count)
        torch.testing.assert_close(got[row, :count], expected, rtol=1e-4, atol=2e-5)
    assert got.dtype == torch.float32
    assert not got.requires_grad


def test_the_teacher_sees_the_whole_sample_and_the_student_what_is_visible():
    model, batch, mask = make_data2vec(), make_batch(), make_mask()
    image = model.backbone.modality
    seen = []
    image.projection.register_forward_hook(lambda *_: seen.append("student"))
    model.teacher.model.modality.projection.register_forward_hook(lambda *_: seen.append("teacher"))
    loss = model(batch, mask).loss
    assert seen == ["student", "teacher"]
    # The loss once more, from its parts.
    encoded = model.backbone.encode(batch, mask, model.mask_token, keep_hidden=True)[:, 1:]
    target = model.targets(batch)
    terms = []
    for row, hidden in enumerate(mask.hidden.tolist()):
        for token in hidden:
            difference = model.head(encoded[row, token]) - target[row, token]
            terms += [0.5 * d**2 / 2 if abs(d) < 2 else abs(d) - 1 for d in difference]
    torch.testing.assert_close(loss, torch.stack(terms).mean(), rtol=1e-5, atol=1e-6)
    # Hidden pixels move the target and never the prediction.
    for row, tokens in enumerate(mask.hidden.tolist()):
        for token in tokens:
            top, left = 4 * (token // 4), 4 * (token % 4)
            batch.inputs[row, :, top : top + 4, left : left + 4] = 99
    after = model.backbone.encode(batch, mask, model.mask_token, keep_hidden=True)[:, 1:]
    assert torch.equal(encoded, after)
    assert not torch.allclose(target, model.targets(batch), atol=0.01)


def test_all_blocks_make_the_target_unless_told_otherwise():
    batch = make_batch(2)
    assert torch.equal(make_data2vec(top_k=None).targets(batch), make_data2vec(top_k=DEPTH).targets(batch))
    assert not torch.equal(make_data2vec(top_k=None).targets(batch), make_data2vec(top_k=1).targets(batch))


# The loss.


@pytest.mark.parametrize("beta", [0.0, 2.0, 4.0])
def test_the_regression_is_smooth_l1_or_squared_error_without_the_half(beta: float):
    prediction, target = torch.linspace(-9, 9, 37), torch.zeros(37)
    for x, got in zip(prediction.tolist(), regression(prediction, target, beta).tolist(), strict=True):
        if beta == 0:
            expected = x * x
        elif abs(x) < beta:
            expected = 0.5 * x * x / beta
        else:
            expected = abs(x) - 0.5 * beta
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("beta", [0.0, 4.0])
@pytest.mark.parametrize("reduction", ["mean", "root", "sum"])
@pytest.mark.parametrize("counted", [False, True])
def test_reductions_differ_over_a_tokens_values_only(reduction: str, beta: float, counted: bool):
    batch, mask = make_batch(), make_mask()
    if counted:
        mask = Mask(mask.visible, mask.hidden, torch.arange(mask.hidden.shape[1]) < torch.tensor([[1], [8], [3], [0]]))
    model = make_data2vec(reduction=reduction, beta=beta)
    encoded, target = (
        model.backbone.encode(batch, mask, model.mask_token, keep_hidden=True)[:, 1:],
        model.targets(batch),
    )
    tokens = []
    for row, hidden in enumerate(mask.hidden.tolist()):
        for place, token in enumerate(hidden):
            if mask.counted is None or mask.counted[row, place]:
                values = regression(model.head(encoded[row, token]), target[row, token], beta)
                size = {"mean": WIDTH, "root": math.sqrt(WIDTH), "sum": 1}[reduction]
                tokens.append(values.sum() / size)
    assert len(tokens) == (12 if counted else 32)
    torch.testing.assert_close(model(batch, mask).loss, torch.stack(tokens).mean(), rtol=1e-5, atol=1e-6)


# The teacher.


def test_the_teacher_starts_as_a_copy_that_is_its_own():
    torch.manual_seed(0)
    student = nn.Linear(3, 2)
    teacher = EMA(student)
    assert torch.equal(teacher.model.weight, student.weight)
    with torch.no_grad():
        student.weight.add_(1)
    assert not torch.equal(teacher.model.weight, student.weight)


def test_tau_is_fairseqs():
    golden = {0: 0.999, 15_000: 0.99945, 30_000: 0.9999, 400_000: 0.9999}
    for step, tau in golden.items():
        assert linear_tau(0.999, 0.9999, 30_000, step) == pytest.approx(tau, abs=1e-12)
    for step in range(50):  # the annealing restated
        expected = 0.9 + (0.99 - 0.9) * min(step, 20) / 20
        assert linear_tau(0.9, 0.99, 20, step) == pytest.approx(expected, abs=1e-12)
    assert linear_tau(0.5, 0.7, 0, 3) == 0.7


def test_after_many_steps_the_teacher_is_the_closed_form_of_the_average():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    teacher = EMA(student)
    start, end, anneal, steps = 0.5, 0.9, 6, 9
    states = [[p.detach().double().clone() for p in student.parameters()]]
    for step in range(1, steps + 1):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn_like(parameter))
        states.append([p.detach().double().clone() for p in student.parameters()])
        teacher.update(student, linear_tau(start, end, anneal, step))
    taus = [start + (end - start) * min(step, anneal) / anneal for step in range(1, steps + 1)]
    for i, parameter in enumerate(teacher.model.parameters()):
        expected = math.prod(taus) * states[0][i]
        for k, tau in enumerate(taus):
            expected = expected + (1 - tau) * math.prod(taus[k + 1 :]) * states[k + 1][i]
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-6, atol=1e-6)


class Kinds(nn.Module):
    """A module of each kind, one named like the beginning of another, with buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.modality, self.modality2, self.encoder = nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.register_buffer("table", torch.arange(3), persistent=False)


def test_copied_parameters_and_buffers_are_copied_and_the_rest_is_averaged():
    student = Kinds()
    teacher = EMA(student, copied=["modality", "encoder.bias"])
    before = {name: value.clone() for name, value in teacher.model.named_parameters()}
    with torch.no_grad():
        for value in [*student.parameters(), *student.buffers()]:
            value.add_(3)
    teacher.update(student, tau=0.75)
    for name, value in student.named_parameters():
        copied = name in ("modality.weight", "modality.bias", "encoder.bias")
        expected = value if copied else 0.75 * before[name] + 0.25 * value
        torch.testing.assert_close(teacher.model.get_parameter(name), expected, rtol=1e-6, atol=1e-6)
    buffers = dict(student.named_buffers())
    assert set(buffers) == {"table", "encoder.running_mean", "encoder.running_var", "encoder.num_batches_tracked"}
    for name, value in buffers.items():
        assert torch.equal(teacher.model.get_buffer(name), value), name


def test_the_teacher_is_not_trained():
    noisy = Style(dropout=0.3, attention_dropout=0.3, drop_path=0.3, layer_drop=0.3)
    model, batch, mask = make_data2vec(noisy), make_batch(), make_mask()
    model.eval()
    model.train()  # as after each probe
    assert model.backbone.training
    assert not any(module.training for module in model.teacher.modules())
    assert torch.equal(model.targets(batch), model.targets(batch))
    assert not torch.equal(model.backbone.encode(batch), model.backbone.encode(batch))
    model(batch, mask).loss.backward()
    teacher = {id(p) for p in model.teacher.parameters()}
    assert teacher
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    grouped = {id(p) for group in parameter_groups(model, 0.05) for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters()} - teacher


def test_gradients_reach_every_trained_parameter():
    style = Style(key_bias=False, layer_scale=0.1, position_bias="relative")
    model = make_data2vec(style, head_layers=2, beta=0.0)
    model(make_batch(), make_mask()).loss.backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("teacher."):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("top_k", [0, 5])
def test_more_layers_than_there_are_cannot_be_averaged(top_k: int):
    with pytest.raises(ConfigError, match=rf"objective\.top_k={top_k} of model\.depth=4 .*Choose 1 to 4, or null"):
        make_data2vec(top_k=top_k)


# The program.

SMALL = (
    *QUICK,
    "objective=data2vec",
    "objective.tau_start=0.5",
    "objective.tau_end=0.9",
    "objective.tau_steps=4 steps",
)
NOISY = ("encoder.dropout=0.1", "encoder.drop_path=0.2", "encoder.layer_drop=0.1", "model.depth=2")


def test_the_teacher_moves_once_after_each_optimiser_step(train, monkeypatch: pytest.MonkeyPatch):
    steps, students, first, batches = [], [], {}, []
    move, see = Data2Vec.after_step, Data2Vec.forward

    def watched_move(model: Data2Vec, step: int) -> None:
        steps.append(step)
        students.append({name: p.detach().double().clone() for name, p in model.backbone.named_parameters()})
        move(model, step)

    def watched_see(model: Data2Vec, batch, mask):
        if not first:
            first.update({name: p.detach().double().clone() for name, p in model.backbone.named_parameters()})
        batches.append(len(batch))
        return see(model, batch, mask)

    monkeypatch.setattr(Data2Vec, "after_step", watched_move)
    monkeypatch.setattr(Data2Vec, "forward", watched_see)
    folder = train(*SMALL, "trainer.max_steps=6", "data.micro_batch_size=4")
    assert batches == [4] * 24
    assert steps == [1, 2, 3, 4, 5, 6]
    expected = dict(first)
    for step, student in zip(steps, students, strict=True):
        tau = 0.5 + 0.4 * min(step, 4) / 4
        expected = {name: tau * value + (1 - tau) * student[name] for name, value in expected.items()}
    saved = torch.load(newest_checkpoint(folder), weights_only=True)["state_dict"]
    moved = 0
    for name, value in expected.items():
        teacher = saved[f"objective.teacher.model.{name}"].double()
        torch.testing.assert_close(teacher, value, rtol=1e-5, atol=1e-6)
        assert torch.equal(saved[f"objective.backbone.{name}"].double(), students[-1][name])
        moved += not torch.allclose(teacher, students[-1][name], rtol=1e-3, atol=1e-4)
    assert moved > 10


def test_a_resumed_run_has_the_teacher_of_an_uninterrupted_one(train):
    words = (*SMALL, *NOISY, "scheduler=constant")
    whole: Path = train(*words, "trainer.max_steps=6", folder="whole")
    train(*words, "trainer.max_steps=3", folder="resumed")
    resumed = whole.parent / "resumed"
    assert newest_checkpoint(resumed).name == "step=000000003.ckpt"
    train(f"resume={resumed}", "trainer.max_steps=6")
    assert_bit_equal(whole, resumed)
    names = torch.load(newest_checkpoint(whole), weights_only=True)["state_dict"]
    assert sum(name.startswith("objective.teacher.model.") for name in names) == sum(
        name.startswith("objective.backbone.") for name in names
    )


def test_what_is_exported_is_the_student(train):
    folder = train(*SMALL, "trainer.max_steps=3")
    saved = torch.load(newest_checkpoint(folder), weights_only=True)["state_dict"]
    for name, value in Backbone.load(folder).state_dict().items():
        assert torch.equal(value, saved[f"objective.backbone.{name}"])
