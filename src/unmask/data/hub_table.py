"""Labelled sentences of the Hugging Face hub."""

from collections.abc import Iterator
from typing import Any

from unmask.data.documents import Document, HFDataset
from unmask.data.folder import HELD_OUT, check_split
from unmask.data.labelled_texts import Row, Rows
from unmask.errors import nearest

UNLABELLED = -1  # what GLUE's test splits say


class HubTable(HFDataset, Rows):
    """The rows of a data set with a split `train` and one to test on; rows without text or label are left out.

    Args:
        name: the hub's, such as `nyu-mll/glue`.
        config: which of its configurations, such as `rte`.
        text: the column of the sentence.
        pair: the column of a second sentence, or None.
        label: the column of the class or number.
        regression: labels are numbers.
        test: the split that is tested on; None for `validation`, `dev` or `test`.
        revision: a commit of the data set; None for the newest, once.
    """

    _keys = ("text", "label")

    def __init__(
        self,
        name: str,
        config: str | None = None,
        text: str = "text",
        pair: str | None = None,
        label: str = "label",
        regression: bool = False,
        test: str | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__(name, config, text, None if regression else label, revision)
        self._pair, self._number, self._test = pair, label if regression else None, test

    def documents(self, split: str) -> Iterator[Document]:
        """Every sentence, without a class."""
        return Rows.documents(self, split)

    def rows(self, split: str) -> Iterator[Row]:
        """The rows, in the order of the data set."""
        check_split(split)
        name = "train" if split == "train" else self._test or next((n for n in HELD_OUT if n in self._splits), "test")
        if name not in self._splits:
            raise self._error(f"has no split {name}, but {', '.join(self._splits)}", "Choose data.test=<one of them>.")
        index = {label: i for i, label in enumerate(self.classes)}
        names = () if self._label is None else self._names
        for number, row in enumerate(self._table(name), 1):
            text, pair, label = row[self._text], self._pair and row[self._pair], row[self._number or self._label]
            if label is None or label == UNLABELLED or not _has_words(text) or (self._pair and not _has_words(pair)):
                continue
            if self._number is not None:
                yield Row(text, pair, float(label))
                continue
            called = str(names[label] if names else label)
            if called not in index:
                raise self._error(f"row {number} of {name} has the label {label}, which is none of train's")
            yield Row(text, pair, index[called])

    def _table(self, name: str) -> Any:
        table = self._split(name)
        for key, column in (("pair", self._pair), ("label", self._number)):
            if column is not None and column not in table.column_names:
                reason = f"has no column {column} (data.{key}), but {', '.join(table.column_names)}"
                raise self._error(reason, f"Choose one of them.{nearest(column, table.column_names)}")
        return table


def _has_words(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())
