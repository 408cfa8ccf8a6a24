"""A file of one's own as a sample of a modality."""

from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer

from unmask.data.audio import read_audio
from unmask.data.images import decode
from unmask.data.labelled_texts import SentenceEncoder
from unmask.data.video import VideoFile
from unmask.errors import BrokenSample
from unmask.modality.base import Modality
from unmask.schema import Sample


def read_each(modality: Modality, file: Path) -> Iterator[tuple[str, Sample]]:
    """(name, sample): the file; of a text each line, in which a tab separates the two sentences of a pair.

    Raises:
        BrokenSample: it cannot be read, or holds nothing.
    """
    if modality.kind != "texts":
        yield str(file), read(modality, file)
        return
    encode = SentenceEncoder(modality.settings["tokenizer"], modality.settings["block_size"])
    lines = [(number, line.strip()) for number, line in enumerate(_text(file).split("\n"), 1) if line.strip()]
    if not lines:
        raise BrokenSample(str(file), "holds no text")
    for number, line in lines:
        text, tab, pair = line.partition("\t")
        yield f"{file} line {number}", Sample(encode(text, pair if tab else None), None)


def read(modality: Modality, file: Path) -> Sample:
    """What a source of this kind would give, without a label.

    Raises:
        BrokenSample: it cannot be read.
    """
    settings = modality.settings
    try:
        if modality.kind == "images":
            return Sample(decode(file.read_bytes(), settings["channels"]), None)
        if modality.kind == "videos":
            return Sample(VideoFile(file), None)
        if modality.kind == "sounds":
            return Sample(read_audio(file), None)
        return Sample(torch.tensor(Tokenizer.from_str(settings["tokenizer"]).encode(_text(file)).ids), None)
    except (OSError, ValueError, SyntaxError) as error:
        raise BrokenSample(str(file), str(getattr(error, "strerror", None) or error).rstrip(".")) from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").removeprefix("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenSample(str(file), str(getattr(error, "strerror", None) or error).rstrip(".")) from error
