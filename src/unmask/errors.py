"""What a user did wrong, said in one sentence. Imports nothing heavy: it must answer before torch is loaded."""

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A mistake that the user can mend: the message names the key, the value, the reason and the way out."""


class ArmsFailed(Exception):  # noqa: N818, the sweep itself went well
    """Some arms of a sweep have failed, and why has been said."""


class BrokenSample(Exception):  # noqa: N818, it is no fault of the program
    """One sample cannot be read. The stream replaces it, counts it and names it in a file.

    Args:
        name: what a person looks for, usually the file's path.
        reason: why it cannot be read, a clause without a full stop.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # both kept as args, so that it survives the way back from a worker
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean ...?`, or nothing if no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""
