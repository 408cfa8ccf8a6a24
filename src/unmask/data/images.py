"""Images from a folder: every path in a few bytes, every file decoded when asked for."""

import contextlib
import io
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.functional import pil_to_tensor

from unmask.data.folder import FileTree, check_split
from unmask.errors import BrokenSample, ConfigError
from unmask.schema import Sample

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_PILLOW_RAISES = (OSError, ValueError, TypeError, SyntaxError, struct.error, Image.DecompressionBombError)


class ImageFolder:
    """Images in class folders, or directly in one folder (labels are None), in a fixed order.

    `FileTree` says which layouts there are and what is held out of them.
    Raises ConfigError for a folder that is missing, unreadable, without images, or of two layouts at once.
    """

    def __init__(self, root: str | Path, split: str = "train", channels: int = 3) -> None:
        check_split(split)
        if channels not in (1, 3):
            raise ConfigError(f"data.channels={channels} is neither 1 (grey) nor 3 (colour). Choose one.")
        self._root, self._channels = Path(root).expanduser().absolute(), channels
        tree = FileTree(self._root, "images", SUFFIXES)
        self.classes, self._paths, self._labels = tree.split(split)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        """The image, upright, uint8 (C, H, W), and its label. Raises BrokenSample if it is not whole."""
        return Sample(read_image(self._root / self._paths[index], self._channels), self.label(index))

    def label(self, index: int) -> int | None:
        """The label, without reading the image."""
        return self._labels[index] if self.classes else None


def read_image(path: Path, channels: int) -> Tensor:
    """An image file's first frame, uint8 (C, H, W), upright. Raises BrokenSample if it is not whole."""
    data = b""
    try:
        data = path.read_bytes()
        return decode(data, channels)
    except UnidentifiedImageError as error:
        raise BrokenSample(str(path), "not an image" if data else "the file is empty") from error
    except _PILLOW_RAISES as error:  # on damaged files, as seen: it has no one exception for them
        raise BrokenSample(str(path), str(error).rstrip(".")) from error


def decode(data: bytes, channels: int) -> Tensor:
    """An image file's first frame, uint8 (C, H, W), turned as its EXIF tag says.

    JPEG is torchvision's, half as fast again as Pillow's. Its PNG reader ends the process on some damaged
    files (0.29), so the rest is Pillow's. A file that stops early is refused; a hole in one may show as grey.
    """
    if data.startswith((b"\xff\xd8", b"\x89PNG")):  # neither ends in a zero when it is whole
        data = data.rstrip(b"\0")  # crashes leave tails of zeros, which would decode as picture
    if data.startswith(b"\xff\xd8"):
        with contextlib.suppress(RuntimeError):  # Pillow reads a few more, and says shortly what is wrong
            mode = ImageReadMode.RGB if channels == 3 else ImageReadMode.GRAY
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            jpeg: Tensor = decode_jpeg(buffer, mode=mode, apply_exif_orientation=True)
            return jpeg
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "GIF", "BMP")) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        # On white, as a page shows it: the colour under transparent pixels is arbitrary, nobody ever saw it.
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    value: Tensor = pil_to_tensor(image.convert("RGB" if channels == 3 else "L"))
    return value
