"""Fixed position tables."""

import torch
from torch import Tensor

from unmask.errors import ConfigError


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
