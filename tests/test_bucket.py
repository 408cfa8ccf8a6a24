"""Batches by length: the same samples, little padding, any step found at once."""

from itertools import islice

import numpy as np
import pytest

from unmask.address import shuffled_index
from unmask.data.bucket import BucketSampler, cut

SECONDS = np.random.default_rng(0).gamma(4, 2, size=500)


def steps(
    count: int, start: int = 0, parts: int = 1, rank: int = 0, world: int = 1, batch: int = 20
) -> list[list[int]]:
    sampler = BucketSampler(SECONDS, 4, 3, start, batch, parts, rank, world)
    return list(islice(iter(sampler), count * parts // world))


def test_a_window_of_steps_sees_what_the_stream_has_there():
    for window in range(3):
        positions = sorted(p for step in steps(4, start=4 * window) for p in step)
        assert positions == list(range(80 * window, 80 * (window + 1)))


@pytest.mark.parametrize("start", [1, 3, 4, 6, 9])
def test_any_step_is_what_it_is_when_those_before_it_were_drawn(start: int):
    assert steps(5, start=start) == steps(5 + start)[start:]


def test_steps_are_equal_in_seconds_and_alike_in_length():
    def seconds(step: list[int]) -> np.ndarray:
        return SECONDS[[shuffled_index(3, p, len(SECONDS)) for p in step]]

    drawn = [seconds(step) for step in steps(40)]
    totals = np.array([x.sum() for x in drawn])
    padded = sum(len(x) * x.max() for x in drawn)
    in_stream_order = seconds(list(range(800))).reshape(40, 20)
    assert totals.std() < 0.15 * totals.mean()
    assert len({len(x) for x in drawn}) > 3  # more of the short ones
    assert padded / totals.sum() < 1.45
    assert (in_stream_order.max(1) * 20).sum() / totals.sum() > 1.8


def test_accumulation_and_ranks_share_the_samples_of_a_step():
    whole = steps(6)
    for parts, world in ((2, 1), (4, 1), (4, 2)):
        ranks = [steps(6, parts=parts, rank=rank, world=world) for rank in range(world)]
        per_step = parts // world
        for step, positions in enumerate(whole):
            seen = [p for rank in ranks for micro in rank[step * per_step : (step + 1) * per_step] for p in micro]
            assert sorted(seen) == sorted(positions)


def test_the_order_of_lengths_is_not_the_order_of_steps():
    longest = [max(SECONDS[shuffled_index(3, p, len(SECONDS))] for p in step) for step in steps(4)]
    assert longest != sorted(longest)


def test_a_giant_leaves_every_part_its_share():
    assert cut("abcdef", [1, 1, 1, 1, 1, 100], 3) == [list("abcd"), ["e"], ["f"]]
    assert cut("abcdef", [100, 1, 1, 1, 1, 1], 3) == [["a"], ["b"], list("cdef")]
    assert cut("abcdef", [100, 1, 1, 1, 1, 1], 2, least=2) == [["a", "b"], list("cdef")]
