"""Histograms of oriented gradients: what MaskFeat predicts in place of pixels (arXiv 2112.09133)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.masking.select import gather
from unmask.nn.patch import patchify

BINS = 9


def cells_per_side(patch: int) -> int:
    """A patch holds 2 x 2 cells (at 16 pixels MaskFeat's, of 8), or is one cell where its side is odd."""
    return 2 if patch % 2 == 0 else 1


def hog_size(patch: int, channels: int, bins: int = BINS) -> int:
    """Values of one patch: 108 at 16 pixels in colour."""
    return int(cells_per_side(patch) ** 2 * channels * bins)


def hog(images: Tensor, patch: int, wanted: Tensor, bins: int = BINS) -> Tensor:
    """(B, K, cells · C · bins): each cell's gradients by direction, in the order cell row, cell column, channel, bin.

    A pixel's gradient is the difference of its two neighbours along each axis, the image mirrored at its border. Its
    length counts for the one bin that its direction falls into; a gradient and its opposite are the same direction.
    The bins of a cell and channel are divided by their L2 norm, so neither the scale nor the mean of a channel
    matters, and a flat cell is zero. (MaskFeat's released code averages a gradient over three rows and weighs pixels
    by a Gaussian.)

    Args:
        images: (B, C, H, W) float32, sides of at least two pixels.
        patch: pixels, divides both sides.
        wanted: (B, K) int64 row-major indices of the patches to describe.
        bins: directions that half a turn is cut into.
    """
    channels, cells = images.shape[1], cells_per_side(patch)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    right = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    direction = (torch.atan2(down, right) / math.pi * bins).floor().long() % bins
    # Only now cut down to what is wanted: the histograms are many times larger than the image.
    direction, length = (gather(patchify(x, patch), wanted) for x in (direction, torch.hypot(right, down)))
    cell = torch.arange(patch, device=images.device) * cells // patch
    channel = torch.arange(channels, device=images.device)
    row = ((cell[:, None] * cells + cell)[..., None] * channels + channel).flatten()
    histograms = length.new_zeros(*wanted.shape, cells**2 * channels * bins)
    histograms.scatter_add_(2, row * bins + direction, length)
    return F.normalize(histograms.view(*wanted.shape, -1, bins), dim=-1).flatten(2)
