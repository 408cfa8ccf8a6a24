"""Clips that are drawn: written to real video files once, and decoded like any others."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from unmask.address import address
from unmask.data.folder import made_whole
from unmask.data.video import need_av
from unmask.media import Film

FRAMES, RATE = 16, 10  # frames, frames a second


def written_once(
    cache: str | Path, name: str, split: str, made_of: object, clips: Iterable[tuple[str, Tensor]]
) -> Path:
    """The .csv list of a split's video files, which are drawn and written where they are not there yet.

    Args:
        cache: folder for the folders of clips.
        name: what is drawn.
        split: train or test.
        made_of: what the clips depend on, in its `repr`; other values have another folder.
        clips: label and uint8 (T, C, H, W) frames of one after the other; not asked for any where they are written.

    Raises:
        ConfigError: PyAV is missing, or the cache cannot be written.
    """
    need_av()
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
    folder = Path(cache).expanduser().absolute() / f"{name}_{split}-{digest}"
    if not folder.exists():
        print(f"Drawing clips of {name.replace('_', ' ')} into {folder}, once", file=sys.stderr, flush=True)
        with made_whole(folder) as aside:
            lines = ["path,label,split"]
            for i, (label, frames) in enumerate(clips):
                path = Film(frames, RATE).write(aside / f"{i:05d}", enlarge=False)
                lines.append(f"{path.name},{label},{split}")
            (aside / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"


def uniform(low: float, high: float, purpose: str, *words: int) -> float:
    """A number between two, the same at every call."""
    return low + (high - low) * address(0, purpose, *words) / 2**64
