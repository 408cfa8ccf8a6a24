"""Arms as processes of this machine, so many at a time."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask.sweep.arm import Arm
from unmask.sweep.ending import Ending
from unmask.sweep.ledger import Ledger
from unmask.sweep.lifeline import PARENT, lock
from unmask.sweep.runner import Attempt, Runner, environment
from unmask.sweep.share import Share

POLL = 0.05  # seconds
PRUNED = Ending("pruned", "others did better after as many steps", False)
UNSEEN = Ending("interrupted", "the sweep was killed", True)
WATCH = 5.0  # seconds between two looks at whether an arm is worth its time


@dataclass
class Running(Attempt):
    """An arm's process.

    Attributes:
        pruned: told to stop, since it does not promise enough.
    """

    process: subprocess.Popen[bytes]
    share: Share
    began: float
    pruned: bool = False


class LocalRunner(Runner):
    """Watches over processes; keeps nothing of those that have ended.

    Args:
        program: see Runner, as the next ones.
        ledger: …
        retries: …
        on_error: …
        metric: …
        shares: one for each arm that runs at a time.
        hopeless: whether to give an arm up; asked now and then while it runs.
    """

    def __init__(
        self,
        program: Path,
        ledger: Ledger,
        retries: int,
        on_error: str,
        metric: str | None,
        shares: Sequence[Share],
        hopeless: Callable[[Arm], bool] | None = None,
    ) -> None:
        super().__init__(program, ledger, retries, on_error, metric)
        self.shares, self.free, self.running = shares, list(shares), list[Running]()
        self.hopeless, self.looked = hopeless, time.monotonic()

    @property
    def how(self) -> str:
        """Arms and threads."""
        return f"{len(self.shares)} at a time, {self.shares[0].environment(1)['OMP_NUM_THREADS']} threads each"

    def settle(self, arm: Arm, last: dict[str, Any]) -> str:
        """Its sweep was killed. It was told to stop, which it does before anything else is done with it."""
        said = False
        while (held := lock(arm.folder / ".lock")) is None:
            if not said:
                print(f"waiting for {arm.name}, which an earlier start of this sweep has left running", flush=True)
            said = True
            time.sleep(0.2)
        os.close(held)
        how, seconds = UNSEEN, None
        if arm.done.exists():
            how, seconds = Ending("done", None, False), round(arm.done.stat().st_mtime - last["time"], 1)
        self.note(arm, last["attempt"], how, seconds)
        return how.state

    def work(self, arms: Sequence[Arm]) -> None:
        """One after the other, wherever a share is free."""
        waiting = deque(arms)
        while self.running or (waiting and not self.stopping):
            for running in [r for r in self.running if r.process.poll() is not None]:
                self._ended(running, waiting)
            while waiting and self.free and not self.stopping:
                arm = waiting.popleft()
                if not self._start(arm):
                    waiting.append(arm)
                    break
            self._give_up()
            time.sleep(POLL)

    def on_signal(self, again: bool) -> None:
        """Arms save; the second time they are killed."""
        self._tell(signal.SIGKILL if again else signal.SIGTERM)
        if not again and self.stopped_by is not None:
            said = f"{self.stopped_by.name}: what runs finishes its step and saves; once more kills it"
            print(said, file=sys.stderr, flush=True)

    def _start(self, arm: Arm) -> bool:
        """Whether it could be: not while an earlier process of it is still saving."""
        arm.folder.mkdir(parents=True, exist_ok=True)
        held = lock(arm.folder / ".lock")
        if held is None:
            return False
        number = self.attempts[arm.name] = self.attempts.get(arm.name, 0) + 1
        share = self.free.pop(0)
        self.ledger.write(arm.name, "running", number, arm.values)
        own = share.environment(arm.devices) | {PARENT: str(os.getpid())}
        with arm.log.open("ab") as log:
            logged = log.tell()
            process = subprocess.Popen(
                arm.command(self.program), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment(self.program) | own,
                start_new_session=True,  # Ctrl-C on a terminal comes to the sweep, which tells its arms
                pass_fds=[held],  # held as long as any process of the arm lives
            )  # fmt: skip
        os.close(held)
        self.running.append(Running(arm, number, logged, process, share, time.monotonic()))
        return True

    def _give_up(self) -> None:
        if self.hopeless is None or time.monotonic() < self.looked + WATCH:
            return
        for running in self.running:
            if not running.pruned and self.hopeless(running.arm):
                running.pruned = True
                running.process.send_signal(signal.SIGTERM)
        self.looked = time.monotonic()

    def _ended(self, running: Running, waiting: deque[Arm]) -> None:
        self.running.remove(running)
        self.free.append(running.share)
        code = running.process.returncode
        how = PRUNED if running.pruned and code == 128 + signal.SIGTERM else None
        if self.end(running, code, round(time.monotonic() - running.began, 1), how):
            waiting.append(running.arm)
        if self.stopping:
            self._tell(signal.SIGTERM)

    def _tell(self, number: signal.Signals) -> None:
        for running in self.running:
            if running.process.poll() is not None:
                continue
            if number == signal.SIGKILL:
                os.killpg(running.process.pid, number)
            else:
                running.process.send_signal(number)
