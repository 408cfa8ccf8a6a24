"""Collapse is seen, called by its name and acted upon; healthy trainings are left alone and unchanged."""

import json
import math
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import QUICK
from tests.test_resume import StopAfter, assert_bit_equal
from unmask.task.collapse import PATIENCE, Look, judge, measure
from unmask.task.probe import effective_rank

Train = Callable[..., Path]
SAMPLES, TOKENS, WIDTH = 24, 20, 16
# Large enough to learn and to break in a few hundred steps.
SMALL = (
    *(word for word in QUICK if not word.startswith(("model.", "data.global", "scheduler", "callbacks.metrics"))),
    "model.width=32", "model.depth=2", "model.heads=2", "model.decoder.width=16", "data.global_batch_size=32",
    "callbacks.metrics.every=10 steps", "trainer.max_steps=300", "optimizer.lr=3e-3",
)  # fmt: skip
UNANCHORED = (  # nothing keeps the targets from becoming equal: the teacher is the student, and no norm spreads them
    "objective=data2vec", "objective.tau_start=0", "objective.tau_end=0", "objective.layer_norm=none",
    "objective.target_norm=none", "optimizer.lr=1e-2",
)  # fmt: skip


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def good() -> torch.Tensor:
    """Features that say something of the sample, of the place, and of both."""
    return draw(SAMPLES, TOKENS, WIDTH) + draw(SAMPLES, 1, WIDTH) + draw(1, TOKENS, WIDTH) + 1


def looks(*later: dict[str, torch.Tensor], **said: float) -> list[Look]:
    """One look at good features, then one at each of the others."""
    first = {name: good() for name in later[0]}
    return [Look(step, {**said, **measure(views)}) for step, views in enumerate([first, *later])]


def test_the_numbers_are_those_of_a_loop_over_real_tokens():
    features = good()
    lengths = [TOKENS - i % 7 for i in range(SAMPLES)]
    real = torch.tensor([[n < length for n in range(TOKENS)] for length in lengths])
    x = features.double().numpy()
    tokens = np.stack([x[i, n] for i in range(SAMPLES) for n in range(lengths[i])])
    deviation = tokens.std(0, ddof=1)
    size = np.sqrt((tokens**2).mean(0))

    def within(groups: list[np.ndarray]) -> float:
        squares = sum(((group - group.mean(0)) ** 2).sum() for group in groups)
        return squares / sum(len(group) - 1 for group in groups) / (deviation**2).sum()

    places = [np.stack([x[i, n] for i in range(SAMPLES) if n < lengths[i]]) for n in range(TOKENS)]
    expected = {
        "deviation": deviation.mean(),
        "size": np.sqrt((size**2).mean()),
        "spread": sorted(deviation / size)[WIDTH // 2 - 1],  # the lower of the two in the middle
        "between_samples": within(places),
        "between_tokens": within([x[i, : lengths[i]] for i in range(SAMPLES)]),
        "rank": effective_rank(tokens),
    }
    features[~real] = math.nan  # what stands in the padding is not looked at
    found = measure({"student": features}, real)
    assert found == pytest.approx({f"student_{name}": value for name, value in expected.items()}, rel=1e-5)


def test_the_cosine_of_teacher_and_student_is_that_of_what_differs_between_tokens():
    teacher, student = draw(4, 5, 8), draw(4, 5, 9)[..., :8]
    a, b = (x.flatten(0, 1).double().numpy() for x in (teacher, student))
    a, b = a - a.mean(0), b - b.mean(0)
    expected = np.mean([u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in zip(a, b, strict=True)])
    for offset in (0, 100):  # a mean that all tokens share would make them look alike
        found = measure({"teacher": teacher + offset, "student": student + offset})["teacher_student_cosine"]
        assert found == pytest.approx(expected, abs=1e-4)


FAULTS = {
    "all but equal": 5 + 0.03 * draw(SAMPLES, TOKENS, WIDTH),
    "those of their place alone": draw(1, TOKENS, WIDTH) + 0.03 * draw(SAMPLES, TOKENS, WIDTH),
    "equal all over a sample": draw(SAMPLES, 1, WIDTH) + 0.03 * draw(SAMPLES, TOKENS, WIDTH),
    "have shrunk": 0.001 * good(),
    "directions": draw(SAMPLES, TOKENS, 1) * draw(WIDTH) + 0.001 * draw(SAMPLES, TOKENS, WIDTH),
    "not finite": good() * math.inf,
}


@pytest.mark.parametrize("view", ["local", "student", "teacher"])
@pytest.mark.parametrize("words", FAULTS)
def test_each_way_to_collapse_is_called_by_its_name_and_no_other(words: str, view: str):
    views = {name: good() for name in ("local", "student", "teacher")} | {view: FAULTS[words]}
    verdict = judge(looks(*[views] * PATIENCE), grace=0)
    assert verdict.state == "collapsed"
    (reason,) = verdict.reasons
    assert reason.startswith(f"{view} features")
    assert words in reason


def test_a_periodic_local_encoder_is_caught_though_its_tokens_differ():
    wave = torch.sin(torch.arange(TOKENS)[:, None] * torch.arange(1, WIDTH + 1) * 2 * math.pi / 5)
    views = {"local": wave.expand(SAMPLES, -1, -1) + 1e-3 * draw(SAMPLES, TOKENS, WIDTH), "student": good()}
    verdict = judge(looks(*[views] * PATIENCE), grace=0)
    assert verdict.state == "collapsed"
    assert any("local features are those of their place alone" in reason for reason in verdict.reasons)


def test_predictions_that_stay_equal_are_suspect_beside_a_teacher_only():
    views = {"local": good(), "student": good()}
    assert judge(looks(*[views] * PATIENCE, prediction_std=1e-4), grace=0).state == "healthy"
    history = looks(*[{**views, "teacher": good()}] * PATIENCE, prediction_std=1e-4)
    assert [judge(history[:count], grace=0).state for count in (2, 3)] == ["healthy", "healthy"]  # it knows the mean
    verdict = judge(history, grace=0)
    assert verdict.state == "suspect"
    assert verdict.reasons[0].startswith("predictions are all but equal")
    history[-1].numbers["prediction_std"] = 0.3
    assert judge(history, grace=0).state == "healthy"


def test_a_fault_is_suspect_first_and_three_in_a_row_are_a_collapse():
    bad, well = {"student": FAULTS["all but equal"]}, {"student": good()}
    history = looks(bad, bad, well, bad, bad, bad, well)
    states = [judge(history[:count], grace=0).state for count in range(1, len(history) + 1)]
    assert states == [
        "healthy", "suspect", "suspect", "healthy", "suspect", "suspect", "collapsed", "healthy",
    ]  # fmt: skip
    late = [judge(history[:count], grace=4).state for count in range(1, len(history) + 1)]
    assert late == [*["healthy"] * 5, "suspect", "suspect", "healthy"]


def test_features_that_began_small_are_compared_with_their_beginning():
    small = {"local": 5 + 0.2 * draw(SAMPLES, TOKENS, WIDTH)}  # a spread of 0.04, under the limit
    assert judge([Look(step, measure(small)) for step in range(5)], grace=0).state == "healthy"


def outcome(folder: Path) -> dict:
    return json.loads((folder / "collapse.json").read_text())


@pytest.mark.parametrize(
    "words",
    [UNANCHORED, ("objective=data2vec", "optimizer.lr=0.3"), ("objective=mae", "optimizer.lr=0.3")],
    ids=["no anchor", "data2vec at 100 x the rate", "mae at 100 x the rate"],
)
def test_a_forced_collapse_ends_the_run_and_loses_nothing(train: Train, capsys, tmp_path: Path, words: tuple[str, ...]):
    with pytest.raises(SystemExit) as exit_:
        train(*SMALL, *words, "callbacks.collapse.action=stop")
    out, error = capsys.readouterr()
    assert exit_.value.code == 2
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("error: callbacks.collapse.action=stop at step ")
    assert "lower optimizer.base_lr" in error
    run = tmp_path / "run"
    last = outcome(run)["looks"][-1]
    assert last["state"] == outcome(run)["state"] == "collapsed"
    assert last["step"] <= 150
    assert all(reason in error for reason in last["reasons"])
    assert (run / "checkpoints" / f"step={last['step']:09d}.ckpt").exists()
    assert (run / "backbone" / "model.safetensors").exists()
    assert out.count(": suspect: ") == out.count(": collapsed: ") == 1

    train(f"resume={run}", "trainer.max_steps=160", "callbacks.collapse.action=warn", *words)
    assert "health:  collapsed: " in capsys.readouterr().out
    assert outcome(run)["looks"][-1]["step"] == 160


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("objective", ["mae", "data2vec"])
def test_a_healthy_run_raises_no_alarm(train: Train, capsys, objective: str, seed: int):
    run = train(*SMALL, f"objective={objective}", f"seed={seed}", "callbacks.collapse.grace=0")
    out = capsys.readouterr().out
    assert "health:  healthy" in out
    assert "suspect" not in out
    result = outcome(run)
    assert [look["state"] for look in result["looks"]] == ["healthy"] * 21
    assert [look["step"] for look in result["looks"]] == list(range(0, 301, 15))
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"collapse/severity", "collapse/student_rank", "collapse/local_between_samples"} <= set(header)
    assert ("collapse/teacher_student_cosine" in header) == (objective == "data2vec")


