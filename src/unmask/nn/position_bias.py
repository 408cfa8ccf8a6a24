"""What attention scores know of positions: distances with fixed slopes, or a learned table."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmask.nn.position import resize_table


class Alibi(nn.Module):
    """Minus the distance of two tokens, times a slope for each head and a learned factor not below zero.

    Slopes are those of arXiv 2108.12409; the distance is symmetric and the factor learned as in data2vec 2.0
    (arXiv 2212.07525). Prefix tokens are at distance zero from all.

    Args:
        prefix: tokens before the grid tokens.
        heads: attention heads.
    """

    slopes: Tensor

    def __init__(self, prefix: int, heads: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.scale = nn.Parameter(torch.ones(heads))
        self.register_buffer("slopes", alibi_slopes(heads), persistent=False)

    def forward(self, tokens: int, visible: Tensor | None) -> Tensor:
        """(B or 1, heads, T, T) for all `tokens` grid tokens, or for the visible ones (B, V) of a mask."""
        index = torch.arange(tokens, device=self.scale.device)[None] if visible is None else visible
        distance = (index[:, :, None] - index[:, None, :]).abs()
        distance = nn.functional.pad(distance, (self.prefix, 0, self.prefix, 0))
        factor = self.slopes * self.scale.clamp(min=0)
        return -distance[:, None] * factor[:, None, None]


def alibi_slopes(heads: int) -> Tensor:
    """(heads,) geometric slopes; where heads are no power of two, the next power's odd ones fill up."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    between = [2 ** (-4 * i / power) for i in range(1, 2 * power + 1, 2)]
    return torch.tensor((slopes + between)[:heads])


class RelativeBias(nn.Module):
    """A learned number for each head and each offset of two tokens on a 2-D grid, shared by all blocks (BEiT).

    The table has a row for every (row, column) offset, then one each for class token to token, token to class token
    and class token to itself (arXiv 2106.08254; starts at zero).

    Args:
        grid: (rows, columns) of tokens.
        prefix: 0, or 1 for a class token.
        heads: attention heads.
    """

    index: Tensor

    def __init__(self, grid: tuple[int, ...], prefix: int, heads: int) -> None:
        super().__init__()
        self.grid = grid
        rows, columns = grid
        offsets = (2 * rows - 1) * (2 * columns - 1)
        self.table = nn.Parameter(torch.zeros(offsets + 3, heads))
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        y, x = y.flatten(), x.flatten()
        down, right = y[:, None] - y + rows - 1, x[:, None] - x + columns - 1
        index = nn.functional.pad(down * (2 * columns - 1) + right, (prefix, 0, prefix, 0))
        if prefix:
            index[0, :], index[:, 0], index[0, 0] = offsets, offsets + 1, offsets + 2
        self.prefix = prefix
        self.register_buffer("index", index, persistent=False)

    def forward(self, tokens: int, visible: Tensor | None) -> Tensor:
        """(B or 1, heads, T, T) for all grid tokens, or for the visible ones (B, V) of a mask."""
        index = self.index[None]
        if visible is not None:
            seen = nn.functional.pad(visible + self.prefix, (self.prefix, 0))
            index = self.index[seen[:, :, None], seen[:, None, :]]
        return self.table[index].permute(0, 3, 1, 2)

    def resized(self, table: Tensor, grid: Sequence[int]) -> Tensor:
        """The table of another grid as one of this, interpolated between offsets."""
        old, new = ([2 * side - 1 for side in sides] for sides in (grid, self.grid))
        return torch.cat([resize_table(table[:-3], old, new), table[-3:]])
