"""One arm of a sweep: a command line and a folder."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Arm:
    """What is run, and where.

    Attributes:
        name: of its folder and in the ledger.
        words: its command line.
        values: what varies over the sweep, by key.
        folder: an ordinary run folder.
        devices: processes of its run.
        mistake: why it cannot run, known without starting it; None if nothing is known.
    """

    name: str
    words: tuple[str, ...]
    values: dict[str, str]
    folder: Path
    devices: int = 1
    mistake: str | None = None

    @property
    def log(self) -> Path:
        """All that it printed."""
        return self.folder / "log.txt"

    @property
    def done(self) -> Path:
        """What its run writes last of all, whoever sees it end."""
        return self.folder / "done"

    def command(self, program: Path) -> list[str]:
        """Begin, or go on where a run has begun."""
        begun = (self.folder / "config.yaml").is_file()
        place = f"{'resume' if begun else 'run_dir'}={quoted(self.folder)}"
        return [sys.executable, str(program), *self.words, place]


def quoted(path: Path) -> str:
    """A path as a value on Hydra's command line."""
    text = str(path)
    if re.fullmatch(r"[\w./-]+", text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
