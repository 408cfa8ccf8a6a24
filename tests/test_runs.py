"""python -m unmask.runs: what became of runs, in the terminal."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.folders import write_run, write_sweep
from unmask.errors import ConfigError
from unmask.records import read_run
from unmask.runs import main


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs: the first began last, the second has failed, the third has the least loss."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs"
    accurate = {"main": "linear_accuracy", "metrics": {"loss": 0.25, "linear_accuracy": 0.9}}
    write_run(folder / "mae" / "a", 0, {"mask": {"ratio": 0.5}}, ["mask_ratio=50"], started=1.8e9 + 9, **accurate)
    write_run(
        folder / "mae" / "b", 0, {"mask": {"ratio": 0.75}}, state="failed", reason="loss is NaN", metrics={"loss": 2.0}
    )
    write_run(folder / "simmim" / "c", 1, {"mask": {"ratio": 0.5}}, started=1.8e9 + 5, metrics={"loss": 0.125})
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """The words of each line that a command prints."""
    main(list(words))
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_list_shows_every_run_newest_last(outputs: Path, capsys: pytest.CaptureFixture[str]):
    head, *rows = said(capsys, "list")
    assert head[:4] == ["started", "run", "state", "steps"]
    assert [row[2:] for row in rows] == [
        ["mae/b", "failed", "3/3", "loss", "2"],
        ["simmim/c", "done", "3/3", "loss", "0.125"],
        ["mae/a", "done", "3/3", "linear_accuracy", "90.0", "%"],
    ]


def test_best_knows_which_way_is_better(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert [row[1] for row in said(capsys, "best", "loss")[1:]] == ["simmim/c", "mae/a", "mae/b"]
    write_run(outputs / "d", metrics={"linear_accuracy": 0.95})
    assert [row[:3] for row in said(capsys, "best", "linear_accuracy")[1:]] == [
        ["95.0", "%", "d"],
        ["90.0", "%", "mae/a"],
    ]


def test_best_without_a_metric_takes_what_most_runs_are_judged_by(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert said(capsys, "best") == said(capsys, "best", "loss")
    assert said(capsys, "best", "outputs") == said(capsys, "best")


def test_show_says_what_one_run_was(outputs: Path, capsys: pytest.CaptureFixture[str]):
    rows = said(capsys, "show", "outputs/mae/a")
    assert ["command", "train.py", "mask_ratio=50"] in rows
    assert ["commit", "abc1234"] in rows
    assert ["linear_accuracy", "90.0", "%"] in rows
    assert ["state", "failed:", "loss", "is", "NaN"] in said(capsys, "show", "outputs/mae/b")


def test_diff_shows_keys_that_differ_and_metrics_of_both(outputs: Path, capsys: pytest.CaptureFixture[str]):
    assert said(capsys, "diff", "outputs/mae/a", "outputs/simmim/c") == [
        ["key", "first", "second"], ["seed", "0", "1"], [], ["loss", "0.25", "0.125"],
    ]  # fmt: skip
    assert ["mask.ratio", "0.5", "0.75"] in said(capsys, "diff", "outputs/mae/a", "outputs/mae/b")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Write python -m unmask.runs"),
        (["lst"], "lst: there is no such command. Did you mean list?"),
        (["list", "nowhere"], "nowhere holds no run"),
        (["best", "linear_acuracy"], "Did you mean linear_accuracy?"),
        (["show"], "show takes 1 words after it, and there are 0"),
        (["show", "outputs/mae"], "outputs/mae is no run: it holds no config.yaml"),
        (["diff", "outputs/mae/a"], "diff takes 2 words after it, and there are 1"),
    ],
)
def test_a_mistake_gets_one_sentence(words: list[str], sentence: str, outputs: Path):
    with pytest.raises(ConfigError) as error:
        main(words)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_command_line_loads_no_torch_and_ends_in_a_sentence(outputs: Path):
    check = "import sys, runpy; sys.argv = ['runs', 'list']; runpy.run_module('unmask.runs', run_name='__main__'); "
    subprocess.run([sys.executable, "-c", check + "assert 'torch' not in sys.modules"], check=True, capture_output=True)
    failed = subprocess.run([sys.executable, "-m", "unmask.runs", "show", "x"], capture_output=True, text=True)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert failed.stderr.startswith("error: x is no run")


def test_a_run_whose_process_is_gone_was_killed(tmp_path: Path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid, state in ((ended.pid, "killed"), (os.getpid(), "running")):
        running = {"state": "running", "metrics": None, "step": 0, "pid": pid, "host": platform.node()}
        run = read_run(write_run(tmp_path / state, **running))
        assert (run.state, run.step, run.metrics["loss"]) == (state, 3, 0.25)
    elsewhere = read_run(write_run(tmp_path / "elsewhere", **{**running, "pid": ended.pid, "host": "another machine"}))
    assert elsewhere.state == "running"


def test_a_run_without_words_of_its_end_was_killed(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    (folder / "summary.json").unlink()
    (folder / "metrics.csv").write_text("step,loss\n1,0.5\n2,nan\n3")  # and a line is cut short
    run = read_run(folder)
    assert (run.state, run.step, run.metrics) == ("killed", 1, {"loss": 0.5})


def test_runs_within_a_sweep_are_found_and_its_copy_of_the_code_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = write_sweep(tmp_path / "sweeps" / "night", [({"seed": "0"}, 0.5), ({"seed": "1"}, 0.6)])
    write_run(folder / "code" / "outputs")
    assert [row[2] for row in said(capsys, "list", str(tmp_path))[1:]] == ["sweeps/night/0", "sweeps/night/1"]


def test_numbers_are_those_that_the_summary_holds(outputs: Path):
    told = json.loads((outputs / "mae" / "a" / "summary.json").read_text())
    run = read_run(outputs / "mae" / "a")
    assert (run.metrics, run.value, run.seconds) == (told["metrics"], 0.9, 61.0)
