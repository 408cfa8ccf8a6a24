"""Look at ten thousand masks before training on millions: realised ratio, coverage, how tokens keep together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unmask.masking.strategy import MaskStrategy
from unmask.schema import Mask

CELL = 24  # pixels of a token in a picture


@dataclass(frozen=True)
class MaskAudit:
    """What a sample of masks looks like.

    Attributes:
        ratio: (least, mean, most) hidden fraction of a mask.
        coverage: grid-shaped share of masks that hide each token.
        together: chance that the right or lower neighbour of a hidden token is hidden too; `ratio` if independent.
        hidden_run: mean length, in tokens, of unbroken hidden runs along the last axis of the grid.
        visible_run: the same of visible tokens.
        bias: why the masks are not what they claim to be, or None.
    """

    ratio: tuple[float, float, float]
    coverage: Tensor
    together: float
    hidden_run: float
    visible_run: float
    bias: str | None


def audit(strategy: MaskStrategy, grid: Sequence[int], seed: int, count: int = 10_000) -> MaskAudit:
    """Draw `count` masks of a strategy on a grid and judge them."""
    drawn = [
        as_grid(strategy.draw(seed, torch.arange(start, min(start + 500, count)), grid), grid)
        for start in range(0, count, 500)
    ]
    hidden = torch.cat(drawn)
    fractions = hidden.flatten(1).float().mean(1)
    coverage = hidden.float().mean(0)
    pairs = [(hidden.narrow(d, 0, n - 1), hidden.narrow(d, 1, n - 1)) for d, n in enumerate(hidden.shape[1:], start=1)]
    both = sum((a & b).sum().item() for a, b in pairs)
    first = sum(a.sum().item() for a, _ in pairs)
    return MaskAudit(
        ratio=(fractions.min().item(), fractions.mean().item(), fractions.max().item()),
        coverage=coverage,
        together=both / max(first, 1),
        hidden_run=_run_length(hidden),
        visible_run=_run_length(~hidden),
        bias=_bias(coverage, count, strategy.uniform),
    )


def coverage_picture(coverage: Tensor) -> np.ndarray:
    """(height, width) uint8 of a grid's coverage, white where always hidden; of three axes the first goes down too."""
    shade = (coverage.reshape(-1, coverage.shape[-1]) * 255).round().to(torch.uint8)
    return shade.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1).numpy()


def as_grid(mask: Mask, grid: Sequence[int]) -> Tensor:
    """(B, *grid) bool, true at hidden tokens."""
    flat = torch.zeros(len(mask.hidden), math.prod(grid), dtype=torch.bool)
    return flat.scatter_(1, mask.hidden, True).view(-1, *grid)


def _run_length(members: Tensor) -> float:
    """Mean length of unbroken runs of true values along the last axis."""
    starts = members.clone()
    starts[..., 1:] &= ~members[..., :-1]
    return members.sum().item() / max(starts.sum().item(), 1)


def _bias(coverage: Tensor, count: int, uniform: bool) -> str | None:
    """Compare coverage with what it must be; five standard errors, so one audit in ten thousand grids errs.

    A uniform strategy hides every token equally often. Any other may treat the border differently,
    but must not prefer a side: its coverage has to equal its own mirror images.
    """
    mean = coverage.mean()
    error = (mean * (1 - mean) / count).sqrt().item()
    if uniform:
        worst = (coverage - mean).abs().max().item()
        if worst > 5 * error:
            return f"a token is hidden {worst:.4f} more or less often than the mean, over {5 * error:.4f}"
        return None
    for axis in range(coverage.ndim):
        worst = (coverage - coverage.flip(axis)).abs().max().item()
        if worst > 5 * math.sqrt(2) * error:
            return f"coverage differs by {worst:.4f} from its mirror image along axis {axis}"
    return None
