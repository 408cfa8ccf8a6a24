"""A file of one's own as a sample of a modality."""

from pathlib import Path

import torch
from tokenizers import Tokenizer

from unmask.data.audio import read_audio
from unmask.data.images import decode
from unmask.data.video import VideoFile
from unmask.errors import BrokenSample
from unmask.modality.base import Modality
from unmask.schema import Sample


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
        ids = Tokenizer.from_str(settings["tokenizer"]).encode(file.read_text(encoding="utf-8")).ids
        return Sample(torch.tensor(ids), None)
    except (OSError, ValueError, SyntaxError) as error:
        raise BrokenSample(str(file), str(getattr(error, "strerror", None) or error).rstrip(".")) from error
