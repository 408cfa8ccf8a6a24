"""Masks along whole axes: tubes, frames, times, bands."""

import pytest
import torch

from unmask.errors import ConfigError
from unmask.masking.audit import as_grid, audit
from unmask.masking.axes import AxisMask
from unmask.masking.block import BlockMask, InverseBlockMask
from unmask.masking.kept_squares import KeptSquaresMask

POSITIONS = torch.arange(50)


def drawn(mask: AxisMask, grid: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return as_grid(mask.draw(seed, POSITIONS, grid), grid)


def test_tube_hides_the_same_patches_in_every_frame():
    hidden = drawn(AxisMask(0.9, [[1, 2]]), (8, 14, 14))
    assert (hidden == hidden[:, :1]).all()
    assert (hidden.flatten(2).sum(2) == 196 - 19).all()
    assert not (hidden[0] == hidden[1]).all()


def test_videomaes_ratio_leaves_160_of_1568_tokens_visible():
    assert AxisMask(176 / 196, [[1, 2]]).num_visible((8, 14, 14)) == 160


def test_frame_hides_frames_whole():
    hidden = drawn(AxisMask(0.75, [[0]]), (8, 4, 4))
    assert ((hidden.flatten(2).sum(2) == 0) | (hidden.flatten(2).sum(2) == 16)).all()
    assert (hidden[:, :, 0, 0].sum(1) == 6).all()


def test_times_and_frequencies_are_hidden_from_end_to_end():
    hidden = drawn(AxisMask(0.75, [[0], [1]]), (64, 8))
    times, bands = hidden.all(dim=2), hidden.all(dim=1)
    assert torch.equal(hidden, times[:, :, None] | bands[:, None, :])
    assert (times.sum(1) == 32).all()
    assert (bands.sum(1) == 4).all()
    assert not torch.equal(times[:, :8], bands)  # drawn apart


def test_every_token_is_hidden_equally_often():
    for mask in (AxisMask(0.5, [[1, 2]]), AxisMask(0.5, [[0]]), AxisMask(0.5, [[0], [2]])):
        assert audit(mask, (4, 4, 6), seed=3, count=4000).bias is None


@pytest.mark.parametrize(
    ("axes", "grid", "words"),
    [
        ([], (8, 8), "different axes"),
        ([[]], (8, 8), "different axes"),
        ([[0], [0]], (8, 8), "different axes"),
        ([[-1]], (8, 8), "different axes"),
        ([[1, 2]], (8, 8), "names axis 2, and the grid has 2"),
        ([[1]], (64, 1), "keeps 0 of 1"),
    ],
)
def test_axes_that_a_grid_has_not_say_so(axes: list, grid: tuple[int, ...], words: str):
    with pytest.raises(ConfigError, match=words):
        AxisMask(0.5, axes).draw(0, POSITIONS, grid)


@pytest.mark.parametrize("mask", [BlockMask(0.6), InverseBlockMask(0.6), KeptSquaresMask(0.6, 3, 0.1)])
def test_blocks_of_a_video_are_the_same_in_every_frame(mask):
    hidden = drawn(mask, (4, 8, 8))
    assert (hidden == hidden[:, :1]).all()
    assert torch.equal(hidden[:, 0], drawn(mask, (8, 8)))
