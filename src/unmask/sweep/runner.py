"""Run arms, so many at a time, each a fresh process, until all are done or have failed, or somebody says stop."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from unmask.sweep.arm import Arm
from unmask.sweep.ending import STOPPED, Ending, chain_of, ending, metric_of
from unmask.sweep.ledger import OVER, Ledger
from unmask.sweep.lifeline import PARENT, lock
from unmask.sweep.share import Share

POLL = 0.05  # seconds
WATCH = 5.0  # seconds between two looks at whether an arm is worth its time
TAIL = 20_000  # characters of a log that are looked at for a reason


@dataclass
class Running:
    """An arm's process."""

    arm: Arm
    process: subprocess.Popen[bytes]
    share: Share
    attempt: int
    began: float
    logged: int  # length of the log before it
    pruned: bool = False  # told to stop, since it does not promise enough


class Runner:
    """Watches over processes; keeps nothing of those that have ended.

    Args:
        program: of the frozen code.
        ledger: where everything is written down.
        shares: one for each arm that runs at a time.
        retries: further attempts of an arm that was killed or ran out of memory.
        on_error: `continue` or `stop`.
        metric: the column of metrics.csv to compare by, or None.
        hopeless: whether to give an arm up; asked now and then while it runs.
    """

    def __init__(
        self,
        program: Path,
        ledger: Ledger,
        shares: Sequence[Share],
        retries: int,
        on_error: str,
        metric: str | None,
        hopeless: Callable[[Arm], bool] | None,
    ) -> None:
        self.program, self.ledger, self.retries = program, ledger, retries
        self.on_error, self.metric, self.hopeless = on_error, metric, hopeless
        self.looked = time.monotonic()
        self.free, self.running = list(shares), list[Running]()
        self.attempts = {name: event["attempt"] for name, event in ledger.latest().items()}
        self.stopped_by: signal.Signals | None = None
        self.failed = False

    def run(self, arms: Sequence[Arm]) -> None:
        """All of them; returns early where a signal, or a failure under on_error=stop, says so."""
        waiting = deque(arms)
        self.tries_left = dict.fromkeys((arm.name for arm in arms), self.retries)
        self.count, self.ended = len(arms), 0
        with self._listening():
            while self.running or (waiting and not self._stopping):
                for running in [r for r in self.running if r.process.poll() is not None]:
                    self._end(running, waiting)
                while waiting and self.free and not self._stopping:
                    arm = waiting.popleft()
                    if not self._start(arm):
                        waiting.append(arm)
                        break
                self._give_up()
                time.sleep(POLL)

    @property
    def _stopping(self) -> bool:
        return self.stopped_by is not None or (self.failed and self.on_error == "stop")

    def _start(self, arm: Arm) -> bool:
        """Whether it could be: not while an earlier process of it is still saving."""
        arm.folder.mkdir(parents=True, exist_ok=True)
        held = lock(arm.folder / ".lock")
        if held is None:
            return False
        attempt = self.attempts[arm.name] = self.attempts[arm.name] + 1
        share = self.free.pop(0)
        self.ledger.write(arm.name, "running", attempt, arm.values)
        with arm.log.open("ab") as log:
            logged = log.tell()
            environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "UNMASK_RUN_FOLDER")}
            path = os.pathsep.join(filter(None, [str(self.program.parent / "src"), os.environ.get("PYTHONPATH")]))
            environment |= share.environment(arm.devices)
            environment |= {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", PARENT: str(os.getpid())}
            process = subprocess.Popen(
                arm.command(self.program), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                start_new_session=True,  # Ctrl-C on a terminal comes to the sweep, which tells its arms
                pass_fds=[held],  # held as long as any process of the arm lives
            )  # fmt: skip
        os.close(held)
        self.running.append(Running(arm, process, share, attempt, time.monotonic(), logged))
        return True

    def _give_up(self) -> None:
        if self.hopeless is None or time.monotonic() < self.looked + WATCH:
            return
        for running in self.running:
            if not running.pruned and self.hopeless(running.arm):
                running.pruned = True
                running.process.send_signal(signal.SIGTERM)
        self.looked = time.monotonic()

    def _end(self, running: Running, waiting: deque[Arm]) -> None:
        self.running.remove(running)
        self.free.append(running.share)
        arm = running.arm
        with arm.log.open("rb") as log:
            log.seek(max(running.logged, arm.log.stat().st_size - TAIL))
            how = ending(running.process.returncode, log.read().decode(errors="replace"), self._stopping)
        if running.pruned and how.state == "interrupted":
            how = Ending("pruned", "others did better after as many steps", False)
        name, metric = metric_of(arm.folder, self.metric) if how.state in OVER else (None, None)
        seconds = round(time.monotonic() - running.began, 1)
        again = how.again and not self._stopping and self.tries_left[arm.name] > 0
        self.ledger.write(
            arm.name, how.state, running.attempt, arm.values,
            reason=how.reason, metric=metric, metric_name=name, seconds=seconds, then=chain_of(arm.folder),
        )  # fmt: skip
        if again:
            self.tries_left[arm.name] -= 1
            waiting.append(arm)
        else:
            self.failed |= how.state == "failed"
            self.ended += 1
        if self._stopping:
            self._tell(signal.SIGTERM)
        self._say(arm, how, again, f"{name} {metric:.4g}" if metric is not None else "", seconds)

    def _say(self, arm: Arm, how: Ending, again: bool, metric: str, seconds: float) -> None:
        what = metric if how.reason is None else how.reason + ("; tried again" if again else f" ({arm.log})")
        print(f"[{self.ended}/{self.count}] {how.state:<11} {arm.name}  {seconds:.0f} s  {what}", flush=True)

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
        self._tell(signal.SIGKILL if again else signal.SIGTERM)
        if not again:
            said = f"{self.stopped_by.name}: what runs finishes its step and saves; once more kills it"
            print(said, file=sys.stderr, flush=True)

    def _tell(self, number: signal.Signals) -> None:
        for running in self.running:
            if running.process.poll() is not None:
                continue
            if number == signal.SIGKILL:
                os.killpg(running.process.pid, number)
            else:
                running.process.send_signal(number)
