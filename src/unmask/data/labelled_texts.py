"""Labelled sentences and pairs of sentences, as token ids."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from unmask.data.documents import Document
from unmask.data.folder import Strings, check_split
from unmask.errors import ConfigError
from unmask.schema import Sample
from unmask.vocabulary import special_tokens


class Row(NamedTuple):
    """A sentence, or two that belong together, and a class or a number."""

    text: str
    pair: str | None
    label: int | float


class Rows(ABC):
    """Labelled rows of a train and a test split; as a corpus, to train a tokenizer on, each sentence is a document."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, ...; empty where labels are numbers. May read the rows."""

    @abstractmethod
    def rows(self, split: str) -> Iterator[Row]:
        """The rows of `train` or `test`, always in the same order, no sentence empty.

        Raises:
            ConfigError: they cannot be read.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Says what the rows were made of: where it is equal they are."""

    def documents(self, split: str) -> Iterator[Document]:
        """Every sentence, without a class."""
        for row in self.rows(split):
            yield from (Document(text, None) for text in (row.text, row.pair) if text is not None)


class SentenceEncoder:
    """`<s> a </s>`, and of two sentences `<s> a </s></s> b </s>` (RoBERTa, arXiv 1907.11692).

    What is too long is cut: tokens come off the end of the longer of the two.

    Args:
        tokenizer: the text of a `tokenizer.json`.
        block_size: tokens at most, special ones included.
    """

    def __init__(self, tokenizer: str, block_size: int) -> None:
        self._json, self.block_size = tokenizer, block_size
        special = special_tokens(tokenizer)
        self._bos, self._eos = special.bos, special.eos

    def __call__(self, text: str, pair: str | None = None) -> Tensor:
        """int64 (n,)."""
        first = self._ids(text)
        if pair is None:
            return torch.tensor([self._bos, *first[: self.block_size - 2], self._eos])
        second, room = self._ids(pair), self.block_size - 4
        kept = min(len(first), max(room - len(second), (room + 1) // 2))
        ends = [self._eos, self._eos]
        return torch.tensor([self._bos, *first[:kept], *ends, *second[: room - kept], self._eos])

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self._json)
        tokenizer.no_truncation()  # a file may ask for either
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # a text that says "<mask>" means the word
        return tokenizer

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def __getstate__(self) -> dict[str, Any]:
        """Each process makes its own tokenizer: pickled it would forget that special tokens are words."""
        return {name: value for name, value in self.__dict__.items() if name != "_tokenizer"}


class LabelledTexts:
    """A source of labelled sentences, or pairs of sentences; tokenised when they are asked for.

    Args:
        rows: where they come from.
        tokenizer: the text of a `tokenizer.json`.
        block_size: tokens of a sample at most, special ones included.
        split: `train` or `test`.

    Attributes:
        classes: names of the labels; empty where they are numbers.

    Raises:
        ConfigError: the rows cannot be read, or the block has no room for words.
    """

    classes: tuple[str, ...]

    def __init__(self, rows: Rows, tokenizer: str, block_size: int, split: str = "train") -> None:
        check_split(split)
        self.encode, self.classes = SentenceEncoder(tokenizer, block_size), rows.classes
        self._texts, self._pairs = Strings(), Strings()
        self._labels: array[int] | array[float] = array("i" if self.classes else "d")
        for row in rows.rows(split):
            self._texts.append(row.text)
            self._labels.append(row.label)  # type: ignore[arg-type]  # a class where there are classes
            if row.pair is not None:
                self._pairs.append(row.pair)
        if not len(self):
            raise ConfigError(f"data.source: the {split} split has no row. Give more rows, or a file for it.")
        special = 4 if len(self._pairs) else 2
        least = special + (2 if len(self._pairs) else 1)
        if block_size < least:
            raise ConfigError(
                f"input.block_size={block_size} has no room: {special} tokens are special, and each sentence needs "
                f"one at least. Choose {least} or more."
            )

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Sample:
        """int64 (at most block_size,) token ids, and a class or a number."""
        pair = self._pairs[index] if len(self._pairs) else None
        return Sample(self.encode(self._texts[index], pair), self.label(index))

    def label(self, index: int) -> int | float:
        """The label, without tokenising."""
        return self._labels[index]
