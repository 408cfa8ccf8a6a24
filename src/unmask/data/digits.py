"""1,797 handwritten digits of 8 x 8 pixels that come inside scikit-learn (UCI, BSD-3): no download."""

import torch
from sklearn.datasets import load_digits

from unmask.schema import Sample


class Digits:
    """Every fifth digit is held out as `test`; the rest is `train`."""

    classes = tuple("0123456789")

    def __init__(self, split: str = "train") -> None:
        bunch = load_digits()
        held_out = torch.arange(len(bunch.images)) % 5 == 0
        chosen = held_out if split == "test" else ~held_out
        grey = torch.from_numpy(bunch.images)[chosen] * (255 / 16)  # stored as 0..16
        self.images = grey.round().to(torch.uint8)[:, None]
        self.labels = torch.from_numpy(bunch.target)[chosen].tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """uint8 (1, 8, 8) and its digit."""
        return Sample(self.images[index], self.labels[index])
