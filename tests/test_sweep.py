"""Sweeps: what is run, what is run again, what is never run twice, and what is said of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT
from unmask.checkout import differs, freeze
from unmask.cli import _with_backbones_own
from unmask.errors import ConfigError
from unmask.sweep.arm import Arm, quoted
from unmask.sweep.command import is_sweep, with_folder
from unmask.sweep.ending import ending, metric_of
from unmask.sweep.ledger import Ledger
from unmask.sweep.lifeline import lock
from unmask.sweep.naming import arm_name, sweep_name, varied_keys
from unmask.sweep.share import shares
from unmask.sweep.sweep import Sweep

# Stands for train.py: it does what the word `do` says, and counts how often it was started.
PROGRAM = """
import os, resource, signal, sys, time
from pathlib import Path
from unmask.sweep.lifeline import die_with_parent
die_with_parent()
words = dict(word.split("=", 1) for word in sys.argv[1:])
folder = Path(words.get("run_dir") or words["resume"])
(folder / "config.yaml").touch()
with (folder / "starts").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
first = len((folder / "starts").read_text().splitlines()) == 1
do = words["do"]
if do == "raise":
    raise RuntimeError("the weights are not amused")
if do == "mistake":
    print("error: mask.ratio=2 is not possible.")
    sys.exit(2)
if do == "kill" and first:
    os.kill(os.getpid(), signal.SIGKILL)
if do == "memory" and first:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    bytearray(1 << 32)
if do == "wait" and first:
    signal.signal(signal.SIGTERM, lambda *_: (folder.joinpath("saved").touch(), sys.exit(143)))
    folder.joinpath("ready").write_text(str(os.getpid()))
    time.sleep(60)
