"""The rows of a file: JSON lines, tab-separated or comma-separated values."""

import csv
import io
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from unmask.errors import ConfigError

SUFFIXES = (".jsonl", ".tsv", ".csv")

Cells = tuple[str, dict[str, Any]]  # where a row stands, and what is in it by column


def read_table(path: Path, header: bool) -> tuple[list[str], Iterator[Cells]]:
    """The names of the columns, and the rows; a row that is too short lacks the last columns.

    Args:
        path: a file; fields of .csv may be quoted, those of .tsv never are.
        header: the first line names the columns, in .tsv and .csv; else they are called 1, 2, ...

    Raises:
        ConfigError: the file cannot be read, or holds nothing.
    """
    text = _decoded(path)
    rows = _objects(path, text) if path.suffix.lower() == ".jsonl" else _fields(path, text, header)
    first = next(rows, None)
    if first is None:
        raise _error(path, "holds no row", "Give another file")
    return list(first[1]), chain([first], rows)


def _objects(path: Path, text: str) -> Iterator[Cells]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            raise _error(path, f"line {number} is not JSON: {error.msg} at character {error.colno}") from error
        if not isinstance(cells, dict):
            raise _error(path, f"line {number} is no JSON object", 'Write {"text": "...", "label": "..."}')
        yield where, cells


def _fields(path: Path, text: str, header: bool) -> Iterator[Cells]:
    stream = io.StringIO(text, newline="")
    if path.suffix.lower() == ".csv":
        lines = csv.reader(stream)
    else:
        lines = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
    names: list[str] | None = None
    try:
        for cells in filter(None, lines):
            if names is None:
                names = cells if header else [str(i) for i in range(1, len(cells) + 1)]
                if header:
                    continue
            yield f"{path.name} line {lines.line_num}", dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise _error(path, f"line {lines.line_num} cannot be read: {error}") from error


def _decoded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}".lower(), "Choose another") from error
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}"
        raise _error(path, reason, "Convert it, for example with iconv") from error


def _error(path: Path, reason: str, way_out: str = "Mend it, or give another file") -> ConfigError:
    return ConfigError(f"data.root: {path} {reason}. {way_out}.")
