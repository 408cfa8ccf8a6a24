"""A sweep from its list of arms to its table."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unmask.checkout import commit, freeze
from unmask.errors import ConfigError
from unmask.files import written_whole
from unmask.secret import without_secrets
from unmask.sweep.arm import Arm, quoted
from unmask.sweep.ledger import OVER, Ledger
from unmask.sweep.lifeline import lock
from unmask.sweep.local import LocalRunner
from unmask.sweep.runner import Runner
from unmask.sweep.share import shares
from unmask.sweep.table import show


@dataclass
class Sweep:
    """What is needed to run arms, and to go on with them.

    Attributes:
        folder: of the sweep.
        program: `train` or `finetune`.
        words: the command line, to be written down.
        varied: keys that differ between arms.
        parallel: arms at a time, or `auto`.
        retries: of an arm that was killed or ran out of memory.
        on_error: `continue` or `stop`.
        metric: the column of metrics.csv to compare by, or None.
        hopeless: whether to give an arm up that runs; None to run all to their end.
        slurm: what jobs of a cluster ask for; None for processes of this machine.
    """

    folder: Path
    program: str
    words: Sequence[str]
    varied: Sequence[str]
    parallel: int | str
    retries: int
    on_error: str
    metric: str | None
    hopeless: Callable[[Arm], bool] | None = None
    slurm: Mapping[str, Any] | None = None

    def run(self, arms: Sequence[Arm]) -> dict[str, dict[str, Any]]:
        """Run what is not done; the last event of each arm.

        Raises:
            ConfigError: another process is at it, or the machine is too small.
            SystemExit: a signal ended the sweep; the code is 128 + its number.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        held = lock(self.folder / ".lock")
        if held is None:
            raise ConfigError(f"{self.folder}: this sweep is running. Wait for it, or stop it first.")
        try:
            return self._run(arms)
        finally:
            os.close(held)

    def _run(self, arms: Sequence[Arm]) -> dict[str, dict[str, Any]]:
        ledger = Ledger(self.folder / "ledger.jsonl")
        runner = self._runner(arms, ledger)
        self._record()
        todo = self._to_run(arms, ledger, runner)
        runnable = [arm for arm in todo if arm.mistake is None]
        print(
            f"sweep:   {self.folder}: {len(arms)} arms, {len(arms) - len(todo)} done before, {len(runnable)} to run, "
            f"{runner.how}; code {commit()}",
            flush=True,
        )
        runner.run(runnable)
        if runner.stopped_by is not None:
            sys.exit(128 + runner.stopped_by)
        return ledger.latest()

    def finish(self, arms: Sequence[Arm]) -> None:
        """Print what all came to."""
        latest = Ledger(self.folder / "ledger.jsonl").latest()
        show(arms, latest)
        from unmask.report import write_or_say  # for it alone templates and charts are loaded

        write_or_say(self.folder)
        print(f"sweep:   {self.folder}")
        if any(latest[arm.name]["state"] not in OVER for arm in arms):
            print(f"go on with: python {self.program}.py -m sweep.resume={quoted(self.folder)}", flush=True)

    def _record(self) -> None:
        """`code/` and `sweep.json`, when the sweep begins; the words also when it is gone on with by others."""
        if not (self.folder / "code").exists():
            freeze(self.folder / "code")
        path = self.folder / "sweep.json"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        started = json.loads(path.read_text())["started"] if path.exists() else now
        record = {
            "program": self.program,
            "words": [word for word in self.words if without_secrets(word)],
            "varied": list(self.varied),
            "commit": commit(),
            "started": started,
        }
        with written_whole(path) as aside:
            aside.write_text(json.dumps(record, indent=2) + "\n")

    def _to_run(self, arms: Sequence[Arm], ledger: Ledger, runner: Runner) -> list[Arm]:
        """Arms that are not done, after what happened to those that nobody saw end is written down."""
        latest, todo = ledger.latest(), []
        for arm in arms:
            last = latest.get(arm.name, {"state": None, "attempt": 0})
            state = runner.settle(arm, last) if last["state"] == "running" else last["state"]
            if state in OVER:
                continue
            todo.append(arm)
            if arm.mistake is not None:
                ledger.write(arm.name, "failed", last["attempt"], arm.values, reason=arm.mistake)
            elif state not in ("queued", "running"):
                ledger.write(arm.name, "queued", last["attempt"], arm.values)
        return todo

    def _runner(self, arms: Sequence[Arm], ledger: Ledger) -> Runner:
        program = self.folder.resolve() / "code" / f"{self.program}.py"
        if self.slurm is None:
            available = shares(self.parallel, max((arm.devices for arm in arms), default=1))
            return LocalRunner(program, ledger, self.retries, self.on_error, self.metric, available, self.hopeless)
        if self.hopeless is not None:
            raise ConfigError(
                "sweep.prune=true looks at runs of this machine, and sweep=slurm is elsewhere. Set false."
            )
        try:
            from unmask.sweep.slurm import SlurmRunner
        except ImportError as error:
            raise ConfigError("sweep=slurm needs submitit. Run `pip install 'unmask[slurm]'`.") from error
        if shutil.which("sbatch") is None:
            raise ConfigError("sweep=slurm: there is no sbatch here. Run it on a machine of the cluster.")
        folder = self.folder.resolve() / "slurm"
        return SlurmRunner(
            program, ledger, self.retries, self.on_error, self.metric, folder, self.slurm, self.parallel
        )  # fmt: skip
