"""Hide spans of neighbouring tokens: to an exact count, or as wav2vec 2.0 does."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.address import noise
from unmask.errors import ConfigError
from unmask.masking.strategy import MaskStrategy
from unmask.schema import Mask


class SpanMask(MaskStrategy):
    """Spans at random places are hidden one after the other until the count is reached.

    Spans may coincide and overlap, and may hang over both ends, so that a token at an end is covered as often as one
    in the middle. The count is exact: of the last span only some tokens are hidden, at random.

    With `length` 5 this is our form of data2vec 2.0's rule for speech (arXiv 2212.07525), which draws a fixed number
    of spans and mends the count at random.

    Args:
        ratio: hidden tokens over all tokens.
        length: of a span, tokens.

    Raises:
        ConfigError: the length is below one.
    """

    def __init__(self, ratio: float, length: int = 10) -> None:
        super().__init__(ratio)
        self.length = _checked(length)

    def scores(self, seed: int, positions: Tensor, grid: Sequence[int], counts: Tensor | None = None) -> Tensor:
        """(B, N): tokens of the first span score highest."""
        tokens = _tokens("span", grid)
        # Places in the order of independent noise are places drawn with replacement, without the repetitions, which
        # hide nothing new. The first span to cover a token is then the largest noise of the places that reach it.
        # Spans that begin in the padding at the end reach no real token.
        places = noise(seed, "spans", positions, tokens + self.length - 1)
        covered = F.max_pool1d(places[:, None], self.length, stride=1)[:, 0]
        within = noise(seed, "mask", positions, tokens).argsort(dim=1, stable=True)
        order = within.gather(1, covered.gather(1, within).argsort(dim=1, stable=True))
        return order.argsort(dim=1).float()  # ranks, exact in float32


class Wav2vecMask(MaskStrategy):
    """wav2vec 2.0's spans, which data2vec keeps for speech (arXiv 2006.11477, 2202.03555): the count varies.

    Of T tokens `int(p T / length + U(0, 1))` begin a span, at least one, drawn without replacement from the first
    T - length; so spans overlap, and the last token is never hidden (an audit finds this bias). p is no ratio: .65
    hides 49 % of 499 tokens. A row with no more than `length` tokens has one span that leaves out the last.

    fairseq shows tokens again at random until all rows of a batch hide as many, so that a mask would depend on its
    neighbours. Here a row keeps its own count. `hidden` has places for the most that can be, and a row with fewer
    lists a hidden token again, or padding, which does not count. `visible` never holds a hidden token: it has what
    remains in a row with the most hidden, and a row with more to see leaves some out at random. How many depends on
    the longest row of the batch. So encoders that see visible tokens only learn from more of them with `SpanMask`.

    Args:
        ratio: hidden tokens over all tokens, on average over masks of each length.
        length: of a span, tokens.
        probability: p, instead of a ratio; None for the p that gives `ratio`.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(self, ratio: float, length: int = 10, probability: float | None = None) -> None:
        super().__init__(ratio)
        self.length, self.probability = _checked(length), probability
        if probability is not None and probability <= 0:
            raise ConfigError(f"mask.probability={probability} begins no span. Choose a number above 0, such as 0.65.")

    def scores(self, seed: int, positions: Tensor, grid: Sequence[int], counts: Tensor | None = None) -> Tensor:
        """(B, N): 1 in spans, 0 elsewhere."""
        tokens = _tokens("wav2vec", grid)
        index = torch.arange(tokens, device=positions.device)
        if counts is None:
            counts = torch.full_like(positions, tokens)
        length = (counts - 1).clamp(max=self.length)[:, None]
        number = self._starts(tokens).to(counts.device)[counts] + noise(seed, "span count", positions, 1)[:, 0]
        possible = index < counts[:, None] - length
        places = noise(seed, "spans", positions, tokens).masked_fill(~possible, 2.0)
        chosen = places.argsort(dim=1, stable=True).argsort(dim=1) < number.long().clamp(min=1)[:, None]
        begun = F.pad((chosen & possible).cumsum(dim=1), (1, 0))
        return (begun[:, 1:] > begun.gather(1, (index + 1 - length).clamp(min=0))).float()

    def draw(
        self,
        seed: int,
        positions: Tensor,
        grid: Sequence[int],
        counts: Tensor | None = None,
        never_hidden: Tensor | None = None,
    ) -> Mask:
        """One mask for each stream position; arguments as of `MaskStrategy.draw`."""
        hidden = self.scores(seed, positions, grid, counts) > 0
        if never_hidden is not None:
            hidden &= ~never_hidden
        tokens = hidden.shape[1]
        visible = tokens - self._most(tokens)
        rank = noise(seed, "mask", positions, tokens).masked_fill(hidden, 3.0)
        padding = torch.zeros_like(hidden)
        if counts is not None:
            padding = torch.arange(tokens, device=counts.device) >= counts[:, None]
            rank = rank.masked_fill(padding, 2.0)
        order = rank.argsort(dim=1, stable=True)  # to be seen, padding, hidden
        rest = order[:, visible:]
        counted = hidden.gather(1, rest)
        left_out = ~counted & ~padding.gather(1, rest)
        return Mask(order[:, :visible].sort(dim=1).values, torch.where(left_out, order[:, -1:], rest), counted)

    def _starts(self, tokens: int) -> Tensor:
        """(tokens + 1,) float64: how many spans a row of 0, 1, ... tokens begins, before rounding at random."""
        if self.probability is None:
            return starts_for_ratio(self.ratio, self.length, tokens)
        return torch.arange(tokens + 1, dtype=torch.float64) * self.probability / self.length

    def _most(self, tokens: int) -> int:
        """The most that a row of up to so many tokens can hide: all spans apart, and one token left."""
        apart = self._starts(tokens).ceil().clamp(min=1) * self.length
        return int(apart.minimum(torch.arange(tokens + 1) - 1).max())


