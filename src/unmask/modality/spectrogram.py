"""Spectrograms as pictures."""

import math

import torch
from torch import Tensor

WHITE, GREY = 255, 128
LEAST_RANGE = 1e-6


def shades(energies: Tensor, scale: Tensor, real: Tensor | None = None) -> Tensor:
    """(B, N, bands) to uint8 (B, 1, bands, N), low bands at the bottom.

    Args:
        energies: what is drawn.
        scale: (B, N, bands) whose least and most of each sample are black and white.
        real: (B, N) bool, false at padding, which is white and sets no scale; None for no padding.
    """
    padding = torch.zeros_like(energies[..., :1], dtype=torch.bool) if real is None else ~real[..., None]
    low = scale.masked_fill(padding, math.inf).amin((1, 2), keepdim=True)
    high = scale.masked_fill(padding, -math.inf).amax((1, 2), keepdim=True)
    shade = ((energies - low) / (high - low).clamp(min=LEAST_RANGE)).clamp(0, 1).masked_fill(padding, 1)
    return (shade * WHITE).round().to(torch.uint8).transpose(1, 2).flip(1)[:, None]
