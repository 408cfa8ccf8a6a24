"""Arms do not outlive what started them, and never run twice at a time."""

import ctypes
import fcntl
import os
import signal
import sys
from pathlib import Path

PARENT = "UNMASK_SWEEP"  # tells an arm the process that watches over it
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Called by a program first of all. Does nothing unless it is an arm, or another rank of a run.

    An arm whose sweep is killed is told to stop, and saves; a rank without its first one would wait for it for ever.
    Where there is no such signal (not Linux) an arm goes on, and the lock on its folder makes the next sweep wait.
    """
    parent = os.environ.pop(PARENT, None)  # not for the arm's own children
    other_rank = int(os.environ.get("LOCAL_RANK", 0)) > 0
    if parent is None and not other_rank:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL if other_rank else signal.SIGTERM)
    if parent is not None and os.getppid() != int(parent):  # it was too late for the signal
        sys.exit(128 + signal.SIGTERM)


def lock(path: Path) -> int | None:
    """Hold a file until the last process that inherits the descriptor ends; None if another one has it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
