"""What every masking strategy is: scores in, an exact mask out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from unmask.errors import ConfigError
from unmask.masking.select import clamped_visible, hide_top, hide_top_padded
from unmask.schema import Mask


class MaskStrategy(ABC):
    """Draws masks that depend on nothing but (seed, sample position, the sample's own length).

    Args:
        ratio: hidden tokens over all tokens, strictly between 0 and 1.

    Raises:
        ConfigError: the ratio is not between 0 and 1.
    """

    uniform = False  # whether every token is hidden equally often, by construction
    planar = False  # whether masks are drawn on pictures; those of a video are then the same in every frame

    def __init__(self, ratio: float) -> None:
        if not 0 < ratio < 1:
            raise ConfigError(
                f"mask.ratio={ratio} leaves nothing visible or nothing to predict. "
                "Choose a ratio strictly between 0 and 1, such as 0.75."
            )
        self.ratio = ratio

    @abstractmethod
    def scores(self, seed: int, positions: Tensor, grid: Sequence[int], counts: Tensor | None = None) -> Tensor:
        """(B, N) float: the higher, the sooner hidden. N is the product of the grid; tokens are row-major.

        With `counts`, (B,) int64, only the first so many tokens of a row are real; what the rest scores is not read.
        """

    def num_visible(self, grid: Sequence[int]) -> int:
        """Tokens that stay visible where no row is padded."""
        if self.planar and len(grid) == 3:
            return grid[0] * self.num_visible(grid[1:])
        return clamped_visible(math.prod(grid), self.ratio)

    def draw(
        self,
        seed: int,
        positions: Tensor,
        grid: Sequence[int],
        counts: Tensor | None = None,
        never_hidden: Tensor | None = None,
    ) -> Mask:
        """One mask for each stream position (B,), on a token grid such as (14, 14).

        Args:
            seed: the run's.
            positions: (B,) int64.
            grid: tokens along each axis.
            counts: as of `scores`.
            never_hidden: (B, N) bool, tokens that stay visible. A ratio that leaves too few others to hide takes some
                of them too, and these do not count.
        """
        if self.planar and len(grid) == 3:
            scores = self.scores(seed, positions, grid[1:], counts).repeat(1, grid[0])
        else:
            scores = self.scores(seed, positions, grid, counts)
        if never_hidden is not None:
            scores = scores.masked_fill(never_hidden, -math.inf)
        if counts is not None:
            mask = hide_top_padded(scores, self.ratio, counts)
        else:
            mask = hide_top(scores, self.num_visible(grid))
        if never_hidden is None:
            return mask
        counted = ~never_hidden.gather(1, mask.hidden)
        return replace(mask, counted=counted if mask.counted is None else mask.counted & counted)
