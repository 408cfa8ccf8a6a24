"""What became of each arm: one JSON object a line, only ever appended to."""

import json
import os
import time
from pathlib import Path
from typing import Any

STATES = ("queued", "running", "done", "pruned", "failed", "interrupted")
OVER = ("done", "pruned")  # never run again


class Ledger:
    """`ledger.jsonl` of a sweep folder. An event is on the disk before `write` returns.

    Args:
        path: made when the first event is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, arm: str, state: str, attempt: int, values: dict[str, str], **what: Any) -> None:
        """Append an event; `what` may hold reason, metric, metric_name, seconds, and of a chain then."""
        assert state in STATES
        empty: dict[str, Any] = {"reason": None, "metric": None, "metric_name": None, "seconds": None, "then": {}}
        event = {"time": time.time(), "arm": arm, "state": state, "attempt": attempt} | empty | what
        line = json.dumps(event | {"values": values}) + "\n"
        with self.path.open("ab+") as file:
            if file.tell() and not _ends_a_line(file):
                line = "\n" + line  # a kill cut the last event short
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def events(self) -> list[dict[str, Any]]:
        """All that can be read, in order."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [event for line in lines if (event := _parsed(line)) is not None]

    def latest(self) -> dict[str, dict[str, Any]]:
        """The last event of each arm."""
        return {event["arm"]: event for event in self.events()}


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None
