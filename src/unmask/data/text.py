"""Text as blocks of token ids, all of one length and without padding."""

import hashlib
import itertools
import json
from bisect import bisect_right
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from unmask.address import Permutation, address
from unmask.data.documents import Corpus, cache_file, written_aside
from unmask.data.folder import check_split
from unmask.errors import ConfigError
from unmask.schema import Sample
from unmask.vocabulary import special_tokens, vocabulary_size

_FORMAT = 1  # raise it when other ids come out of the same texts
_CHUNK = 1000  # documents encoded at once


class TextBlocks:
    """Documents of one class after another, each ended by `</s>`, cut to blocks that begin with `<s>`.

    Documents stand in a shuffled order, always the same; a block may span several and hold parts of some. Blocks of
    different classes never mix. What is left over at the end of a class is dropped.

    Args:
        corpus: the documents.
        tokenizer: the text of a `tokenizer.json`.
        block_size: tokens in a block, `<s>` included.
        cache: folder where the token ids are kept; they are mapped into memory, not read.
        split: `train` or `test`.

    Attributes:
        classes: names of the labels; empty without labels.

    Raises:
        ConfigError: the texts cannot be read, or do not fill one block.
    """

    classes: tuple[str, ...]

    def __init__(
        self, corpus: Corpus, tokenizer: str, block_size: int, cache: str | Path, split: str = "train"
    ) -> None:
        check_split(split)
        if block_size < 2:
            raise ConfigError(f"data.block_size={block_size} is too small. The first token of a block is always <s>.")
        digest = hashlib.sha256(tokenizer.encode()).hexdigest()
        self._file = cache_file(cache, "tokens", ".npy", _FORMAT, corpus.fingerprint(), digest, split)
        index = self._file.with_suffix(".json")
        if not index.exists():
            _tokenize(corpus, tokenizer, split, self._file, index)
        known = json.loads(index.read_text())
        self.classes = tuple(known["classes"])
        self._bos, self._run = special_tokens(tokenizer).bos, block_size - 1
        self._starts = [0, *known["ends"][:-1]]  # of each class, in tokens
        counts = [(end - start) // self._run for start, end in zip(self._starts, known["ends"], strict=True)]
        self._ends = list(itertools.accumulate(counts))  # of each class, in blocks
        if not len(self):
            total = f"{known['ends'][-1]} tokens" + f" in {len(counts)} classes" * (len(counts) > 1)
            raise ConfigError(
                f"data.block_size={block_size}: the {split} split has {total}, not enough for one block. "
                "Choose smaller blocks, or give more text."
            )
        self._tokens = np.load(self._file, mmap_mode="r")

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        """int64 (block_size,) and the class of all its documents."""
        i = range(len(self))[index]
        label = bisect_right(self._ends, i)
        block = i - (self._ends[label - 1] if label else 0)
        start = self._starts[label] + block * self._run
        value = torch.empty(self._run + 1, dtype=torch.int64)
        value[0] = self._bos
        value[1:] = torch.from_numpy(self._tokens[start : start + self._run].astype(np.int64))
        return Sample(value, label if self.classes else None)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_tokens"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the file again: pickled for a worker, the array would go through the pipe as a whole."""
        self.__dict__.update(state)
        self._tokens = np.load(self._file, mmap_mode="r")


def _tokenize(corpus: Corpus, tokenizer_json: str, split: str, path: Path, index: Path) -> None:
    """Write all token ids of a split in one array, and beside it the classes and where each ends."""
    print(f"tokenizing the {split} split (once)", flush=True)
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()  # a file may ask for either
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # a text that says "<mask>" means the word
    eos = special_tokens(tokenizer_json).eos
    dtype = np.uint16 if vocabulary_size(tokenizer_json) <= 2**16 else np.int32
    pieces: list[list[np.ndarray]] = [[] for _ in corpus.classes or (None,)]
    documents = corpus.documents(split)
    while chunk := list(itertools.islice(documents, _CHUNK)):
        encodings = tokenizer.encode_batch_fast([document.text for document in chunk], add_special_tokens=False)
        for document, encoding in zip(chunk, encodings, strict=True):
            pieces[document.label or 0].append(np.array([*encoding.ids, eos], dtype))
    ordered: list[np.ndarray] = []
    ends: list[int] = []
    for label, piece in enumerate(pieces):
        order = Permutation(len(piece), address(0, "documents", label))
        ordered += [piece[order[i]] for i in range(len(piece))]
        ends.append(sum(map(len, piece)) + (ends[-1] if ends else 0))
    if not ordered:
        raise ConfigError(f"data.corpus: the {split} split is without any text. Give more documents.")
    with written_aside(path) as aside, aside.open("wb") as file:
        np.save(file, np.concatenate(ordered))
    with written_aside(index) as aside:  # last: where it is, all is
        aside.write_text(json.dumps({"classes": corpus.classes, "ends": ends}))
