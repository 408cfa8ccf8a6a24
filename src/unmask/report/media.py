"""Pictures, sounds, films and notes of a run, inside the page as long as they are not too many."""

import base64
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TYPES = {".png": "image/png", ".wav": "audio/wav", ".mp4": "video/mp4", ".txt": "text/plain"}
LARGEST_PAGE = 8_000_000  # bytes of files in a page; base64 adds a third
STEP = re.compile(r"step=0*(\d+)(?:-(.+))?")


class Medium(NamedTuple):
    """A file to look at, listen to or read.

    Attributes:
        kind: `image`, `audio`, `video`, `text`, or `link` to a text.
        caption: what it is.
        source: a data URI or the text itself; where the page is full, the file's path from it.
    """

    kind: str
    caption: str
    source: str


class Room:
    """What still fits into a page."""

    def __init__(self, size: int = LARGEST_PAGE) -> None:
        self.left = size

    def embed(self, path: Path, page: Path, caption: str) -> Medium:
        """The file itself if it fits, else where it is, seen from the folder of the page."""
        kind, size = TYPES[path.suffix], path.stat().st_size
        if size > self.left:
            kind = kind.replace("text", "link")
            return Medium(kind.partition("/")[0], caption, path.relative_to(page).as_posix())
        self.left -= size
        if path.suffix == ".txt":
            return Medium("text", caption, path.read_text(encoding="utf-8"))
        data = base64.b64encode(path.read_bytes()).decode()
        return Medium(kind.partition("/")[0], caption, f"data:{kind};base64,{data}")


def latest(folder: Path) -> list[Path]:
    """Of a run's pictures those of its last drawing: the sheet, then what sounds, moves or is read."""
    drawn = steps(folder)
    return drawn[max(drawn)] if drawn else []


def earlier(folder: Path) -> list[Path]:
    """The sheets of earlier drawings, newest first."""
    drawn = steps(folder)
    return [path for step in sorted(drawn, reverse=True)[1:] for path in drawn[step] if path.suffix == ".png"]


def steps(folder: Path) -> dict[int, list[Path]]:
    """By optimiser step what was drawn then."""
    found: dict[int, list[Path]] = {}
    for path in sorted((folder / "pictures").glob("step=*"), key=lambda p: (p.suffix != ".png", p.name)):
        match = STEP.fullmatch(path.stem)
        if match and path.suffix in TYPES:
            found.setdefault(int(match[1]), []).append(path)
    return found


def caption(path: Path) -> str:
    """`step 500`, `step 500: reconstruction`."""
    match = STEP.fullmatch(path.stem)
    if not match:
        return path.stem.replace("_", " ")
    return f"step {int(match[1]):,}" + (f": {match[2].replace('_', ' ')}" if match[2] else "")


def embed_all(paths: Iterable[Path], page: Path, room: Room) -> list[Medium]:
    """Each as long as there is room."""
    return [room.embed(path, page, caption(path)) for path in paths]
