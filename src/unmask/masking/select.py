"""From scores to a mask of exact size, and from tokens to those of a mask."""

import math

import torch
from torch import Tensor

from unmask.errors import ConfigError
from unmask.schema import Mask

ROUNDING = 1e-6  # in floating point int(160 * (1 - 0.9)) is 15


def num_visible(tokens: int, ratio: float) -> int:
    """Visible tokens at a ratio of hidden ones: `floor(n * (1 - ratio) + 1e-6)`.

    Raises:
        ConfigError: a side would be left without a token.
    """
    visible = _rounded(tokens, ratio)
    if not 0 < visible < tokens:
        raise ConfigError(
            f"mask.ratio={ratio} keeps {visible} of {tokens} tokens, and both sides need at least one. "
            f"Choose a ratio from {math.ceil(1e4 / tokens) / 1e4:.4f} to {math.floor(1e4 - 1e4 / tokens) / 1e4:.4f}, "
            "or samples of more tokens."
        )
    return visible


def clamped_visible(tokens: int, ratio: float) -> int:
    """The same for one of samples of different lengths: at least one token stays visible, however few there are."""
    return max(1, _rounded(tokens, ratio))


def _rounded(tokens: int, ratio: float) -> int:
    return math.floor(tokens * (1 - ratio) + ROUNDING)


def hide_top(scores: Tensor, visible: int) -> Mask:
    """Hide the tokens with the highest scores so that `visible` remain; ties fall to the earlier token.

    Args:
        scores: (B, N) float.
        visible: tokens left visible in every row.
    """
    order = scores.argsort(dim=1, stable=True)
    return Mask(order[:, :visible].sort(dim=1).values, order[:, visible:].sort(dim=1).values)


def hide_top_padded(scores: Tensor, ratio: float, counts: Tensor) -> Mask:
    """The same where row i has only `counts[i]` real tokens, the first ones: each row keeps its own exact ratio.

    A row hides at most all but one of its tokens. Padding tokens fill both sides up to the size that the longest
    possible row needs, and do not count.

    Args:
        scores: (B, N) float.
        ratio: hidden tokens over all tokens of a row.
        counts: (B,) int64, at least 1.
    """
    tokens = scores.shape[1]
    index = torch.arange(tokens, device=scores.device)
    padding = index >= counts[:, None]
    most = clamped_visible(tokens, ratio)
    visible = (counts.double() * (1 - ratio) + ROUNDING).floor().long().clamp(min=1)
    rank = scores.masked_fill(padding, math.inf).argsort(dim=1, stable=True).argsort(dim=1)
    # (most - visible) padding tokens always exist: one token more never makes more than one more visible.
    fills = index - counts[:, None] < (most - visible)[:, None]
    shown = torch.where(padding, fills, rank < visible[:, None])
    order = (~shown).to(torch.int8).argsort(dim=1, stable=True)
    hidden = order[:, most:]
    return Mask(order[:, :most], hidden, counted=~padding.gather(1, hidden))


def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """Rows of `tokens` (B, N, D) at `index` (B, K): (B, K, D).

    An index of (B M, K) takes M times from each sample, M rows in a row: (B M, K, D).
    """
    # One flat index_select: its backward is a plain add of rows, where torch.gather scatters single numbers.
    batch, count, width = tokens.shape
    sample = torch.arange(len(index), device=index.device)[:, None] // (len(index) // batch)
    rows = (index + sample * count).flatten()
    return tokens.reshape(batch * count, width).index_select(0, rows).view(len(index), -1, width)