(folder / "threads").write_text(os.environ["OMP_NUM_THREADS"])
(folder / "metrics.csv").write_text("step,loss" + chr(10) + "1,0.5" + chr(10))
(folder / "done").touch()
"""


def make_sweep(folder: Path, parallel: int = 1, retries: int = 1, on_error: str = "continue") -> Sweep:
    (folder / "code").mkdir(parents=True, exist_ok=True)
    (folder / "code" / "train.py").write_text(PROGRAM)
    return Sweep(folder, "train", ["do=x"], ["do"], parallel, retries, on_error, None)


def make_arms(folder: Path, *what: str) -> list[Arm]:
    return [Arm(f"{i}-{do}", (f"do={do}",), {"do": do}, folder / f"{i}-{do}") for i, do in enumerate(what)]


def starts(arm: Arm) -> list[str]:
    return (arm.folder / "starts").read_text().splitlines()


def wait_until(what, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_arm_runs_and_failures_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arms = make_arms(tmp_path, "run", "raise", "mistake", "run")
    latest = make_sweep(tmp_path).run(arms)
    assert [latest[arm.name]["state"] for arm in arms] == ["done", "failed", "failed", "done"]
    assert latest["1-raise"]["reason"] == "RuntimeError: the weights are not amused"
    assert latest["2-mistake"]["reason"] == "mask.ratio=2 is not possible."
    assert latest["0-run"]["metric"] == 0.5
    make_sweep(tmp_path).finish(arms)
    out = capsys.readouterr().out
    assert f"failed: 1-raise: RuntimeError: the weights are not amused  ({arms[1].log})" in out
    assert "Traceback" in arms[1].log.read_text()
    assert len(starts(arms[1])) == len(starts(arms[2])) == 1  # a mistake is not tried again


def test_arms_that_were_killed_or_ran_out_of_memory_are_tried_again_and_go_on(tmp_path: Path):
    arms = make_arms(tmp_path, "kill", "memory")
    latest = make_sweep(tmp_path).run(arms)
    assert {event["state"] for event in latest.values()} == {"done"}
    assert [event["attempt"] for event in latest.values()] == [2, 2]
    reasons = [event["reason"] for event in Ledger(tmp_path / "ledger.jsonl").events() if event["state"] == "failed"]
    assert sorted(reasons) == [
        "killed by SIGKILL, as the system does when memory runs out", "out of memory: MemoryError",
    ]  # fmt: skip
    assert starts(arms[0]) == [f"do=kill run_dir={arms[0].folder}", f"do=kill resume={arms[0].folder}"]


def test_without_retries_a_killed_arm_stays_failed_until_the_sweep_is_run_again(tmp_path: Path):
    arms = make_arms(tmp_path, "kill", "run")
    assert make_sweep(tmp_path, retries=0).run(arms)["0-kill"]["state"] == "failed"
    assert make_sweep(tmp_path, retries=0).run(arms)["0-kill"]["state"] == "done"
    assert len(starts(arms[1])) == 1  # a finished arm never runs twice
    states = [event["state"] for event in Ledger(tmp_path / "ledger.jsonl").events() if event["arm"] == "1-run"]
    assert states == ["queued", "running", "done"]


def test_on_error_stop_leaves_the_rest_in_the_queue(tmp_path: Path):
    arms = make_arms(tmp_path, "raise", "run")
    latest = make_sweep(tmp_path, on_error="stop").run(arms)
    assert [latest[arm.name]["state"] for arm in arms] == ["failed", "queued"]


def test_an_arm_whose_mistake_is_known_is_never_started(tmp_path: Path):
    arm = Arm("bad", ("do=run",), {"do": "run"}, tmp_path / "bad", mistake="mlm needs text.")
    assert make_sweep(tmp_path).run([arm])["bad"]["reason"] == "mlm needs text."
    assert not arm.folder.exists()


def test_two_at_a_time_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("unmask.sweep.share.cores", lambda: 8)
    arms = make_arms(tmp_path, "run", "run")
    make_sweep(tmp_path, parallel=2).run(arms)
    assert [(arm.folder / "threads").read_text() for arm in arms] == ["4", "4"]
    events = [event["state"] for event in Ledger(tmp_path / "ledger.jsonl").events()]
    assert events == ["queued", "queued", "running", "running", "done", "done"]


def test_gpus_are_divided_and_taken_in_turns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert [share.gpus for share in shares(2, 2)] == [("0", "1"), ("2", "3")]
    assert [share.gpus for share in shares(6, 1)] == [("0",), ("1",), ("2",), ("3",), ("0",), ("1",)]
    assert len(shares("auto", 2)) == 2
    assert shares(4, 1)[3].environment(1)["CUDA_VISIBLE_DEVICES"] == "3"
    with pytest.raises(ConfigError, match=r"Choose sweep.parallel=2\."):
        shares(4, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_arms_save_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
):
    arms = make_arms(tmp_path, "wait", "run")

    def stop() -> None:
        wait_until((arms[0].folder / "ready").exists)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()
    with pytest.raises(SystemExit) as exit_:
        make_sweep(tmp_path).run(arms)
    assert exit_.value.code == 128 + number
    assert (arms[0].folder / "saved").exists()
    make_sweep(tmp_path).finish(arms)
    assert f"go on with: python train.py -m sweep.resume={tmp_path}" in capsys.readouterr().out
    states = {name: event["state"] for name, event in Ledger(tmp_path / "ledger.jsonl").latest().items()}
    assert states == {"0-wait": "interrupted", "1-run": "queued"}
    make_sweep(tmp_path).run(arms)
    assert starts(arms[0])[1] == f"do=wait resume={arms[0].folder}"


DRIVER = """
import sys
from pathlib import Path
from unmask.sweep.arm import Arm
from unmask.sweep.sweep import Sweep
folder = Path(sys.argv[1])
arms = [Arm(f"{i}-{do}", (f"do={do}",), {"do": do}, folder / f"{i}-{do}") for i, do in enumerate(("wait", "run"))]
Sweep(folder, "train", ["do=x"], ["do"], 1, 1, "continue", None).run(arms)
"""


def drive(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(folder)], cwd=ROOT, text=True, stderr=subprocess.PIPE)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an arm goes on, and the lock makes others wait")
def test_arms_of_a_sweep_that_is_killed_save_and_end_and_the_sweep_goes_on(tmp_path: Path):
    make_sweep(tmp_path)
    process = drive(tmp_path)
    arms = make_arms(tmp_path, "wait", "run")
    wait_until(lambda: (arms[0].folder / "ready").exists() and (arms[0].folder / "ready").read_text())
    other = drive(tmp_path)  # the same command while it runs
    assert "this sweep is running" in other.communicate(timeout=60)[1]
    process.kill()
    process.wait()
    latest = make_sweep(tmp_path).run(arms)
    assert (arms[0].folder / "saved").exists()
    assert {event["state"] for event in latest.values()} == {"done"}
    reasons = [event["reason"] for event in Ledger(tmp_path / "ledger.jsonl").events() if event["reason"]]
    assert reasons == ["the sweep was killed"]


def test_an_arm_that_ended_well_after_its_sweep_was_killed_is_not_run_again(tmp_path: Path):
    [arm] = make_arms(tmp_path, "run")
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.write(arm.name, "running", 1, arm.values)
    arm.folder.mkdir()
    arm.done.touch()
    assert make_sweep(tmp_path).run([arm])[arm.name]["state"] == "done"
    assert not (arm.folder / "starts").exists()


def test_a_lock_is_held_as_long_as_any_process_of_an_arm_lives(tmp_path: Path):
    held = lock(tmp_path / ".lock")
    assert held is not None
    child = subprocess.Popen(["sleep", "60"], pass_fds=[held])
    os.close(held)
    assert lock(tmp_path / ".lock") is None
    child.kill()
    child.wait()
    assert lock(tmp_path / ".lock") is not None


def test_an_event_that_a_kill_cut_short_is_skipped_and_the_next_one_is_whole(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.write("a", "queued", 0, {"seed": "0"})
    with ledger.path.open("a") as file:
        file.write('{"time": 1, "arm": "a", "sta')
    ledger.write("a", "running", 1, {"seed": "0"})
    assert [event["state"] for event in ledger.events()] == ["queued", "running"]
    assert ledger.latest()["a"]["attempt"] == 1
    keys = {"time", "arm", "state", "attempt", "reason", "metric", "metric_name", "seconds", "then", "values"}
    assert set(ledger.events()[0]) == keys


@pytest.mark.parametrize(
    ("code", "log", "state", "reason", "again"),
    [
        (0, "", "done", None, False),
        (2, "error: The loss is nan at step 3.", "failed", "The loss is nan at step 3.", False),
        (1, "torch.OutOfMemoryError: CUDA out of memory.", "failed", "out of memory: torch.OutOfMemoryError", True),
        (1, "RuntimeError: [enforce] can't allocate memory: 9 bytes", "failed", "out of memory: RuntimeError", True),
        (-11, "", "failed", "killed by SIGSEGV", True),
        (143, "stopped by SIGTERM after step 3 of 8", "interrupted", "stopped; the same command goes on with it", True),
        (1, "Traceback:\nValueError: no\n[W] later words", "failed", "ValueError: no", False),
        (3, "", "failed", "exit code 3", False),
    ],
)  # fmt: skip
def test_an_exit_is_judged(code: int, log: str, state: str, reason: str | None, again: bool):
    how = ending(code, log, stopping=False)
    assert how.state == state
    assert (how.reason or "").startswith(reason or "")
    assert how.again == again


def test_the_metric_is_what_the_run_is_judged_by_or_the_one_that_is_wanted(tmp_path: Path):
    assert metric_of(tmp_path, None) == (None, None)
    (tmp_path / "metrics.csv").write_text("step,loss,knn_accuracy\n1,3.0,\n2,,0.25\n3,2.0,\n")
    assert metric_of(tmp_path, None) == ("knn_accuracy", 0.25)
    assert metric_of(tmp_path, "loss") == ("loss", 2.0)
    assert metric_of(tmp_path, "los") == ("los", None)
    said = {"state": "done", "started": 0.0, "seconds": 1.0, "step": 3, "steps": 3, "main": "test/wer"}
    (tmp_path / "summary.json").write_text(json.dumps({**said, "metrics": {"loss": 2.0, "test/wer": 0.1}}))
    assert metric_of(tmp_path, None) == ("test/wer", 0.1)


def test_names_are_readable_and_follow_what_is_run():
    words = ["objective=mae,data2vec", "seed=range(3)", "data.mean=[1,2]", "note='a,b'", "mask_ratio=glob(*)"]
    assert varied_keys(words) == ["objective", "seed", "mask_ratio"]  # commas inside a list are no sweep
    name = sweep_name("train", words)
    assert name.startswith("train-objective-seed-mask_ratio-")
    assert sweep_name("train", [*words, "sweep.parallel=2", "-m"]) == name
    assert sweep_name("finetune", words)[-8:] != sweep_name("train", [*words, "x=1"])[-8:] != name[-8:]
    arm = arm_name({"objective": "mae", "mask.ratio": "0.6", "seed": "0", "backbone": "outputs/a b/2026=x"}, "config")
    assert arm.rpartition("-")[0] == "mae-ratio0.6-seed0-outputs_a_b_2026_x"
    deep = arm_name(
        {"backbone": "outputs/sweeps/train-objective-mask_ratio-seed-210fb372/mae-seed0-25bb577b"}, "config"
    )
    assert deep.rpartition("-")[0] == "mae_seed0_25bb577b"
    assert arm_name({}, "config") != arm_name({}, "another")
    assert quoted(Path("a=b's")) == "'a=b\\'s'"


@pytest.mark.parametrize(
    "words", [["-m", "seed=0,1", "x=1"], ["seed=0,1", "--multirun", "x=1"], ["seed=0,1", "x=1", "-m"]]
)
def test_m_may_stand_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]):
    monkeypatch.chdir(tmp_path)
    assert is_sweep(words)
    *command, folder = with_folder(words, "train")
    assert command == ["-m", "seed=0,1", "x=1"]  # what Hydra understands
    assert folder.startswith("hydra.sweep.dir=outputs/sweeps/train-seed-")


def test_what_a_backbone_brings_stands_beside_it(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"modality": {"class": "unmask.modality.image.Image"}}))
    words = ["-m", "seed=0,1", f"backbone=scratch,{tmp_path}", "--cfg", "job"]
    assert _with_backbones_own(words) == [*words[:2], "modality=image", *words[2:]]  # all in a row


def test_frozen_code_is_a_copy_with_its_commit(tmp_path: Path):
    freeze(tmp_path / "code")
    for name in ("train.py", "finetune.py", "conf/train.yaml", "src/unmask/cli.py", "commit.txt", "changes.diff"):
        assert (tmp_path / "code" / name).is_file()
    assert not list((tmp_path / "code").rglob("__pycache__"))
    assert not differs(tmp_path / "code")
    script = "from unmask.checkout import ROOT, commit; print(ROOT, commit())"
    path = {**os.environ, "PYTHONPATH": str(tmp_path / "code" / "src")}
    said = subprocess.run([sys.executable, "-c", script], env=path, capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == str(tmp_path / "code")
    assert said.split()[1] in ((tmp_path / "code" / "commit.txt").read_text().strip(), "None")
    (tmp_path / "code" / "conf" / "train.yaml").write_text("seed: 1\n")
    assert differs(tmp_path / "code")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mask.ratio=2,3"], "at least 0 and at most 1. None of the 2 arms can run."),
        (["seed=0,1", "mask.ration=0.5"], "Did you mean mask.ratio?"),
        (["model=tinny,small", "seed=0"], "Did you mean tiny?"),
        (["seed=0,1", "--cfg", "job"], "-m runs arms, and --cfg shows one config"),
        (["experiment=glob(ft_e*)", "seed=0"], "experiment=ft_esc50 is for finetune.py"),
        (["seed=0,1", "sweep.parallel=0"], "sweep.parallel=0 is not possible"),
        (["seed=0,1", "sweep.on_error=panic"], "one of continue, stop"),
        (["seed=0,1", "resume=outputs/x"], "each arm of a sweep has its own"),
        (["seed=0,1", "run_dir=x"], "each arm of a sweep has its own"),
        (["sweep.resume=nowhere"], "sweep.resume=nowhere is no sweep"),
    ],
)  # fmt: skip
def test_mistakes_of_all_arms_are_said_before_anything_starts(
    train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, words: list[str], sentence: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        train("-m", "run_dir=null", *words)
    assert exit_.value.code == 2
    [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert sentence in error
    assert not list(tmp_path.iterdir())


def program(checkout: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(checkout / "train.py"), *words]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    return subprocess.Popen(
        command, cwd=checkout.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_sweep_of_the_real_program_from_its_command_to_its_second_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MY_TOKEN", "hush-hush-hush")
    freeze(tmp_path / "checkout")
    words = (
        "-m", *QUICK, "trainer.max_steps=3", "data=digits,docs", "mask_ratio=choice(15)", "+note2=[1,2]",
        "+note=${oc.env:MY_TOKEN}", "sweep.parallel=2", "sweep.name=both",
    )  # fmt: skip
    first = program(tmp_path / "checkout", *words)
    folder = tmp_path / "outputs" / "sweeps" / "both"
    wait_until((folder / "ledger.jsonl").exists)
    (tmp_path / "checkout" / "src" / "unmask" / "run.py").write_text("raise SystemExit(9)")  # edits while it runs
    shutil.rmtree(tmp_path / "checkout" / "conf")
    error = first.communicate()[1]
    assert first.returncode == 1
    assert "error: 1 of 2 arms are not done; the reasons are above." in error
    record = json.loads((folder / "sweep.json").read_text())
    assert record["varied"] == ["data", "mask_ratio"]
    assert record["program"] == "train"
    latest = Ledger(folder / "ledger.jsonl").latest()
    bad, good = sorted(latest.values(), key=lambda event: event["state"] == "done")
    assert (good["state"], good["metric_name"], bad["state"]) == ("done", "loss", "failed")
    assert good["values"] == {"data": "digits", "mask_ratio": "15"}
    assert bad["reason"].startswith("data=docs does not go with modality=image")
    run = folder / good["arm"]
    assert {"config.yaml", "overrides.json", "metrics.csv", "checkpoints", "backbone", "log.txt", "done"} <= {
        path.name for path in run.iterdir()
    }
    for path in folder.rglob("*"):
        assert not path.is_file() or b"hush-hush" not in path.read_bytes(), path
    again = program(tmp_path / "checkout", "sweep.resume=outputs/sweeps/both", "sweep.retries=0")
    assert "2 arms, 1 done before, 0 to run" in again.communicate()[0]
    assert again.returncode == 1
    events = Ledger(folder / "ledger.jsonl").events()
    assert [event["state"] for event in events if event["arm"] == good["arm"]] == ["queued", "running", "done"]
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["sweeps"]
