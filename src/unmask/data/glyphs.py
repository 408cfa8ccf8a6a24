"""Letters and digits in hundreds of fonts, drawn once; the fonts of the test set are seen nowhere else."""

import hashlib
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from unmask.data.documents import written_aside
from unmask.data.folder import FileTree, check_split
from unmask.errors import ConfigError
from unmask.schema import Sample

EM, MARGIN = 96, 2  # pixels: the size that fonts are drawn in before they are made small, and what is left free around
HELD_OUT = 5  # one font in so many
NO_CHARACTER = "\uffff"  # fonts show here what they show for all that they lack

_REMEDY = "Run `make data-glyphs`, or set data.root to a folder of fonts."


class Glyphs:
    """Characters, light on dark, each as large as fits and in the middle; the label is the character.

    A fifth of the fonts is for testing, by a hash of the first word of their names: variants of one stay together.
    Left out are glyphs that are empty, a stand-in, or the same for two characters of a font, as O and 0 often are.

    Args:
        root: folder of fonts.
        cache: folder for what is drawn: 13 MB for 465 fonts.
        split: train or test.
        characters: to draw, each a class.
        side: pixels of a picture.

    Attributes:
        images: uint8 (N, 1, side, side).
        fonts: N file names.

    Raises:
        ConfigError: there are no such fonts, no such characters, or the cache cannot be written.
    """

    def __init__(
        self,
        root: str | Path,
        cache: str | Path,
        split: str = "train",
        characters: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
        side: int = 28,
    ) -> None:
        check_split(split)
        self.classes = tuple(str(characters))
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ConfigError(f"data.characters={characters} must name characters, each once.")
        if not isinstance(side, int) or side <= 2 * MARGIN:
            raise ConfigError(f"data.image_size={side}: glyphs are square. Choose one number above {2 * MARGIN}.")
        folder = Path(root).expanduser().absolute()
        tree = FileTree(folder, "fonts", (".ttf", ".otf"), _REMEDY)
        fonts = [folder / name for name in tree.files(folder)]
        made_of = (self.classes, side, EM, MARGIN, HELD_OUT, [(font.name, font.stat().st_size) for font in fonts])
        digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
        path = Path(cache).expanduser().absolute() / f"glyphs-{digest}.npz"
        if not path.exists():
            _write(path, fonts, self.classes, side)
        with np.load(path) as drawn:
            chosen = drawn["held_out"] == (split == "test")
            self.images = torch.from_numpy(drawn["images"][chosen])
            self._labels: list[int] = drawn["labels"][chosen].tolist()
            self.fonts: list[str] = drawn["fonts"][chosen].tolist()
        if not self._labels:
            raise tree.error(folder, f"holds {len(fonts)} fonts, but no glyphs to {split} on")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """uint8 (1, side, side) and the character's class."""
        return Sample(self.images[index], self._labels[index])


def _write(path: Path, fonts: list[Path], characters: Sequence[str], side: int) -> None:
    """Draw all fonts into one file."""
    print(f"Drawing the glyphs of {len(fonts)} fonts into {path}, once", file=sys.stderr, flush=True)
    images, labels, names, held_out = list[bytes](), list[int](), list[str](), list[bool]()
    for font in fonts:
        family, glyphs = draw(font, characters, side)
        images += glyphs.values()
        labels += glyphs
        names += [font.name] * len(glyphs)
        held_out += [zlib.crc32(family.encode(errors="replace")) % HELD_OUT == 0] * len(glyphs)
    left_out = len(fonts) * len(characters) - len(labels)
    print(f"Left out {left_out} glyphs: empty, a stand-in, or like another", file=sys.stderr, flush=True)
    pixels = np.frombuffer(b"".join(images), np.uint8).reshape(-1, 1, side, side)
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, images=pixels, labels=np.array(labels), fonts=np.array(names), held_out=np.array(held_out))


def draw(path: Path, characters: Sequence[str], side: int) -> tuple[str, dict[int, bytes]]:
    """The first word of a font's name, and the glyphs that can be told apart: class and (side, side) bytes."""
    try:
        font = ImageFont.truetype(path, EM, layout_engine=ImageFont.Layout.BASIC)
        stand_in, *glyphs = (_glyph(font, character, side) for character in (NO_CHARACTER, *characters))
    except OSError:  # no font, or a damaged one
        return path.stem, {}
    often = Counter([stand_in, *glyphs])
    family = font.getname()[0] or path.stem
    return family.partition(" ")[0], {i: glyph for i, glyph in enumerate(glyphs) if glyph and often[glyph] == 1}


def _glyph(font: ImageFont.FreeTypeFont, character: str, side: int) -> bytes:
    """A character's (side, side) bytes; none where nothing is drawn."""
    canvas = Image.new("L", (6 * EM, 6 * EM))
    ImageDraw.Draw(canvas).text((3 * EM, 3 * EM), character, fill=255, font=font, anchor="mm")
    ink = canvas.getbbox()
    if ink is None:
        return b""
    glyph = canvas.crop(ink)
    scale = (side - 2 * MARGIN) / max(glyph.size)
    width, height = (max(1, round(length * scale)) for length in glyph.size)
    picture = Image.new("L", (side, side))
    picture.paste(glyph.resize((width, height), Image.Resampling.BOX), ((side - width) // 2, (side - height) // 2))
    return picture.tobytes()
