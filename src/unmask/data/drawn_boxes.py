"""Pictures with boxes that are drawn when asked for: things at random places, none of which covers much of another."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from unmask.address import address
from unmask.data.drawn_clips import uniform
from unmask.data.folder import check_split
from unmask.errors import ConfigError
from unmask.schema import Boxes, Sample

MOST = 4  # things on a picture, at least one
OVERLAP = 0.3  # of the smaller of two boxes, at most
TRIES = 10  # places that are looked at for one thing; where none is free it is left out


class Placed(NamedTuple):
    """A thing on a picture: which, where (left, top, right, bottom, in whole pixels), and whether it is mirrored."""

    thing: int
    box: tuple[int, int, int, int]
    mirrored: bool


class DrawnBoxes(ABC):
    """Square pictures of one to four things; labels are boxes, and masks if wanted. Each is the same at every call.

    Args:
        name: of the data set; keeps its draws apart from those of others.
        split: train or test.
        pictures: how many.
        side: pixels of a picture.
        masks: give the visible pixels of each thing too.

    Attributes:
        sizes: height and width of each thing of the split, before it is zoomed.
        labels: the class of each.

    Raises:
        ConfigError: there is no such split, or the side is not one whole number of at least 16.
    """

    classes: tuple[str, ...]
    share: tuple[float, float]  # smallest and largest longer side of a thing, over the picture's
    sizes: Sequence[Sequence[int]]
    labels: Sequence[int]

    def __init__(self, name: str, split: str, pictures: int, side: int, masks: bool) -> None:
        check_split(split)
        if not isinstance(side, int) or side < 16:
            raise ConfigError(f"data.image_size={side}: these pictures are square. Choose one number of at least 16.")
        self.purpose, self.count, self.side, self.with_masks = f"{name} {split}", pictures, side, masks

    @abstractmethod
    def draw(self, index: int, places: Sequence[Placed]) -> tuple[Tensor, Tensor]:
        """uint8 (C, side, side), and bool (n, side, side): where each thing is seen."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """uint8 (C, side, side) and its boxes."""
        places = self.layout(index)
        pixels, masks = self.draw(index, places)
        return Sample(pixels, self._boxes(places, masks if self.with_masks else None))

    def label(self, index: int) -> Boxes:
        """The boxes, without drawing, and so without masks."""
        return self._boxes(self.layout(index), None)

    def layout(self, index: int) -> list[Placed]:
        """What is where, the farthest first; classes are equally likely."""
        purpose, side, placed = self.purpose, self.side, list[Placed]()
        for turn in range(1 + address(0, purpose, index, 0) % MOST):
            label = address(0, purpose, index, 1, turn) % len(self.classes)
            members = self._members[label]
            thing = members[address(0, purpose, index, 2, turn) % len(members)]
            zoom = side * uniform(*self.share, purpose, index, 3, turn) / max(self.sizes[thing])
            height, width = (max(1, round(length * zoom)) for length in self.sizes[thing])
            mirrored = address(0, purpose, index, 4, turn) % 2 == 1
            for attempt in range(TRIES):
                left = address(0, purpose, index, 5, turn, attempt) % (side - width + 1)
                top = address(0, purpose, index, 6, turn, attempt) % (side - height + 1)
                box = (left, top, left + width, top + height)
                if all(_overlap(box, other.box) <= OVERLAP for other in placed):
                    placed.append(Placed(thing, box, mirrored))
                    break
        return placed

    @cached_property
    def _members(self) -> list[list[int]]:
        """The things of each class."""
        return [[i for i, label in enumerate(self.labels) if label == c] for c in range(len(self.classes))]

    def _boxes(self, places: Sequence[Placed], masks: Tensor | None) -> Boxes:
        corners = torch.tensor([place.box for place in places], dtype=torch.float32)
        return Boxes(self.side, self.side, tuple(self.labels[place.thing] for place in places), corners, masks)


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Of two boxes what they share, over the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller
