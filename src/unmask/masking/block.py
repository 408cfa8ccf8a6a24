"""Hide rectangles, or keep rectangles (after BEiT, arXiv 2106.08254, and data2vec 2.0, arXiv 2212.07525)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unmask.address import noise
from unmask.errors import ConfigError
from unmask.masking.strategy import MaskStrategy

MOST_BLOCKS = 200  # rectangles a sample; each costs a comparison a token


class BlockMask(MaskStrategy):
    """Rectangles are hidden one after the other until the count is reached.

    Each token's score is the rank of the first rectangle that covers it, plus noise below one: the count is exact,
    only the last rectangle is ragged, and there is no loop over samples. Enough rectangles are drawn to reach the
    count; the few tokens that all of them miss in a rare sample are filled up at random.

    Args:
        ratio: hidden tokens over all tokens.
        block_size: a rectangle's area over the grid's.
        aspect: a rectangle's height over its width lies between this and its inverse.

    Raises:
        ConfigError: an argument is out of its range.
    """

    planar = True

    def __init__(self, ratio: float, block_size: float = 0.2, aspect: float = 0.3) -> None:
        super().__init__(ratio)
        for name, value in (("block_size", block_size), ("aspect", aspect)):
            if not 0 < value <= 1:
                raise ConfigError(f"mask.{name}={value} is no share. Choose a number above 0 and at most 1.")
        self.block_size, self.aspect = block_size, aspect

    def scores(self, seed: int, positions: Tensor, grid: Sequence[int], counts: Tensor | None = None) -> Tensor:
        """(B, N): tokens of the first rectangle score highest."""
        return self._rank(seed, positions, grid) + noise(seed, "mask", positions, math.prod(grid))

    def _chosen(self) -> float:
        """The share of tokens that the rectangles have to reach."""
        return self.ratio

    def _rank(self, seed: int, positions: Tensor, grid: Sequence[int]) -> Tensor:
        """(B, N): high for tokens of the first rectangle, one less for the next, 0 outside of all."""
        if len(grid) != 2:
            raise ConfigError("mask=block needs a picture or a video, and this grid has one axis. Use mask=span.")
        inside = self._rectangles(seed, positions, grid)
        countdown = torch.arange(inside.shape[1], 0, -1, device=positions.device)[:, None]
        return (inside * countdown).amax(dim=1).float()

    def _rectangles(self, seed: int, positions: Tensor, grid: Sequence[int]) -> Tensor:
        """(B, blocks, N) bool: which tokens each rectangle covers."""
        rows, columns = grid
        # Independent rectangles of share b leave (1 - b)^n uncovered; those over the border cover about half as much.
        chosen = self._chosen()
        count = min(
            MOST_BLOCKS, math.ceil(3 * math.log(max(1 - chosen, 0.01)) / math.log(1 - 0.9 * self.block_size)) + 2
        )
        shape, top, left = noise(seed, "blocks", positions, 3 * count).view(-1, 3, count).unbind(1)
        aspect = torch.exp((shape * 2 - 1) * math.log(self.aspect))
        area = self.block_size * rows * columns
        height = (area * aspect).sqrt().round().clamp(1, rows)
        width = (area / aspect).sqrt().round().clamp(1, columns)
        # Rectangles may hang over the border: then a token at the border is covered as often as one in the middle.
        top = (top * (rows + height - 1)).floor() - height + 1
        left = (left * (columns + width - 1)).floor() - width + 1
        y = torch.arange(rows, device=positions.device)
        x = torch.arange(columns, device=positions.device)
        in_rows = (y >= top[..., None]) & (y < (top + height)[..., None])
        in_columns = (x >= left[..., None]) & (x < (left + width)[..., None])
        return (in_rows[..., :, None] & in_columns[..., None, :]).flatten(2)


class InverseBlockMask(BlockMask):
    """Rectangles are kept visible one after the other; all else is hidden."""

    def scores(self, seed: int, positions: Tensor, grid: Sequence[int], counts: Tensor | None = None) -> Tensor:
        """(B, N): tokens of the first rectangle score lowest."""
        return noise(seed, "mask", positions, math.prod(grid)) - self._rank(seed, positions, grid)

    def _chosen(self) -> float:
        """What stays visible."""
        return 1 - self.ratio
