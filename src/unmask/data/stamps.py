"""Stamps: cut-out pictures of six kinds of things, pasted on photographs where it is known; drawn when asked for."""

import hashlib
import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, resize

from unmask.address import address
from unmask.data.camera_motion import split_photos
from unmask.data.documents import written_aside
from unmask.data.drawn_boxes import DrawnBoxes, Placed
from unmask.data.drawn_clips import uniform
from unmask.data.folder import FileTree
from unmask.data.images import read_image
from unmask.errors import BrokenSample, ConfigError

VIEW = (0.5, 1.0)  # what is seen of a photo, over its shorter side
SHORT, LONG = 256, 384  # pixels of a photo, whatever its middle shows at this size
STAMP = 128  # pixels of a stamp's longer side, as it is kept
HELD_OUT = 4  # every so many stamps of a kind

_REMEDY = "Run `make data-stamps`, or set data.root to a folder of class folders of PNG files with transparency."


class Stamps(DrawnBoxes):
    """Square pictures in colour of one to four stamps on a photo; labels are boxes, and masks if wanted.

    Picture i of a split is the same at every call. Test pictures show other stamps and other photos: neither a photo
    nor a stamp is in both, and variants of one thing, which share the first word of their names, stay together.

    Args:
        root: folder of class folders of PNG files with transparency.
        photos: folder of photos.
        cache: folder for photos and stamps made small: 31 MB.
        split: train or test.
        train_pictures: to train on.
        test_pictures: held-out pictures.
        side: pixels of a picture.
        masks: give the visible pixels of each stamp too.

    Attributes:
        classes: names of the class folders.

    Raises:
        ConfigError: there are no two stamps of a class, no two photos, one is broken, or the cache cannot be written.
    """

    share = (0.25, 0.55)

    def __init__(
        self,
        root: str | Path,
        photos: str | Path,
        cache: str | Path,
        split: str = "train",
        train_pictures: int = 20_000,
        test_pictures: int = 400,
        side: int = 96,
        masks: bool = False,
    ) -> None:
        super().__init__("stamps", split, train_pictures if split == "train" else test_pictures, side, masks)
        folder = Path(root).expanduser().absolute()
        tree = FileTree(folder, "stamps", (".png",), _REMEDY)
        self.classes = tree.classes(folder)
        chosen = list(split_stamps(tree, self.classes, split))
        backgrounds = split_photos(Path(photos).expanduser().absolute(), split)
        files = [(path.name, path.stat().st_size) for path in (*backgrounds, *(path for path, _ in chosen))]
        digest = hashlib.sha256(repr((files, SHORT, LONG, STAMP)).encode()).hexdigest()[:12]
        path = Path(cache).expanduser().absolute() / f"stamps_{split}-{digest}.npz"
        if not path.exists():
            _write(path, backgrounds, [path for path, _ in chosen])
        with np.load(path) as small:
            self.photos, self.stamps = (torch.from_numpy(small[name]) for name in ("photos", "stamps"))
            self.sizes = small["sizes"].tolist()
        self.labels = [label for _, label in chosen]

    def draw(self, index: int, places: Sequence[Placed]) -> tuple[Tensor, Tensor]:
        """uint8 (3, side, side), and bool (n, side, side): where each stamp is seen."""
        picture = self._background(index).float()
        masks = torch.zeros(len(places), self.side, self.side, dtype=torch.bool)
        for i, (stamp, (left, top, right, bottom), mirrored) in enumerate(places):
            height, width = self.sizes[stamp]
            pasted = resize(self.stamps[stamp, :, :height, :width].float(), [bottom - top, right - left])
            pasted = pasted.flip(-1) if mirrored else pasted
            where, alpha = (slice(top, bottom), slice(left, right)), pasted[3] / 255
            picture[:, *where] = picture[:, *where] * (1 - alpha) + pasted[:3]  # colours are times alpha already
            masks[:i, *where] &= alpha < 0.5
            masks[i, *where] = alpha >= 0.5
        return picture.round().clamp(0, 255).to(torch.uint8), masks

    def _background(self, index: int) -> Tensor:
        purpose = self.purpose
        photo = self.photos[address(0, purpose, index, 7) % len(self.photos)]
        view = round(SHORT * uniform(*VIEW, purpose, index, 8))
        left = address(0, purpose, index, 9) % (LONG - view + 1)
        top = address(0, purpose, index, 10) % (SHORT - view + 1)
        return resize(photo[:, top : top + view, left : left + view], [self.side, self.side])


