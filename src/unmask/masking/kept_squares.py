"""Keep squares (data2vec 2.0's inverse block mask, arXiv 2212.07525)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unmask.address import noise
from unmask.errors import ConfigError
from unmask.masking.select import ROUNDING
from unmask.masking.strategy import MaskStrategy


class KeptSquaresMask(MaskStrategy):
    """Squares around random centres are kept visible; all else is hidden.

    The number of squares is fixed, centres are uniform and may coincide, and a square is cut off at the border. What
    the squares cover beyond the visible count is hidden at random, and what they lack is added at random, so they are
    ragged.

    Args:
        ratio: hidden tokens over all tokens.
        side: of a square, tokens; odd, so that it has a centre.
        adjust: share of the tokens that squares are drawn for beyond what is kept, since they overlap.

    Raises:
        ConfigError: an argument is out of its range.
    """

    planar = True

    def __init__(self, ratio: float, side: int, adjust: float) -> None:
        super().__init__(ratio)
        if side < 1 or side % 2 == 0:
            raise ConfigError(f"mask.side={side} gives squares without a centre. Choose an odd number, such as 3.")
        if not 0 <= adjust <= 1:
            raise ConfigError(f"mask.adjust={adjust} is no share of the tokens. Choose a number from 0 to 1.")
        self.side, self.adjust = side, adjust

    def squares(self, tokens: int) -> int:
        """How many are drawn on a grid of so many tokens: at least one."""
        return max(1, math.floor(tokens * (1 - self.ratio + self.adjust) / self.side**2 + ROUNDING))

    def scores(self, seed: int, positions: Tensor, grid: Sequence[int], counts: Tensor | None = None) -> Tensor:
        """(B, N): below zero inside of the squares, at random."""
        if len(grid) != 2:
            raise ConfigError(
                "mask=kept_squares needs a picture or a video, and this grid has one axis. Use mask=span."
            )
        rows, columns = grid
        tokens = rows * columns
        centre = (noise(seed, "squares", positions, self.squares(tokens)) * tokens).long()[:, :, None]
        token = torch.arange(tokens, device=positions.device)
        apart = torch.maximum((token // columns - centre // columns).abs(), (token % columns - centre % columns).abs())
        covered = (apart <= self.side // 2).any(dim=1)
        return noise(seed, "mask", positions, tokens) - covered.float()
