"""Random tokens whose count is rounded at random (BERT, arXiv 1810.04805, as counted by RoBERTa, arXiv 1907.11692)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unmask.address import noise
from unmask.masking.random import RandomMask
from unmask.masking.select import ROUNDING, clamped_visible
from unmask.schema import Mask


class BertMask(RandomMask):
    """Of n tokens `int(ratio n + U(0, 1))` are hidden, at least one: the mean over rows is the ratio itself.

    A row that hides one fewer than others lists its first hidden token again, which does not count. Encoders that see
    the visible tokens only do not see the one that was left over.
    """

    def draw(
        self,
        seed: int,
        positions: Tensor,
        grid: Sequence[int],
        counts: Tensor | None = None,
        never_hidden: Tensor | None = None,
    ) -> Mask:
        """One mask for each stream position; arguments as of `MaskStrategy.draw`."""
        scores = self.scores(seed, positions, grid, counts)
        tokens = scores.shape[1]
        index = torch.arange(tokens, device=scores.device)
        if counts is None:
            counts = torch.full_like(positions, tokens)
        padding = index >= counts[:, None]
        spared = padding if never_hidden is None else padding | never_hidden
        most = tokens - clamped_visible(tokens, self.ratio)
        wanted = counts * self.ratio + noise(seed, "bert", positions, 1)[:, 0].double() + ROUNDING
        least_shown = torch.maximum((~padding & spared).sum(1), torch.ones_like(counts))
        number = wanted.floor().long().clamp(1, most).minimum(counts - least_shown)
        order = scores.masked_fill(spared, -math.inf).argsort(dim=1, descending=True, stable=True)
        slot = index[:most] < number[:, None]
        hidden, arrangement = torch.where(slot, order[:, :most], order[:, :1]).sort(dim=1, stable=True)
        # Shown are, up to the count that all rows share: what is not hidden, the lowest scores first, then padding.
        rank = order.argsort(dim=1)
        group = (rank < number[:, None]) * 2 + padding
        visible = (group * tokens - rank).argsort(dim=1)[:, : tokens - most].sort(dim=1).values
        return Mask(visible, hidden, counted=slot.gather(1, arrangement))
