"""Images from a folder: every path in a few bytes, every file decoded when asked for."""

import contextlib
import io
import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.functional import pil_to_tensor

from unmask.errors import BrokenSample, ConfigError
from unmask.schema import Sample

_PILLOW_RAISES = (OSError, ValueError, TypeError, SyntaxError, struct.error, Image.DecompressionBombError)
_WAY_OUT = "Give a folder of images or of class folders."


class ImageFolder:
    """Images in class folders, or directly in one folder (labels are None), in a fixed order.

    Three layouts: `root/train` beside `root/val` (or else `validation` or `test`); class folders; one flat
    folder. In the last two (and in a lone `root/train`) every tenth image, of each class, is for testing; but
    a class of one image has none, and a flat folder of fewer than 20 is also trained on whole. Images below a
    class folder count as its own; folders linked there, hidden names and other suffixes are ignored.
    Raises ConfigError for a folder that is missing, unreadable, without images, or of two layouts at once.
    """

    def __init__(self, root: str | Path, split: str = "train", channels: int = 3) -> None:
        if split not in ("train", "test"):
            raise ConfigError(f"data.split={split} is neither train nor test. Choose one of the two.")
        if channels not in (1, 3):
            raise ConfigError(f"data.channels={channels} is neither 1 (grey) nor 3 (colour). Choose one.")
        self._root, self._channels = Path(root).expanduser().absolute(), channels
        folder, hold_out = _layout(self._root, split)
        self.classes = _classes(self._root, folder)
        # Not a list of str: that is 100 bytes a path more, and each worker process would come to copy it.
        self._paths, self._ends, self._labels = bytearray(), array("q", [0]), array("i")
        for label, name in enumerate(self.classes or (".",)):
            images = _images(self._root, folder / name)
            for path in _share(images, split, flat=not self.classes) if hold_out else images:
                self._paths += os.fsencode(path)
                self._ends.append(len(self._paths))
                self._labels.append(label)
        if not self._labels:
            raise _error(self._root, folder, "has no class of two images to hold out one", "Add root/val.")

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        """The image, upright, uint8 (C, H, W), and its label. Raises BrokenSample if it is not whole."""
        i = range(len(self))[index]
        path = str(self._root / os.fsdecode(bytes(self._paths[self._ends[i] : self._ends[i + 1]])))
        try:
            data = Path(path).read_bytes()
            return Sample(decode(data, self._channels), self._labels[i] if self.classes else None)
        except UnidentifiedImageError as error:
            raise BrokenSample(path, "not an image" if data else "the file is empty") from error
        except _PILLOW_RAISES as error:  # on damaged files, as seen: it has no one exception for them
            raise BrokenSample(path, str(error).rstrip(".")) from error


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


def _layout(root: Path, split: str) -> tuple[Path, bool]:
    """The folder a split is read from, and whether the test set must be held out of it."""
    _, folders, images, _ = next(_walk(root, root))
    held_out = next((name for name in ("val", "validation", "test") if name in folders), None)
    if "train" not in folders or held_out is None:
        return (root / "train" if folders == ["train"] and not images else root), True
    train, test = _classes(root, root / "train"), _classes(root, root / held_out)
    if train and train != test:
        reason = f"has not the classes of train: {min(set(train) ^ set(test))} is in one of the two"
        raise _error(root, root / held_out, reason, "Give both the same class folders.")
    return root / ("train" if split == "train" else held_out), False


def _classes(root: Path, folder: Path) -> tuple[str, ...]:
    _, folders, images, _ = next(_walk(root, folder))
    if folders and images:
        raise _error(root, folder, f"holds both {images[0]} and {folders[0]}", "Move images or folders away.")
    return tuple(folders)


def _images(root: Path, folder: Path) -> list[str]:
    """The images in a folder and below it, relative to the root."""
    start, found, others = len(os.path.join(root, "")), list[str](), 0
    for parent, _, images, rest in _walk(root, folder):
        found += [os.path.join(parent[start:], name) for name in images]
        others += rest
    if not found:
        files = f"{others} file{'s' * (others > 1)}, none" if others else "no file"
        raise _error(root, folder, f"holds no images: {files} ending in .jpg, .jpeg, .png or .webp")
    return found


def _share(images: list[str], split: str, flat: bool) -> list[str]:
    """What a split gets of a class, or of a flat folder, that has no test set of its own."""
    if len(images) < (20 if flat else 2):  # too few to spare
        return images if split == "train" else images[::10] if flat else []
    return images[::10] if split == "test" else [path for i, path in enumerate(images) if i % 10]


def _walk(root: Path, folder: Path) -> Iterator[tuple[str, list[str], list[str], int]]:
    """`os.walk`, sorted, without hidden names: (folder, its folders, its images, how many other files)."""

    def stop(error: OSError) -> None:
        raise _error(root, Path(error.filename), f"cannot be read: {error.strerror}".lower()) from error

    for parent, folders, files in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        seen = [name for name in files if name[0] != "."]
        images = sorted(name for name in seen if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp")))
        yield parent, folders, images, len(seen) - len(images)


def _error(root: Path, folder: Path, reason: str, way_out: str = _WAY_OUT) -> ConfigError:
    where = "" if folder == root else f": its folder {folder.relative_to(root)}"
    return ConfigError(f"data.root={root}{where} {reason}. {way_out}")
