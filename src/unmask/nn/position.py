"""Position tables: fixed, or learned for space and time apart."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import ConfigError
from unmask.nn.init import TOKEN_STD


class FixedPosition(nn.Module):
    """A (N, D) table that does not learn and is in no checkpoint."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def forward(self) -> Tensor:
        """(N, D)."""
        return self.table


class SeparablePosition(nn.Module):
    """Two learned tables, of a token's time and of its place in the frame, which are added (mae_st, arXiv 2205.09113).

    Args:
        width: D.
        grid: (times, rows, columns) of tokens, in this order.
    """

    def __init__(self, width: int, grid: tuple[int, int, int]) -> None:
        super().__init__()
        times, rows, columns = grid
        self.time_position = nn.Parameter(torch.randn(1, times, width) * TOKEN_STD)
        self.space_position = nn.Parameter(torch.randn(1, rows * columns, width) * TOKEN_STD)

    def forward(self) -> Tensor:
        """(N, D)."""
        return (self.time_position.transpose(0, 1) + self.space_position).flatten(0, 1)


def sincos_2d(width: int, grid: tuple[int, int], key: str = "model.width") -> Tensor:
    """MAE's table (arXiv 2111.06377): [sin x, cos x, sin y, cos y], in blocks, x (the column) first.

    Args:
        width: D, divisible by four.
        grid: (rows, columns) of tokens, row-major.
        key: the config key that an error names.

    Returns:
        (rows * columns, D) float32, computed in float64.

    Raises:
        ConfigError: four does not divide the width.
    """
    if width % 4:
        raise ConfigError(f"{key}={width} cannot carry 2-D sine-cosine positions. Choose a multiple of 4.")
    quarter = width // 4
    omega = 10_000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    x_angle, y_angle = x.reshape(-1, 1) * omega, y.reshape(-1, 1) * omega
    return torch.cat([x_angle.sin(), x_angle.cos(), y_angle.sin(), y_angle.cos()], dim=1).float()


def sincos_1d(width: int, tokens: int, key: str = "model.width") -> Tensor:
    """The same along one axis: [sin t, cos t], in blocks.

    Args:
        width: D, even.
        tokens: N.
        key: the config key that an error names.

    Returns:
        (N, D) float32, computed in float64.

    Raises:
        ConfigError: the width is odd.
    """
    if width % 2:
        raise ConfigError(f"{key}={width} cannot carry sine-cosine positions. Choose an even number.")
    half = width // 2
    omega = 10_000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(tokens, dtype=torch.float64)[:, None] * omega
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


def sincos_3d(width: int, grid: tuple[int, int, int], key: str = "model.width") -> Tensor:
    """The same of time, row and column: a quarter of the width for time, three eighths each for the picture's axes.

    Args:
        width: D, divisible by sixteen.
        grid: (times, rows, columns) of tokens, in this order.
        key: the config key that an error names.

    Returns:
        (N, D) float32, computed in float64: [sin t, cos t, sin x, cos x, sin y, cos y], in blocks.

    Raises:
        ConfigError: sixteen does not divide the width.
    """
    if width % 16:
        raise ConfigError(f"{key}={width} cannot carry 3-D sine-cosine positions. Choose a multiple of 16.")
    t, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    parts = []
    for axis, share in ((t, width // 4), (x, 3 * width // 8), (y, 3 * width // 8)):
        half = share // 2
        angle = axis.reshape(-1, 1) * 10_000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1).float()


def resize_table(table: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """A (N, D) table of one grid on another, as published for other image sizes: bicubic, time linear.

    Args:
        table: row-major.
        old: token counts of the table along each axis, at most three.
        new: those that are wanted.
    """
    if tuple(old) == tuple(new):
        return table
    grid = table.float().view(*old, -1).movedim(-1, 0)
    if len(old) == 3 and old[0] != new[0]:
        flat = grid.flatten(2).movedim(1, 2)  # (D, H W, T)
        grid = F.interpolate(flat, size=new[0], mode="linear").movedim(2, 1).reshape(-1, new[0], *old[1:])
    if len(old) == 1:
        grid = F.interpolate(grid[None], size=new[0], mode="linear")[0]
    elif tuple(old[-2:]) != tuple(new[-2:]):
        planes = grid[None] if len(old) == 2 else grid.movedim(1, 0)  # (1 or T, D, H, W)
        planes = F.interpolate(planes, size=tuple(new[-2:]), mode="bicubic", align_corners=False)
        grid = planes[0] if len(old) == 2 else planes.movedim(0, 1)
    return grid.flatten(1).T.contiguous()


def sincos_interleaved(width: int, tokens: int, key: str = "model.width") -> Tensor:
    """VideoMAE's table (arXiv 2203.12602): along all tokens in a row, [sin, cos, sin, cos, ...] of falling frequency.

    Args:
        width: D, even.
        tokens: N.
        key: the config key that an error names.

    Returns:
        (N, D) float32, computed in float64.

    Raises:
        ConfigError: the width is odd.
    """
    blocks = sincos_1d(width, tokens, key)
    return torch.stack(blocks.chunk(2, dim=1), dim=2).flatten(1)
