"""Windowed attention: most blocks of a detector look at tokens of their own window only (ViTDet, arXiv 2203.16527)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class Windows:
    """Square windows of a grid, without overlap, filled up with padding at the right and bottom.

    Padding is never looked at: a token's output depends on real tokens of its window alone.

    Args:
        grid: (rows, columns) of tokens.
        side: of a window, in tokens.
        whole: blocks, counted from 0, that look at all tokens.
    """

    def __init__(self, grid: tuple[int, int], side: int, whole: Sequence[int]) -> None:
        self.side, self.whole = side, frozenset(whole)
        self.rows, self.columns = grid
        self.down, self.right = (-length % side for length in grid)

    def inside(
        self, block: Callable[..., tuple[Tensor, Tensor]], x: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What a block makes of each window of (B, rows * columns, D): its tokens and feed-forward output.

        Args:
            block: takes tokens and what is added to its attention scores.
            x: tokens, row-major.
            bias: (1, heads, N, N) of all tokens, which depends on their offset alone; None for none.
        """
        made: tuple[Tensor, ...] = block(self.split(x), bias=self._bias(len(x), x.device, bias))
        tokens, feed_forward = (self.join(one) for one in made)
        return tokens, feed_forward

    def split(self, x: Tensor) -> Tensor:
        """(B, rows * columns, D) to (B * windows, side², D)."""
        side, width = self.side, x.shape[-1]
        grid = F.pad(x.view(len(x), self.rows, self.columns, width), (0, 0, 0, self.right, 0, self.down))
        grid = grid.view(len(x), grid.shape[1] // side, side, grid.shape[2] // side, side, width)
        return grid.transpose(2, 3).reshape(-1, side**2, width)

    def join(self, x: Tensor) -> Tensor:
        """The inverse, without padding."""
        side, width = self.side, x.shape[-1]
        down, right = (self.rows + self.down) // side, (self.columns + self.right) // side
        grid = x.view(-1, down, right, side, side, width).transpose(2, 3)
        return grid.reshape(-1, down * side, right * side, width)[:, : self.rows, : self.columns].flatten(1, 2)

    def _bias(self, batch: int, device: torch.device, bias: Tensor | None) -> Tensor | None:
        """That of the first window, which is that of all, with minus infinity or False at padding."""
        if bias is not None:
            rows, columns = (torch.arange(self.side, device=device).clamp(max=n - 1) for n in (self.rows, self.columns))
            first = (rows[:, None] * self.columns + columns).flatten()
            bias = bias[:, :, first][..., first]
        if not self.down and not self.right:
            return bias
        real = self.split(torch.ones(batch, self.rows * self.columns, 1, device=device)).bool()[:, None, None, :, 0]
        return real if bias is None else bias.masked_fill(~real, float("-inf"))
