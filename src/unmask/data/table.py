"""Labelled sentences in the rows of tables."""

import json
import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from unmask.data.documents import sorted_names
from unmask.data.folder import HELD_OUT, check_split
from unmask.data.labelled_texts import Row, Rows
from unmask.data.table_file import SUFFIXES, read_table
from unmask.errors import ConfigError, nearest

MOST = 0.01  # share of rows that may be unusable
_EVERY = 10  # one row in so many is held out where there is no file for testing


class Table(Rows):
    """Rows of a file, or of a `train` file beside one of `val`, `validation`, `dev` or `test`.

    Of a single file about a tenth is for testing, by a hash of the sentence: equal sentences are on one side. Fields
    of .csv may be quoted; those of .tsv never are. A row without a text or label is left out, and warned of.

    Args:
        root: the file, or the folder of the files.
        text: the column of the sentence.
        pair: the column of a second sentence, or None.
        label: the column of the class or number.
        regression: labels are numbers.
        classes: only rows of these classes, numbered in this order; None for all, in the order of their names.
        header: the first line names the columns (.tsv, .csv); else they are called 1, 2, ...
        test: name of the file that is tested on, without suffix, where it is none of the four.

    Raises:
        ConfigError: there are no such files. (What they hold is read later.)
    """

    def __init__(
        self,
        root: str | Path,
        text: str = "text",
        pair: str | None = None,
        label: str = "label",
        regression: bool = False,
        classes: Sequence[str] | None = None,
        header: bool = True,
        test: str | None = None,
    ) -> None:
        self._root, self._test = Path(root).expanduser().absolute(), test
        self._columns = {"text": str(text), "pair": None if pair is None else str(pair), "label": str(label)}
        self._regression, self._header = regression, header
        self._wanted = None if classes is None else tuple(map(str, classes))
        self._files = self._find()

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels of the training rows, or the wanted ones among them."""
        if self._regression:
            return ()
        names = sorted_names(label for _, _, _, label in self._train)
        for name in self._wanted or ():
            if name not in names:
                reason = f"has no row of the class {name} (data.classes)"
                raise self._error(reason, f"Choose some of its classes.{nearest(name, names)}")
        return self._wanted or names

    def rows(self, split: str) -> Iterator[Row]:
        """The rows, in the order of the file."""
        check_split(split)
        classes, known = self.classes, {name: i for i, name in enumerate(self.classes)}
        for where, text, pair, label in self._train if split == "train" else self._read("test"):
            if self._regression:
                yield Row(text, pair, float(label))
            elif label in known:
                yield Row(text, pair, known[label])
            elif self._wanted is None:
                way_out = f"Mend it, or give other files.{nearest(label, classes)}"
                raise self._error(f"has the label {label}, which is none of train's", way_out, where)

    def fingerprint(self) -> str:
        """Names, sizes and times of the files, and what is read of them."""
        state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self._files.values()]
        return repr((state, self._columns, self._header, self._wanted))

    @cached_property
    def _train(self) -> list[tuple[str, str, str | None, str]]:
        return list(self._read("train"))

    def _find(self) -> dict[str, Path]:
        """The file of each split; of both the same where one file is split."""
        if self._root.is_file():
            if self._root.suffix.lower() not in SUFFIXES:
                raise self._error(f"ends in none of {', '.join(SUFFIXES)}", "Give such a file.")
            return {"train": self._root, "test": self._root}
        if not self._root.is_dir():
            raise self._error("is not there", "Give a file or folder of labelled sentences.")
        files = {path.stem: path for path in sorted(self._root.iterdir()) if path.suffix.lower() in SUFFIXES}
        if len(files) == 1:
            return dict.fromkeys(("train", "test"), next(iter(files.values())))
        test = self._test or next((name for name in HELD_OUT if name in files), None)
        missing = "train" if "train" not in files else test if test not in files else None
        if missing is not None or test is None:
            there = ", ".join(path.name for path in files.values()) or "no such file"
            raise self._error(
                f"holds no {missing or 'dev or test'} ending in {', '.join(SUFFIXES)}, but {there}",
                "Put train beside dev or test, or name a single file.",
            )
        return {"train": files["train"], "test": files[test]}

    def _read(self, split: str) -> Iterator[tuple[str, str, str | None, str]]:
        """(where, text, pair, label) of the rows of a split that can be used."""
        path, broken, total = self._files[split], list[tuple[str, str]](), 0
        names, lines = read_table(path, self._header)
        self._check_columns(path, names)
        for where, cells in lines:
            total += 1
            reason = self._lacks(cells)
            if reason is not None:
                broken.append((where, reason))
                continue
            text, pair, label = (self._value(cells, column) for column in self._columns.values())
            assert text is not None
            assert label is not None
            if self._files["train"] != self._files["test"] or _is_test(text) == (split == "test"):
                yield where, text, pair, label
        if len(broken) > MOST * total:
            where, reason = broken[0]
            others = f" ({len(broken)} of {total} rows are unusable)" if len(broken) > 1 else ""
            raise self._error(f"{reason}{others}", "Mend it, or name other columns.", where)
        if broken:
            first = " ".join(broken[0])
            warnings.warn(f"{len(broken)} of {total} rows of {path} are left out; the first: {first}", stacklevel=2)

    def _lacks(self, cells: dict[str, Any]) -> str | None:
        """Why a row cannot be used, or None."""
        for kind, column in self._columns.items():
            if column is None:
                continue
            value = self._value(cells, column)
            if value is None or not value.strip():
                return f"has no {'label' if kind == 'label' else 'text'} in the column {column}"
            if kind == "label" and self._regression and not _is_number(value):
                return f"has the label {value}, which is no number (task.regression=true)"
        return None

    @staticmethod
    def _value(cells: dict[str, Any], column: str | None) -> str | None:
        value = None if column is None else cells.get(column)
        return value if value is None or isinstance(value, str) else json.dumps(value)

    def _check_columns(self, path: Path, names: list[str]) -> None:
        for key, column in self._columns.items():
            if column is not None and column not in names:
                reason = f"has no column {column} (data.{key}), but {', '.join(names)}"
                raise self._error(reason, f"Choose one of them.{nearest(column, names)}", path.name)

    def _error(self, reason: str, way_out: str = "Mend it, or give other files.", where: str = "") -> ConfigError:
        return ConfigError(f"data.root={self._root}{': ' * bool(where)}{where} {reason}. {way_out}")


def _is_test(text: str) -> bool:
    return zlib.crc32(text.encode()) % _EVERY == 0


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
