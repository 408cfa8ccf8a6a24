"""Scattered digits: real handwritten ones on black, where it is known; drawn when asked for, nothing to download."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.functional import resize

from unmask.data.digits import Digits
from unmask.data.drawn_boxes import DrawnBoxes, Placed

INK = 64  # of 255: darker pixels are no part of a digit


class ScatteredDigits(DrawnBoxes):
    """Square grey pictures of one to four handwritten digits; labels are boxes around their ink, and masks if wanted.

    Picture i of a split is the same at every call. Test pictures show other digits than training pictures.

    Args:
        split: train or test.
        train_pictures: to train on.
        test_pictures: held-out pictures.
        side: pixels of a picture.
        masks: give the visible pixels of each digit too.

    Raises:
        ConfigError: the side is not one whole number of at least 16.
    """

    classes = Digits.classes
    share = (0.2, 0.45)

    def __init__(
        self,
        split: str = "train",
        train_pictures: int = 10_000,
        test_pictures: int = 400,
        side: int = 48,
        masks: bool = False,
    ) -> None:
        super().__init__("scattered digits", split, train_pictures if split == "train" else test_pictures, side, masks)
        digits = Digits(split)
        self.digits = [_trimmed(image) for image in digits.images]
        self.sizes, self.labels = [digit.shape[1:] for digit in self.digits], digits.labels

    def draw(self, index: int, places: Sequence[Placed]) -> tuple[Tensor, Tensor]:
        """uint8 (1, side, side), and bool (n, side, side): the ink of each digit. Digits are never mirrored."""
        picture = torch.zeros(1, self.side, self.side, dtype=torch.uint8)
        masks = torch.zeros(len(places), self.side, self.side, dtype=torch.bool)
        for i, (digit, (left, top, right, bottom), _) in enumerate(places):
            drawn = resize(self.digits[digit], [bottom - top, right - left])
            where = (slice(top, bottom), slice(left, right))
            picture[:, *where] = torch.maximum(picture[:, *where], drawn)
            masks[:i, *where] &= drawn[0] < INK
            masks[i, *where] = drawn[0] >= INK
        return picture, masks


def _trimmed(image: Tensor) -> Tensor:
    """(1, height, width): a digit without the dark around it."""
    rows, columns = ((image[0] >= INK).any(axis).nonzero()[:, 0] for axis in (1, 0))
    return image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
