"""How an arm's process ended, and whether another try makes sense."""

import re
import signal
from pathlib import Path
from typing import NamedTuple

from unmask.records import read_run

STOPPED = (signal.SIGINT, signal.SIGTERM)
NO_MEMORY = re.compile(r"MemoryError|OutOfMemoryError|can't allocate memory|Cannot allocate memory|out of memory", re.I)
RAISED = re.compile(r"^[\w.]*(Error|Exception|Interrupt|Iteration|Exit|Warning|Failure)\b.*")
CHAIN = "then"  # folder in a run, of the fine-tunings that follow it
LONGEST = 400  # characters of a reason


class Ending(NamedTuple):
    """What the ledger says.

    Attributes:
        state: done, pruned, failed or interrupted.
        reason: one sentence; None for done.
        again: whether it was memory or a kill, not a mistake.
    """

    state: str
    reason: str | None
    again: bool


def ending(code: int, log: str, stopping: bool) -> Ending:
    """Judge an exit.

    Args:
        code: as of `subprocess`: negative for a signal.
        log: what this attempt printed.
        stopping: whether the sweep told its arms to stop.
    """
    if code == 0:
        return Ending("done", None, False)
    if code in [128 + number for number in STOPPED] or (stopping and code < 0):
        return Ending("interrupted", "stopped; the same command goes on with it", True)
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    memory = next((line for line in reversed(lines) if NO_MEMORY.search(line)), None)
    if memory is not None:
        return Ending("failed", f"out of memory: {memory.removeprefix('error: ')}"[:LONGEST], True)
    if code < 0:
        hint = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
        return Ending("failed", f"killed by {signal.Signals(-code).name}{hint}", True)
    said = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    raised = next((line for line in reversed(lines) if RAISED.match(line)), None)
    return Ending("failed", (said or raised or f"exit code {code}")[:LONGEST], False)


def metric_of(run: Path, wanted: str | None) -> tuple[str | None, float | None]:
    """The number that a run is compared by, and its name.

    Args:
        run: its folder.
        wanted: one of its metrics; None for the test score of a fine-tuning, else the linear probe of a pretraining,
            else the loss.
    """
    said = read_run(run)
    name = wanted or said.main
    return name, said.metrics.get(name or "")


def chain_of(run: Path) -> dict[str, tuple[str, float]]:
    """The test score of each fine-tuning that followed a run, and its name."""
    found = {folder.name: metric_of(folder, None) for folder in sorted((run / CHAIN).glob("*"))}
    return {task: (name, metric) for task, (name, metric) in found.items() if name and metric is not None}
