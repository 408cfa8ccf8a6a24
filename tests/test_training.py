"""Schedules, durations, parameter groups, batch arithmetic."""

import math

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import QUICK, make_mae
from unmask.errors import ConfigError
from unmask.training.duration import to_steps
from unmask.training.groups import layer_scale, parameter_groups
from unmask.training.precision import resolve_precision
from unmask.training.schedule import Constant, TriStage, WarmupCosine


def test_the_schedule_is_maes_with_a_fractional_epoch():
    # util/lr_sched.py's formula with epoch = iteration / length, restated.
    length, warmup_epochs, epochs, peak, floor = 50, 4, 20, 2.4e-3, 1e-6
    schedule = WarmupCosine(peak, warmup_epochs * length, epochs * length, floor)
    for iteration in range(epochs * length):
        epoch = iteration / length
        if epoch < warmup_epochs:
            expected = peak * epoch / warmup_epochs
        else:
            share = (epoch - warmup_epochs) / (epochs - warmup_epochs)
            expected = floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * share))
        assert schedule(iteration) == pytest.approx(expected, rel=1e-9)
    assert schedule(0) == 0
    assert schedule(epochs * length) == pytest.approx(floor)


def test_a_constant_rate_warms_up_too():
    schedule = Constant(1.0, warmup=4, total=100)
    assert [schedule(s) for s in (0, 1, 4, 99)] == [0, 0.25, 1, 1]
    assert Constant(1.0, warmup=0, total=10)(0) == 1


def test_a_warm_up_as_long_as_the_training_is_refused():
    with pytest.raises(ConfigError, match=r"scheduler\.warmup is 10 steps and the training 10"):
        WarmupCosine(1.0, 10, 10)


@pytest.mark.parametrize(
    ("value", "steps"),
    [(500, 500), ("500 steps", 500), ("1 step", 1), ("40 epochs", 400), ("0.5 epochs", 5), ("6400 samples", 100),
     ("12_800 samples", 200), ("1e4 samples", 157), ("5 %", 50), ("5%", 50), (0.05, 50), ("1 epoch", 10)],
)  # fmt: skip
def test_durations_in_every_unit(value, steps: int):
    assert to_steps("key", value, samples=640, global_batch=64, total=1000) == steps


@pytest.mark.parametrize("value", ["forty epochs", "40 weeks", "", "-3 steps", None])
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ConfigError, match="is no duration"):
        to_steps("trainer.duration", value, 640, 64, 1000)


def test_a_training_cannot_be_a_share_of_itself():
    with pytest.raises(ConfigError, match="share of itself"):
        to_steps("trainer.duration", "5 %", 640, 64)


def test_vectors_and_biases_do_not_decay_and_tokens_do():
    mae = make_mae()
    decayed, plain = sorted(parameter_groups(mae, 0.05), key=lambda group: -group["weight_decay"])
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0)
    names = {id(p): name for name, p in mae.named_parameters()}
    assert {names[id(p)] for p in plain["params"]} == {
        name for name in names.values() if "norm" in name or name.endswith("bias")
    }
    assert {"backbone.class_token", "decoder.mask_token"} <= {names[id(p)] for p in decayed["params"]}
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_layer_wise_rates_are_maes():
    def scales(decay: float, depth: int) -> list[float]:
        blocks = (f"backbone.encoder.blocks.{i}.attn.qkv.weight" for i in (0, depth - 1))
        names = ("backbone.modality.projection.weight", *blocks, "decoder.predict.weight")
        return [layer_scale(name, decay, depth) for name in names]

    assert scales(0.65, 12) == pytest.approx([0.003697206, 0.005688009, 0.65, 1], rel=1e-6)
    assert scales(0.75, 24)[:2] == pytest.approx([7.525434e-4, 1.003391e-3], rel=1e-6)
    assert scales(0.75, 32)[0] == pytest.approx(7.533932e-5, rel=1e-6)
    assert layer_scale("backbone.class_token", 0.5, 2) == 0.125
    assert layer_scale("backbone.encoder.norm.weight", 0.5, 2) == 1


def test_every_layer_gets_its_group():
    groups = parameter_groups(make_mae(depth=2), 0.05, layer_decay=0.5, depth=2)
    assert {group["lr_scale"] for group in groups} == {0.125, 0.25, 0.5, 1.0}
    assert sum(len(group["params"]) for group in groups) == len(list(make_mae(depth=2).parameters()))


def test_auto_precision_is_bfloat16_only_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch):
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr("unmask.training.precision.cpu_has_bfloat16", lambda native=native: native)
        assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("bf16", "cpu") == "bf16-mixed"
    with pytest.raises(ConfigError, match="needs a GPU"):
        resolve_precision("fp16", "cpu")


def test_an_objective_learns_one_batch_by_heart():
    from tests.conftest import make_batch
    from unmask.masking.random import RandomMask

    torch.manual_seed(0)
    mae, batch = make_mae(), make_batch(2)
    mask = RandomMask(0.5).draw(0, batch.positions, (4, 4))
    optimizer = torch.optim.AdamW(mae.parameters(), lr=3e-3)
    losses = []
    for _ in range(200):
        loss = mae(batch, mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_three_stages_rise_hold_and_fall_exponentially():
    rate = TriStage(peak=5e-4, warmup=12_000, decay=28_000, total=400_000, first=0.01, last=0.01)
    assert rate(0) == pytest.approx(5e-6)
    assert rate(6_000) == pytest.approx((5e-6 + 5e-4) / 2)
    assert {rate(step) for step in (12_000, 200_000, 372_000)} == {5e-4}
    assert rate(386_000) == pytest.approx(5e-4 * math.exp(math.log(0.01) / 28_000 * 14_000))
    assert rate(400_000) == pytest.approx(5e-6)


def test_a_fall_longer_than_the_training_is_refused():
    with pytest.raises(ConfigError, match=r"scheduler\.decay is 30 steps"):
        TriStage(peak=1.0, warmup=80, decay=30, total=100)


def test_vectors_decay_where_told_to():
    groups = parameter_groups(make_mae(), 0.05, decay_vectors=True)
    assert {group["weight_decay"] for group in groups} == {0.05}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_clipped_in_every_precision(train, precision: str):
    # With eps = 1 a step of Adam is nearly lr times the gradient's mean over its history, so clipping shows in it.
    words = (*QUICK, f"precision={precision}", "optimizer.eps=1", "optimizer.weight_decay=0", "trainer.max_steps=4")
    start, free, clipped = (
        load_file(train(*words, *more, folder=name) / "backbone" / "model.safetensors")
        for name, more in (
            ("start", ("optimizer.lr=1e-30",)),
            ("free", ("optimizer.lr=1",)),
            ("clipped", ("optimizer.lr=1", "trainer.gradient_clip=1e-4")),
        )
    )

    def moved(weights: dict[str, torch.Tensor]) -> float:
        return math.sqrt(sum(float((weights[name] - value).square().sum()) for name, value in start.items()))

    assert moved(free) > 1e-2
    assert 0 < moved(clipped) < 4e-4  # at most lr times the clipped norm a step


def test_class_and_mask_tokens_do_not_decay_where_told_so():
    mae = make_mae()
    names = {id(p): name for name, p in mae.named_parameters()}
    groups = parameter_groups(mae, 0.05, decay_tokens=False)
    plain = {names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert {name for name in plain if "norm" not in name and not name.endswith("bias")} == {
        "backbone.class_token", "decoder.mask_token",
    }  # fmt: skip
