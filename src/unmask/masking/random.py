"""Every token hidden with the same chance (MAE, arXiv 2111.06377)."""

import math
from collections.abc import Sequence

from torch import Tensor

from unmask.address import noise
from unmask.masking.strategy import MaskStrategy


class RandomMask(MaskStrategy):
    """Independent noise a token; the highest are hidden."""

    uniform = True

    def scores(self, seed: int, positions: Tensor, grid: Sequence[int], counts: Tensor | None = None) -> Tensor:
        """(B, N) noise in [0, 1)."""
        return noise(seed, "mask", positions, math.prod(grid))
