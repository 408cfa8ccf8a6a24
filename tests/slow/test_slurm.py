"""Sweeps on a real Slurm cluster, of one node. Minutes; `make test-slurm` runs it where Slurm is installed."""

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT
from tests.slow.slurm.cluster import Cluster, missing
from tests.slow.test_sweep_survives import FAULTS
from unmask.sweep.ledger import Ledger

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())} (slurm-wlm, munge)")
WORDS = (
    *QUICK, "callbacks.checkpointing.every=4 steps", "+callbacks.fault._target_=faults.Fault",
    "+callbacks.fault.seed=${seed}",
)  # fmt: skip
SLURM = ("sweep=slurm", "sweep.slurm.partition=debug", "sweep.slurm.time=30", "sweep.slurm.cpus_per_task=1",
         "sweep.slurm.signal_delay_s=30")  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="sl") as folder, Cluster(Path(folder)) as running:
        yield running


def sweep(cluster: Cluster, folder: Path, *words: str, faults: bool = False) -> subprocess.Popen[str]:
    (folder / "faults.py").write_text(FAULTS)
    environment = {**cluster.environment, "PYTHONPATH": f"{folder}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *WORDS, *SLURM, "sweep.name=s", *words], cwd=folder, text=True,
        env=environment | ({"FAULTS": "1"} if faults else {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(what, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def losses(run: Path) -> list[str]:
    """As written, of all steps."""
    with (run / "metrics.csv").open(newline="") as file:
        return [row["loss"] for row in csv.DictReader(file) if row["loss"]]


def alone(folder: Path, *words: str) -> Path:
    command = [sys.executable, str(ROOT / "train.py"), *WORDS, *words, f"run_dir={folder / 'alone'}"]
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return folder / "alone"


def test_four_arms_of_which_one_crashes_and_one_raises(cluster: Cluster, tmp_path: Path):
    process = sweep(cluster, tmp_path, "seed=2,3,4,5", "trainer.max_steps=12", faults=True)
    out = process.communicate(timeout=500)[0]
    assert process.returncode == 1, out
    ledger = Ledger(tmp_path / "outputs" / "sweeps" / "s" / "ledger.jsonl")
    latest = ledger.latest()
    assert Counter(event["state"] for event in latest.values()) == {"done": 3, "failed": 1}, out
    by_seed = {event["values"]["seed"]: event for event in latest.values()}
    assert by_seed["3"]["reason"] == "RuntimeError: this arm was born under an unlucky star"
    assert [by_seed[seed]["attempt"] for seed in "2345"] == [1, 1, 1, 2]  # the fifth was killed, and went on
    assert len({event["job"].partition("_")[0] for event in latest.values()}) == 2  # one array, and one more job
    run = tmp_path / "outputs" / "sweeps" / "s" / by_seed["5"]["arm"]
    assert losses(run) == losses(alone(tmp_path, "seed=5", "trainer.max_steps=12"))


def test_a_preempted_arm_saves_is_requeued_and_ends_as_if_nothing_had_been(cluster: Cluster, tmp_path: Path):
    process = sweep(cluster, tmp_path, "seed=0", "trainer.max_steps=400")
    ledger = Ledger(tmp_path / "outputs" / "sweeps" / "s" / "ledger.jsonl")
    wait_for(lambda: list(tmp_path.glob("outputs/sweeps/s/arm-*/checkpoints/*")), process)
    [event] = ledger.latest().values()
    cluster.run("scancel", "--signal=USR2", event["job"])
    out = process.communicate(timeout=500)[0]
    assert process.returncode == 0, out
    run = tmp_path / "outputs" / "sweeps" / "s" / event["arm"]
    log = (run / "log.txt").read_text()
    assert "stopped by SIGTERM after step" in log
    assert "resumed from" in log
    assert losses(run) == losses(alone(tmp_path, "seed=0", "trainer.max_steps=400"))


def test_jobs_outlive_the_sweep_and_the_same_command_watches_on(cluster: Cluster, tmp_path: Path):
    words = ("seed=0,1", "trainer.max_steps=40")
    process = sweep(cluster, tmp_path, *words)
    wait_for(lambda: list(tmp_path.glob("outputs/sweeps/s/seed0*/config.yaml")), process)
    process.kill()
    process.wait()
    process = sweep(cluster, tmp_path, *words)
    out = process.communicate(timeout=500)[0]
    assert process.returncode == 0, out
    events = Ledger(tmp_path / "outputs" / "sweeps" / "s" / "ledger.jsonl").events()
    assert Counter(event["state"] for event in events) == {"queued": 2, "running": 2, "done": 2}


def test_two_tasks_are_two_ranks_of_one_run(cluster: Cluster, tmp_path: Path):
    words = ("trainer=ddp", "trainer.devices=2", "seed=0", "trainer.max_steps=6")
    process = sweep(cluster, tmp_path, *words)
    out = process.communicate(timeout=500)[0]
    assert process.returncode == 0, out
    [run] = tmp_path.glob("outputs/sweeps/s/arm-*")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["sweeps"]
    assert (run / "log.txt").read_text().count("mae on digits") == 1  # the other rank says nothing
    together, one = ([float(x) for x in losses(r)] for r in (run, alone(tmp_path, "seed=0", "trainer.max_steps=6")))
    assert len(one) == 6
    assert together == pytest.approx(one, abs=1e-5)
