"""Batches of clips of like length, measured in seconds, from the same addressed stream."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from torch.utils.data import Sampler

from unmask.address import Permutation, address, shuffled_index


class BucketSampler(Sampler[list[int]]):
    """Like `StreamSampler`, but optimiser steps share out their samples by length.

    `window` steps in a row see the same samples as without buckets: step s of window w covers, with the others of its
    window, positions [w window G, (w + 1) window G). These are sorted by length and cut into `window` groups of about
    equal seconds, so a group of short clips holds more of them; the groups are visited in an addressed order. A group
    is then cut, again by seconds, into its micro-batches. Which samples a step sees depends neither on devices nor
    on accumulation, and any step is found without going through those before it.

    Args:
        seconds: length of each sample of the source.
        window: optimiser steps whose samples are sorted together.
        seed: the run's.
        start_step: optimiser steps already done.
        global_batch: G, mean samples an optimiser step over all devices and accumulation.
        parts: micro-batches an optimiser step on all devices together, at most G.
        rank: this device.
        world: devices; divides `parts`.
    """

    def __init__(
        self,
        seconds: np.ndarray,
        window: int,
        seed: int,
        start_step: int,
        global_batch: int,
        parts: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        assert parts % world == 0
        self.seconds, self.seed, self.window, self.start = seconds, seed, window, start_step
        self.global_batch, self.parts, self.rank, self.world = global_batch, parts, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        number, within = divmod(self.start, self.window)
        while True:
            for group in self._groups(number)[within:]:
                yield from cut(group, [self._seconds(p) for p in group], self.parts)[self.rank :: self.world]
            number, within = number + 1, 0

    def _groups(self, number: int) -> list[list[int]]:
        """The positions of each step of a window, in the order of the steps."""
        size = self.window * self.global_batch
        positions = sorted(range(number * size, (number + 1) * size), key=self._seconds)
        groups = cut(positions, [self._seconds(p) for p in positions], self.window, self.parts)
        order = Permutation(self.window, address(self.seed, "buckets", number))
        return [groups[order[step]] for step in range(self.window)]

    def _seconds(self, position: int) -> float:
        return float(self.seconds[shuffled_index(self.seed, position, len(self.seconds))])


def cut(items: Sequence[int], sizes: Sequence[float], parts: int, least: int = 1) -> list[list[int]]:
    """Consecutive parts of about equal total size, each of `least` items or more.

    Args:
        items: at least `parts` x `least`.
        sizes: above zero, one for each item.
        parts: how many.
        least: items in a part.
    """
    assert len(items) >= parts * least
    reached = np.cumsum(sizes)
    wanted = np.searchsorted(reached, reached[-1] * np.arange(1, parts) / parts) + 1
    ends = [0]
    for part, end in enumerate(wanted.tolist(), start=1):
        ends.append(min(max(end, ends[-1] + least), len(items) - (parts - part) * least))
    ends.append(len(items))
    return [list(items[start:end]) for start, end in pairwise(ends)]
