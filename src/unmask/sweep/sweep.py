"""A sweep from its list of arms to its table."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unmask.checkout import commit, freeze
from unmask.errors import ConfigError
from unmask.files import written_whole
from unmask.secret import without_secrets
from unmask.sweep.arm import Arm, quoted
from unmask.sweep.ending import chain_of, metric_of
from unmask.sweep.ledger import OVER, Ledger
from unmask.sweep.lifeline import lock
from unmask.sweep.runner import Runner
from unmask.sweep.share import Share, shares
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

    def run(self, arms: Sequence[Arm]) -> dict[str, dict[str, Any]]:
        """Run what is not done; the last event of each arm.

        Raises:
            ConfigError: another process is at it, or the machine is too small.
            SystemExit: a signal ended the sweep; the code is 128 + its number.
        """
        available = shares(self.parallel, max((arm.devices for arm in arms), default=1))
        self.folder.mkdir(parents=True, exist_ok=True)
        held = lock(self.folder / ".lock")
        if held is None:
            raise ConfigError(f"{self.folder}: this sweep is running. Wait for it, or stop it first.")
        try:
            return self._run(arms, available)
        finally:
            os.close(held)

    def _run(self, arms: Sequence[Arm], available: Sequence[Share]) -> dict[str, dict[str, Any]]:
        self._record()
        ledger = Ledger(self.folder / "ledger.jsonl")
        todo = self._to_run(arms, ledger)
        runnable = [arm for arm in todo if arm.mistake is None]
        code = self.folder.resolve() / "code"
        runner = Runner(
            code / f"{self.program}.py", ledger, available, self.retries, self.on_error, self.metric, self.hopeless
        )  # fmt: skip
        print(
            f"sweep:   {self.folder}: {len(arms)} arms, {len(arms) - len(todo)} done before, {len(runnable)} to run, "
            f"{len(available)} at a time, {available[0].environment(1)['OMP_NUM_THREADS']} threads each; "
            f"code {commit()}",
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

    def _to_run(self, arms: Sequence[Arm], ledger: Ledger) -> list[Arm]:
        """Arms that are not done, after what happened to those that nobody saw end is written down."""
        latest, todo = ledger.latest(), []
        for arm in arms:
            last = latest.get(arm.name, {"state": None, "attempt": 0})
            if last["state"] in OVER:
                continue
            if last["state"] == "running":
                self._ended_unseen(arm, last, ledger)
                if arm.done.exists():
                    continue
            todo.append(arm)
            if arm.mistake is not None:
                ledger.write(arm.name, "failed", last["attempt"], arm.values, reason=arm.mistake)
            elif last["state"] != "queued":
                ledger.write(arm.name, "queued", last["attempt"], arm.values)
        return todo

    def _ended_unseen(self, arm: Arm, last: dict[str, Any], ledger: Ledger) -> None:
        """The sweep was killed. Its arms were told to stop, which they do before anything else is done with them."""
        said = False
        while (held := lock(arm.folder / ".lock")) is None:
            if not said:
                print(f"waiting for {arm.name}, which an earlier start of this sweep has left running", flush=True)
            said = True
            time.sleep(0.2)
        os.close(held)
        if arm.done.exists():
            name, metric = metric_of(arm.folder, self.metric)
            seconds = round(arm.done.stat().st_mtime - last["time"], 1)
            ledger.write(
                arm.name, "done", last["attempt"], arm.values,
                metric=metric, metric_name=name, seconds=seconds, then=chain_of(arm.folder),
            )  # fmt: skip
        else:
            ledger.write(arm.name, "interrupted", last["attempt"], arm.values, reason="the sweep was killed")