def split_stamps(tree: FileTree, classes: tuple[str, ...], split: str) -> Iterator[tuple[Path, int]]:
    """The files of a split and their classes: of each class every fourth thing is for testing, by a hash of its name.

    Raises:
        ConfigError: a class has no two things.
    """
    if not classes:
        raise tree.error(tree.root, "has no class folders")
    for label, name in enumerate(classes):
        things: dict[str, list[str]] = defaultdict(list)
        for file in tree.files(tree.root / name):
            things[_thing(Path(file).stem)].append(file)
        if len(things) < 2:
            raise tree.error(tree.root / name, "holds one stamp, and the test set needs another")
        for i, thing in enumerate(sorted(things, key=lambda word: zlib.crc32(word.encode(errors="replace")))):
            if (i % HELD_OUT == 0) == (split == "test"):
                yield from ((tree.root / file, label) for file in things[thing])


def _thing(stem: str) -> str:
    """`apple` of `apple_green` and `flower` of `flower3`; short beginnings, as of `t_scarf`, are no names."""
    first = re.split(r"[^a-zA-Z]", stem)[0].lower()
    return first if len(first) > 2 else stem


def _write(path: Path, photos: list[Path], stamps: list[Path]) -> None:
    """Make all small, into one file."""
    print(f"Making {len(photos)} photos and {len(stamps)} stamps small, into {path}, once", file=sys.stderr, flush=True)
    try:
        backgrounds = torch.stack([_photo(read_image(photo, 3)) for photo in photos])
        cut = [_cut_out(stamp) for stamp in stamps]
    except (BrokenSample, OSError, ValueError, SyntaxError) as error:
        raise ConfigError(f"data.root: {error}. Take this file away.") from error
    kept = torch.zeros(len(cut), 4, STAMP, STAMP, dtype=torch.uint8)
    for row, stamp in zip(kept, cut, strict=True):
        row[:, : stamp.shape[1], : stamp.shape[2]] = stamp
    sizes = np.array([stamp.shape[1:] for stamp in cut])
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, photos=backgrounds.numpy(), stamps=kept.numpy(), sizes=sizes)


def _photo(pixels: Tensor) -> Tensor:
    """Its middle, uint8 (3, SHORT, LONG)."""
    zoom = max(SHORT / pixels.shape[1], LONG / pixels.shape[2])
    height, width = (
        max(round(side * zoom), least) for side, least in zip(pixels.shape[1:], (SHORT, LONG), strict=True)
    )
    pixels = resize(pixels, [height, width])
    top, left = (height - SHORT) // 2, (width - LONG) // 2
    return pixels[:, top : top + SHORT, left : left + LONG]


def _cut_out(path: Path) -> Tensor:
    """uint8 (4, h, w): a stamp without its empty margin, made small; colours are times alpha, so that edges blend."""
    with Image.open(path) as image:
        pixels = pil_to_tensor(image.convert("RGBA")).float()
    rows, columns = ((pixels[3] >= 128).any(axis).nonzero()[:, 0] for axis in (1, 0))
    if not len(rows):
        raise BrokenSample(str(path), "is all transparent")
    pixels = pixels[:, int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    pixels[:3] *= pixels[3:] / 255
    zoom = STAMP / max(pixels.shape[1:])
    small = resize(pixels, [max(1, round(side * zoom)) for side in pixels.shape[1:]])
    return small.round().clamp(0, 255).to(torch.uint8)
