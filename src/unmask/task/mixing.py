"""Samples mixed with others of their batch, and their labels with them: mixup and CutMix."""

import torch
from torch import Tensor
from torch.distributions import Beta


def mixup(inputs: Tensor, shares: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each sample and the one before it, added with weights λ and 1 - λ of Beta(α, α) (arXiv 1710.09412).

    Args:
        inputs: (B, ...).
        shares: (B, C) of the classes.
        alpha: α.

    Returns:
        float32 inputs, and shares.
    """
    kept = float(Beta(alpha, alpha).sample())
    return _add(inputs.float(), kept), _add(shares, kept)


def cutmix(inputs: Tensor, shares: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """A rectangle of the last two axes taken from the sample before (arXiv 1905.04899); arguments as of `mixup`."""
    height, width = inputs.shape[-2:]
    side = (1 - float(Beta(alpha, alpha).sample())) ** 0.5
    tall, wide = round(height * side), round(width * side)
    # Centres are uniform over the picture, and rectangles are cut off at its border.
    y, x = int(torch.randint(height, ())) - tall // 2, int(torch.randint(width, ())) - wide // 2
    rows, columns = slice(max(0, y), max(0, y + tall)), slice(max(0, x), max(0, x + wide))
    mixed = inputs.clone()
    mixed[..., rows, columns] = inputs.roll(1, 0)[..., rows, columns]
    replaced = inputs[0, ..., rows, columns].numel() / inputs[0].numel()
    return mixed, _add(shares, 1 - replaced)


def _add(x: Tensor, kept: float) -> Tensor:
    return x * kept + x.roll(1, 0) * (1 - kept)
