"""Searches: what is tried, what is tried again, what is given up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tests.conftest import QUICK, ROOT
from tests.test_sweep import PROGRAM, make_arms, starts
from unmask.errors import ConfigError
from unmask.sweep.ledger import Ledger
from unmask.sweep.search import Search, distribution
from unmask.sweep.sweep import Sweep

SPACE = {"lr": FloatDistribution(1e-4, 1e-1, log=True), "ratio": CategoricalDistribution(["0.5", "0.75"])}


def make_search(folder: Path, trials: int = 6, prune: bool = False) -> Search:
    return Search(folder, SPACE, trials, "minimize", "loss", prune)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a.b=0.5,0.75", CategoricalDistribution(["0.5", "0.75"])),
        ("model=tiny,small", CategoricalDistribution(["tiny", "small"])),
        ("x=range(2,9,2)", IntDistribution(2, 8, step=2)),
        ("x=range(0.1,0.45,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("x=int(interval(1,8))", IntDistribution(1, 8)),
        ("x=interval(0.5,1)", FloatDistribution(0.5, 1.0)),
        ("x=tag(log, interval(1e-4, 1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
    ],
)
def test_hydras_sweep_syntax_is_the_space(word: str, expected: object):
    [override] = OverridesParser.create().parse_overrides([word])
    assert distribution(override) == expected


def test_an_empty_space_is_a_mistake():
    [override] = OverridesParser.create().parse_overrides(["x=tag(log, interval(0.0, 1.0))"])
    with pytest.raises(ConfigError, match=r"is no space to search"):
        distribution(override)


def test_a_search_ends_after_its_trials_and_finds_the_better_ones(tmp_path: Path):
    search, tried = make_search(tmp_path, trials=30), 0
    while settings := search.ask(4):
        tried += len(settings)
        search.tell([abs(float(one["lr"]) - 0.01) + float(one["ratio"]) for one in settings])
    assert tried == 30
    value, settings = search.best()
    assert settings["ratio"] == "0.5"
    assert value == pytest.approx(0.5, abs=0.01)


def test_what_was_being_tried_when_a_search_was_killed_is_tried_first_and_nothing_twice(tmp_path: Path):
    first = make_search(tmp_path)
    done = first.ask(2)
    first.tell([1.0, None])
    begun = first.ask(2)  # and here it is killed
    second = make_search(tmp_path)
    assert second.ask(2) == begun
    second.tell([0.5, 0.6])
    later = second.ask(9)
    assert len(later) == 2  # six in all, the failed one counts
    assert all(one not in [*done, *begun] for one in later)
    states = [trial.state for trial in second.study.get_trials()]
    assert states.count(TrialState.FAIL) == 1
    assert make_search(tmp_path).best() == (0.5, begun[0])


def test_arms_worse_than_the_median_are_hopeless(tmp_path: Path):
    search = make_search(tmp_path, trials=20, prune=True)
    for loss in (1.0, 1.1, 0.9, 1.2, 1.3):  # the pruner waits for five
        search.ask(1)
        (tmp_path / "metrics.csv").write_text(f"step,loss,probe\n5,{loss + 1},\n8,,0.3\n10,{loss},\n")
        assert not search.hopeless(0, tmp_path)
        search.tell([loss])
    search.ask(2)
    assert not search.hopeless(0, tmp_path / "not begun")
    (tmp_path / "metrics.csv").write_text("step,loss,probe\n5,9.0,\n")
    assert search.hopeless(0, tmp_path)
    (tmp_path / "metrics.csv").write_text("step,loss,probe\n5,1.5,\n")
    assert not search.hopeless(1, tmp_path)
    search.tell([9.0, 0.7])
    assert [trial.state for trial in search.study.get_trials()[-2:]] == [TrialState.PRUNED, TrialState.COMPLETE]


def test_an_arm_that_is_given_up_saves_and_never_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unmask.sweep.runner.WATCH", 0.0)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(PROGRAM)
    arms = make_arms(tmp_path, "wait", "run")
    for _ in range(2):
        sweep = Sweep(
            tmp_path, "train", ["do=x"], ["do"], 1, 1, "continue", None,
            hopeless=lambda arm: (arm.folder / "ready").exists(),
        )  # fmt: skip
        latest = sweep.run(arms)
        assert [latest[arm.name]["state"] for arm in arms] == ["pruned", "done"]
    assert (arms[0].folder / "saved").exists()
    assert len(starts(arms[0])) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sweep.direction=minimize"], "nothing varies. Give choices"),
        (["seed=0,1"], "sweep.direction=null: is more of the metric better?"),
        (["seed=0,1", "sweep.direction=down"], "sweep.direction=down: is more"),
        (["seed=0,1", "sweep.direction=minimize", "sweep.prune=true"], "sweep.prune=true compares arms while they run"),
        (["seed=0,1", "sweep.direction=minimize", "sweep.trials=0"], "sweep.trials=0: there is nothing to do"),
    ],
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(
    train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, words: list[str], sentence: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        train("-m", "hydra/sweeper=optuna", "run_dir=null", *words)
    assert exit_.value.code == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert sentence in error
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_search_of_the_real_program_goes_on_where_it_was(tmp_path: Path):
    words = (
        "-m", "hydra/sweeper=optuna", *QUICK, "trainer.max_steps=3", "model.base_lr=tag(log, interval(1e-4, 1e-2))",
        "sweep.metric=loss", "sweep.direction=minimize", "sweep.parallel=2", "sweep.name=search",
    )  # fmt: skip
    for trials in (2, 3):
        command = [sys.executable, str(ROOT / "train.py"), *words, f"sweep.trials={trials}"]
        out = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    folder = tmp_path / "outputs" / "sweeps" / "search"
    latest = Ledger(folder / "ledger.jsonl").latest()
    losses = {event["values"]["model.base_lr"]: event["metric"] for event in latest.values()}
    assert len(losses) == 3
    assert {event["attempt"] for event in latest.values()} == {1}
    best = min(losses, key=losses.__getitem__)
    assert out.splitlines()[-1] == f"best:    {losses[best]:.4g} by model.base_lr={best}"
    assert json.loads((folder / "sweep.json").read_text())["varied"] == ["model.base_lr"]
