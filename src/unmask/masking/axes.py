"""Hide along whole axes of a grid: tubes through time, frames, stretches of time, bands of frequency."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unmask.address import noise
from unmask.errors import ConfigError
from unmask.masking.select import num_visible
from unmask.masking.strategy import MaskStrategy


class AxisMask(MaskStrategy):
    """Random masks over some axes of the grid, each the same all along the others; hidden is what any of them hides.

    On (time, height, width), [[1, 2]] hides tubes (VideoMAE, arXiv 2203.12602) and [[0]] whole frames; on (time,
    frequency), [[0], [1]] hides times and frequencies (Audio-MAE, arXiv 2207.06405). With G masks each keeps
    (1 - ratio)^(1/G) of its lines, rounded down to whole ones: the count is exact, and a little above the ratio.

    Args:
        ratio: hidden tokens over all tokens.
        axes: for each mask, the axes that it is drawn on.

    Raises:
        ConfigError: a mask has no axis, or two have the same.
    """

    uniform = True

    def __init__(self, ratio: float, axes: Sequence[Sequence[int]]) -> None:
        super().__init__(ratio)
        self.axes = tuple(tuple(group) for group in axes)
        named = [axis for group in self.axes for axis in group]
        if not all(self.axes) or not named or len(set(named)) < len(named) or min(named) < 0:
            raise ConfigError(
                f"mask.axes={[list(group) for group in axes]} must list, for each mask, different axes of the grid, "
                "counted from 0, such as [[1,2]]."
            )

    def scores(self, seed: int, positions: Tensor, grid: Sequence[int], counts: Tensor | None = None) -> Tensor:
        """(B, N): 1 where hidden, 0 where visible."""
        hidden = torch.zeros(len(positions), *grid, dtype=torch.bool, device=positions.device)
        for number, (group, visible) in enumerate(zip(self.axes, self._visible_lines(grid), strict=True)):
            lines = [size if axis in group else 1 for axis, size in enumerate(grid)]
            drawn = noise(seed, f"mask {number}", positions, math.prod(lines))
            rank = drawn.argsort(dim=1, stable=True).argsort(dim=1)
            hidden |= (rank >= visible).view(-1, *lines)
        return hidden.flatten(1).float()

    def num_visible(self, grid: Sequence[int]) -> int:
        """Tokens on lines that all masks leave visible.

        Raises:
            ConfigError: the grid has not these axes, or a mask would hide all or none of its lines.
        """
        lines = self._visible_lines(grid)
        named = [axis for group in self.axes for axis in group]
        return math.prod(lines) * math.prod(size for axis, size in enumerate(grid) if axis not in named)

    def _visible_lines(self, grid: Sequence[int]) -> list[int]:
        last = max(axis for group in self.axes for axis in group)
        if last >= len(grid):
            raise ConfigError(
                f"mask.axes={[list(group) for group in self.axes]} names axis {last}, and the grid has {len(grid)}, "
                "counted from 0. Use mask=random, or a mask for this modality."
            )
        ratio = 1 - (1 - self.ratio) ** (1 / len(self.axes))
        return [num_visible(math.prod(grid[axis] for axis in group), ratio) for group in self.axes]
