"""Scattered digits: real handwritten ones on black, where it is known; drawn when asked for, nothing to download."""

import torch
from torch import Tensor
from torchvision.transforms.functional import resize

from unmask.data.digits import Digits
from unmask.data.folder import check_split
from unmask.data.layout import Placed, layout
from unmask.errors import ConfigError
from unmask.schema import Boxes, Sample

SIZE = (0.2, 0.45)  # a digit's longer side over the picture's
INK = 64  # of 255: darker pixels are no part of a digit


class ScatteredDigits:
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

    def __init__(
        self,
        split: str = "train",
        train_pictures: int = 10_000,
        test_pictures: int = 400,
        side: int = 48,
        masks: bool = False,
    ) -> None:
        check_split(split)
        if not isinstance(side, int) or side < 16:
            raise ConfigError(f"data.image_size={side}: these pictures are square. Choose one number of at least 16.")
        self.split, self.count = split, train_pictures if split == "train" else test_pictures
        self.side, self.with_masks = side, masks
        digits = Digits(split)
        self.labels = digits.labels
        self.digits = [_trimmed(image) for image in digits.images]
        self.sizes = [tuple(digit.shape[1:]) for digit in self.digits]
        self.members = [[i for i, label in enumerate(digits.labels) if label == c] for c in range(len(self.classes))]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """uint8 (1, side, side) and its boxes."""
        places = self.layout(index)
        picture = torch.zeros(1, self.side, self.side, dtype=torch.uint8)
        masks = torch.zeros(len(places), self.side, self.side, dtype=torch.bool)
        for i, (digit, (left, top, right, bottom), _) in enumerate(places):
            drawn = resize(self.digits[digit], [bottom - top, right - left])
            where = (slice(top, bottom), slice(left, right))
            picture[:, *where] = torch.maximum(picture[:, *where], drawn)
            masks[:i, *where] &= drawn[0] < INK
            masks[i, *where] = drawn[0] >= INK
        return Sample(picture, self._boxes(places, masks if self.with_masks else None))

    def label(self, index: int) -> Boxes:
        """The boxes, without drawing, and so without masks."""
        return self._boxes(self.layout(index), None)

    def layout(self, index: int) -> list[Placed]:
        """The digits of a picture; none is mirrored, whatever it says."""
        return layout(f"scattered digits {self.split}", index, self.members, self.sizes, self.side, SIZE)

    def _boxes(self, places: list[Placed], masks: Tensor | None) -> Boxes:
        corners = torch.tensor([place.box for place in places], dtype=torch.float32)
        return Boxes(self.side, self.side, tuple(self.labels[place.thing] for place in places), corners, masks)


def _trimmed(image: Tensor) -> Tensor:
    """(1, height, width): a digit without the dark around it."""
    (rows,), (columns,) = ((image[0] >= INK).any(axis).nonzero(as_tuple=True) for axis in (1, 0))
    return image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
