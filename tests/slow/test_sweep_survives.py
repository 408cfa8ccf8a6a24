"""A night of twelve arms in which everything goes wrong. Minutes; `make test-sweep` runs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT
from tests.test_sweep import PROGRAM
from unmask.checkout import freeze
from unmask.sweep.ledger import Ledger

# A callback for the arms: what happens to an arm once it has saved its fourth step, by its seed.
FAULTS = """
import os, resource, signal
from pathlib import Path
import lightning.pytorch as L

class Fault(L.Callback):
    def __init__(self, seed):
        self.kind = {3: "raise", 5: "kill", 7: "memory"}.get(seed) if os.environ.get("FAULTS") else None

    def on_train_batch_end(self, trainer, module, *rest):
        folder = Path(trainer.default_root_dir)
        struck = folder / "struck"
        if trainer.global_step != 6 or self.kind is None or struck.exists():
            return
        if self.kind == "raise":
            raise RuntimeError("this arm was born under an unlucky star")
        struck.touch()
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 28, 1 << 28))
        bytearray(1 << 34)
"""
WORDS = (
    *QUICK, "trainer.max_steps=12", "callbacks.checkpointing.every=4 steps", "+callbacks.fault._target_=faults.Fault",
    "+callbacks.fault.seed=${seed}",
)  # fmt: skip
ARMS = 12


def environment(folder: Path, checkout: Path = ROOT) -> dict[str, str]:
    (folder / "faults.py").write_text(FAULTS)
    path = os.pathsep.join([str(checkout / "src"), str(folder)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def start(folder: Path, checkout: Path = ROOT, **more: str) -> subprocess.Popen[str]:
    words = ("-m", *WORDS, f"seed=range({ARMS})", "sweep.parallel=2", "sweep.name=night")
    return subprocess.Popen(
        [sys.executable, str(checkout / "train.py"), *words], cwd=folder, env=environment(folder, checkout) | more,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def done(ledger: Ledger) -> int:
    return sum(event["state"] == "done" for event in ledger.events())


def wait_for(ledger: Ledger, arms: int, process: subprocess.Popen[str]) -> None:
    while done(ledger) < arms:
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep's folder, after its parent was killed twice and the same command ran a third time."""
    folder = tmp_path_factory.mktemp("night")
    ledger = Ledger(folder / "outputs" / "sweeps" / "night" / "ledger.jsonl")
    for arms in (3, 7):
        process = start(folder, FAULTS="1")
        wait_for(ledger, arms, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(folder, FAULTS="1")
    out = process.communicate()[0]
    assert process.returncode == 1, out
    assert "RuntimeError: this arm was born under an unlucky star" in out
    assert "error: 1 of 12 arms are not done" in out
    return folder / "outputs" / "sweeps" / "night"


def test_all_arms_are_done_or_failed_for_good_and_none_ran_again_once_done(night: Path):
    ledger = Ledger(night / "ledger.jsonl")
    latest = ledger.latest()
    assert Counter(event["state"] for event in latest.values()) == {"done": ARMS - 1, "failed": 1}
    for arm in latest:
        states = [event["state"] for event in ledger.events() if event["arm"] == arm]
        assert "done" not in states[:-1]
        assert states.count("running") == latest[arm]["attempt"]
    reasons = [event["reason"] or "" for event in ledger.events()]
    assert any(reason.startswith("killed by SIGKILL") for reason in reasons)
    assert any(reason.startswith("out of memory") for reason in reasons)
    assert any(reason == "the sweep was killed" for reason in reasons)
    [failed] = [event for event in latest.values() if event["state"] == "failed"]
    assert failed["values"] == {"seed": "3"}
    assert "Traceback" in (night / failed["arm"] / "log.txt").read_text()


def test_every_arm_is_bit_for_bit_what_it_is_alone(night: Path, tmp_path: Path):
    seeds = {event["values"]["seed"]: arm for arm, event in Ledger(night / "ledger.jsonl").latest().items()}
    for seed in sorted(set(seeds) - {"3"}):
        alone = tmp_path / seed
        subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *WORDS, f"seed={seed}", f"run_dir={alone}"],
            env=environment(tmp_path), check=True, capture_output=True,
        )  # fmt: skip
        weights = "backbone/model.safetensors"
        assert (alone / weights).read_bytes() == (night / seeds[seed] / weights).read_bytes(), seed


def test_edits_while_a_sweep_runs_do_not_reach_its_queue(tmp_path: Path):
    checkout = tmp_path / "checkout"
    freeze(checkout)
    ledger = Ledger(tmp_path / "outputs" / "sweeps" / "night" / "ledger.jsonl")
    process = start(tmp_path, checkout)
    wait_for(ledger, 1, process)
    (checkout / "train.py").write_text("raise SystemExit(9)")
    (checkout / "src" / "unmask" / "cli.py").write_text("raise SystemExit(9)")
    shutil.rmtree(checkout / "conf")
    out = process.communicate()[0]
    assert process.returncode == 0, out
    assert done(ledger) == ARMS


DRIVER = """
import sys
from pathlib import Path
from unmask.sweep.arm import Arm
from unmask.sweep.sweep import Sweep
folder = Path(sys.argv[1])
arms = [Arm(f"{i}", ("do=run",), {"do": "run"}, folder / f"{i}") for i in range(50)]
Sweep(folder, "train", ["do=x"], ["do"], 1, 1, "continue", None).run(arms)
"""


def test_fifty_arms_take_no_memory_and_no_time_of_their_own(tmp_path: Path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(PROGRAM)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, text=True)
    memory = {}
    for arms in (10, 48):
        wait_for(ledger, arms, process)
        status = Path(f"/proc/{process.pid}/status").read_text()
        memory[arms] = int(status.partition("VmRSS:")[2].split()[0])
    assert process.wait() == 0
    assert memory[48] - memory[10] < 1024  # kB
    events = [event for event in ledger.events() if event["state"] in ("running", "done")]
    idle = [after["time"] - before["time"] for before, after in zip(events[1:-1:2], events[2::2], strict=True)]
    print(json.dumps({"memory_kB": memory, "idle_between_arms_s": round(sum(idle) / len(idle), 3)}))
    assert sum(idle) / len(idle) < 0.5