STEPS = ("trainer.max_steps=8", "objective=data2vec", "encoder.dropout=0.1", "callbacks.collapse.every=3 steps")


def test_looking_changes_no_weight(train: Train):
    assert_bit_equal(
        train(*QUICK, *STEPS, folder="looked at"),
        train(*QUICK, *STEPS, "callbacks.collapse=null", folder="alone"),
    )


def test_a_resumed_run_has_the_history_of_an_uninterrupted_one(train: Train):
    whole = train(*QUICK, *STEPS, folder="whole")
    assert [look["step"] for look in outcome(whole)["looks"]] == [0, 3, 6, 8]
    with pytest.MonkeyPatch.context() as patch:
        StopAfter(patch, 5, signal.SIGTERM)
        with pytest.raises(SystemExit):
            train(*QUICK, *STEPS, folder="stopped")
    stopped = whole.parent / "stopped"
    looked = outcome(stopped)
    assert [look["step"] for look in looked["looks"]] == [0, 3]
    looked["looks"].append({**looked["looks"][-1], "step": 6})  # of a step that is lost and run again
    (stopped / "collapse.json").write_text(json.dumps(looked))
    train(f"resume={stopped}")
    assert_bit_equal(whole, stopped)
    assert outcome(stopped) == outcome(whole)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("callbacks.collapse.action=panic", "one of warn, stop, none"),
        ("callbacks.collapse.samples=2", "a whole number of samples, at least 8"),
        ("callbacks.collapse.every=often", "is no duration"),
        ("callbacks.collapse.grace=soon", "callbacks.collapse.grace=soon is no duration"),
    ],
)
def test_a_mistake_is_named(train: Train, capsys, word: str, expected: str):
    with pytest.raises(SystemExit):
        train(word)
    assert expected in capsys.readouterr().err
