"""Where things lie on a picture that is drawn: at random, and none covers much of another."""

from collections.abc import Sequence
from typing import NamedTuple

from unmask.address import address
from unmask.data.drawn_clips import uniform

MOST = 4  # things on a picture, at least one
OVERLAP = 0.3  # of the smaller of two boxes, at most
TRIES = 10  # places that are looked at for one thing; where none is free it is left out


class Placed(NamedTuple):
    """A thing on a picture: which, where (left, top, right, bottom, in whole pixels), and whether it is mirrored."""

    thing: int
    box: tuple[int, int, int, int]
    mirrored: bool


def layout(
    purpose: str,
    index: int,
    members: Sequence[Sequence[int]],
    sizes: Sequence[Sequence[int]],
    side: int,
    share: tuple[float, float],
) -> list[Placed]:
    """One to four things on a square picture, the farthest first; the same at every call.

    Args:
        purpose: keeps the draws of one data set and split apart from those of others.
        index: of the picture.
        members: the things of each class; classes are equally likely.
        sizes: height and width of each thing.
        side: of the picture, in pixels.
        share: smallest and largest longer side of a thing, over the picture's.
    """
    placed: list[Placed] = []
    for turn in range(1 + address(0, purpose, index, 0) % MOST):
        of_class = members[address(0, purpose, index, 1, turn) % len(members)]
        thing = of_class[address(0, purpose, index, 2, turn) % len(of_class)]
        zoom = side * uniform(*share, purpose, index, 3, turn) / max(sizes[thing])
        height, width = (max(1, round(length * zoom)) for length in sizes[thing])
        mirrored = address(0, purpose, index, 4, turn) % 2 == 1
        for attempt in range(TRIES):
            left = address(0, purpose, index, 5, turn, attempt) % (side - width + 1)
            top = address(0, purpose, index, 6, turn, attempt) % (side - height + 1)
            box = (left, top, left + width, top + height)
            if all(_overlap(box, other.box) <= OVERLAP for other in placed):
                placed.append(Placed(thing, box, mirrored))
                break
    return placed


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Of two boxes what they share, over the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(width, 0) * max(height, 0) / smaller