@cache
def starts_for_ratio(ratio: float, length: int, tokens: int) -> Tensor:
    """(tokens + 1,) float64: how many spans cover the ratio of 0, 1, ... tokens on average, or as near as can be."""
    return torch.tensor([_starts(ratio, min(length, t - 1), t) for t in range(tokens + 1)], dtype=torch.float64)


@cache
def _starts(ratio: float, length: int, tokens: int) -> float:
    """The same of one row. A fraction is rounded up or down at random, so coverage is linear in between."""
    if tokens < 2:
        return 0.0
    covered = 0.0
    for starts, more in enumerate(coverage(length, tokens), start=1):
        if more > ratio:
            return max(1.0, starts - (more - ratio) / (more - covered))
        covered = more
    return float(tokens - length)


def coverage(length: int, tokens: int) -> Iterator[float]:
    """The expected share of tokens in 1, 2, ... spans that begin at different ones of the first `tokens - length`.

    A token that w of the S places reach is missed by n spans with the hypergeometric chance C(S - w, n) / C(S, n).
    """
    places = tokens - length
    reach = Counter(min(t, places - 1) - max(t - length + 1, 0) + 1 for t in range(tokens))
    missed = dict.fromkeys(reach, 1.0)
    for drawn in range(places):
        for ways in missed:
            missed[ways] *= max(0, places - ways - drawn) / (places - drawn)
        yield 1 - sum(reach[ways] * chance for ways, chance in missed.items()) / tokens


def _checked(length: int) -> int:
    if length < 1:
        raise ConfigError(f"mask.length={length} is no span. Choose a whole number of tokens from 1, such as 10.")
    return length


def _tokens(name: str, grid: Sequence[int]) -> int:
    """The tokens of a grid that has one axis, or one longer than a token."""
    if sum(length > 1 for length in grid) > 1:
        raise ConfigError(
            f"mask={name} hides along one axis, and this grid is {' x '.join(map(str, grid))} tokens. Use mask=block."
        )
    return math.prod(grid)
