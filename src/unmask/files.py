"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; on leaving, flush it to the disk and rename it to `path`.

    A kill at any moment leaves the old file or the new one, and at most a `.tmp` beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    yield aside
    _flush(aside)
    aside.replace(path)
    _flush(path.parent)  # the rename itself


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
