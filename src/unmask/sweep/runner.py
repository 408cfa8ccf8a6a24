"""What every way to run arms has in common: how an end is judged, written down and said."""

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from unmask.sweep.arm import Arm
from unmask.sweep.ending import STOPPED, Ending, chain_of, ending, metric_of
from unmask.sweep.ledger import OVER, Ledger

TAIL = 20_000  # characters of a log that are looked at for a reason


@dataclass
class Attempt:
    """One try of an arm.

    Attributes:
        number: counts from 1.
        logged: length of the log before it.
    """

    arm: Arm
    number: int
    logged: int


class Runner(ABC):
    """Runs arms until all are done or have failed, or somebody says stop.

    Args:
        program: of the frozen code.
        ledger: where everything is written down.
        retries: further attempts of an arm that was killed or ran out of memory.
        on_error: `continue` or `stop`.
        metric: the one that arms are compared by, or None for each run's own.
    """

    def __init__(self, program: Path, ledger: Ledger, retries: int, on_error: str, metric: str | None) -> None:
        self.program, self.ledger = program, ledger
        self.retries, self.on_error, self.metric = retries, on_error, metric
        self.attempts = {name: event["attempt"] for name, event in ledger.latest().items()}
        self.stopped_by: signal.Signals | None = None
        self.failed = False

    @property
    @abstractmethod
    def how(self) -> str:
        """How arms are run, in words."""

    @abstractmethod
    def settle(self, arm: Arm, last: dict[str, Any]) -> str:
        """See to an arm that an earlier start of the sweep has left running; its state now."""

    @abstractmethod
    def work(self, arms: Sequence[Arm]) -> None:
        """Run them; returns early where `stopping` says so."""

    @abstractmethod
    def on_signal(self, again: bool) -> None:
        """The user wants an end; `again` for more than once."""

    def run(self, arms: Sequence[Arm]) -> None:
        """All of them, or until a signal or, under on_error=stop, a failure."""
        self.tries_left = dict.fromkeys((arm.name for arm in arms), self.retries)
        self.count, self.ended = len(arms), 0
        with self._listening():
            self.work(arms)

    @property
    def stopping(self) -> bool:
        """Nothing new is begun, and what runs is to save and end."""
        return self.stopped_by is not None or (self.failed and self.on_error == "stop")

    def end(self, attempt: Attempt, code: int, seconds: float | None, how: Ending | None = None, **what: Any) -> bool:
        """Judge, write down and say how an attempt ended; whether there is to be another.

        Args:
            attempt: which.
            code: of its exit, negative for a signal.
            seconds: how long it took.
            how: the judgement, where code and log do not tell.
            what: more for the ledger.
        """
        arm = attempt.arm
        how = how or ending(code, self._log(attempt), self.stopping)
        again = how.again and not self.stopping and self.tries_left[arm.name] > 0
        name, metric = self.note(arm, attempt.number, how, seconds, **what)
        if again:
            self.tries_left[arm.name] -= 1
        else:
            self.failed |= how.state == "failed"
            self.ended += 1
        said = f"{name} {metric:.4g}" if metric is not None else ""
        if how.reason is not None:
            said = how.reason + ("; tried again" if again else f" ({arm.log})")
        took = "" if seconds is None else f"{seconds:.0f} s"
        print(f"[{self.ended}/{self.count}] {how.state:<11} {arm.name}  {took}  {said}", flush=True)
        return again

    def note(
        self, arm: Arm, attempt: int, how: Ending, seconds: float | None, **what: Any
    ) -> tuple[str | None, float | None]:
        """Write an end down; the metric's name and value, where there is one."""
        name, metric = metric_of(arm.folder, self.metric) if how.state in OVER else (None, None)
        self.ledger.write(
            arm.name, how.state, attempt, arm.values, reason=how.reason, metric=metric, metric_name=name,
            seconds=seconds, then=chain_of(arm.folder), **what,
        )  # fmt: skip
        return name, metric

    def _log(self, attempt: Attempt) -> str:
        if not attempt.arm.log.exists():
            return ""
        with attempt.arm.log.open("rb") as log:
            log.seek(max(attempt.logged, attempt.arm.log.stat().st_size - TAIL))
            return log.read().decode(errors="replace")

    @contextmanager
    def _listening(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._on_signal) for number in STOPPED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again = self.stopped_by is not None
        self.stopped_by = signal.Signals(number)
        self.on_signal(again)


def environment(program: Path) -> dict[str, str]:
    """For an arm's process: the frozen code comes first, and nothing of a run that this one may be part of."""
    kept = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "UNMASK_RUN_FOLDER")}
    path = os.pathsep.join(filter(None, [str(program.parent / "src"), os.environ.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
