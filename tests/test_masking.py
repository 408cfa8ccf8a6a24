"""Masks: exact counts, reproducible, uniform or in blocks."""

import math

import pytest
import torch

from unmask.errors import ConfigError
from unmask.masking.audit import audit
from unmask.masking.block import BlockMask, InverseBlockMask
from unmask.masking.random import RandomMask
from unmask.masking.select import gather, hide_top, num_visible
from unmask.masking.strategy import MaskStrategy

STRATEGIES = [RandomMask, BlockMask, InverseBlockMask]


@pytest.mark.parametrize(
    ("tokens", "kept"),
    # `int(L * (1 - r))` of the papers' code at ratios .15 .75 .80 .90 .95
    [(196, (166, 49, 39, 19, 9)), (256, (217, 64, 51, 25, 12)), (512, (435, 128, 102, 51, 25)),
     (1568, (1332, 392, 313, 156, 78))],
)  # fmt: skip
def test_as_many_tokens_stay_as_in_the_papers(tokens: int, kept: tuple[int, ...]):
    assert tuple(num_visible(tokens, ratio) for ratio in (0.15, 0.75, 0.80, 0.90, 0.95)) == kept


def test_rounding_does_not_lose_a_token_to_floating_point():
    assert int(160 * (1 - 0.9)) == 15
    assert num_visible(160, 0.9) == 16


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("grid", [(4, 4), (14, 14), (6, 10)])
def test_counts_are_exact_at_every_ratio_that_leaves_both_sides_a_token(strategy: type[MaskStrategy], grid):
    tokens = math.prod(grid)
    for hidden in range(1, tokens):
        ratio = hidden / tokens
        mask = strategy(ratio).draw(0, torch.arange(3), grid)
        assert mask.hidden.shape == (3, hidden)
        together = torch.cat([mask.visible, mask.hidden], dim=1).sort(dim=1).values
        assert torch.equal(together, torch.arange(tokens).expand(3, -1))


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5])
def test_a_ratio_outside_of_zero_and_one_is_refused(ratio: float):
    with pytest.raises(ConfigError, match=r"mask\.ratio"):
        RandomMask(ratio)


def test_a_ratio_that_leaves_no_token_is_refused_with_the_possible_range():
    with pytest.raises(ConfigError, match=r"keeps 0 of 16 tokens.*0\.0625 to 0\.9375"):
        num_visible(16, 0.99)
    with pytest.raises(ConfigError, match="keeps 16 of 16"):
        num_visible(16, 1e-9)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_mask_is_a_function_of_seed_and_position(strategy: type[MaskStrategy]):
    draw = strategy(0.75).draw
    whole = draw(7, torch.arange(64), (14, 14))
    part = draw(7, torch.arange(20, 30), (14, 14))
    assert torch.equal(whole.hidden[20:30], part.hidden)
    assert not torch.equal(whole.hidden, draw(8, torch.arange(64), (14, 14)).hidden)
    assert not torch.equal(whole.hidden[0], whole.hidden[1])


def test_random_masks_hide_every_position_equally_often():
    count, ratio = 20_000, 0.75
    mask = RandomMask(ratio).draw(3, torch.arange(count), (7, 7))
    hidden = torch.bincount(mask.hidden.flatten(), minlength=49).double()
    share = mask.hidden.shape[1] / 49
    # Counts are negatively correlated (their sum is fixed), which n - 1 over n sets right.
    chi_square = ((hidden - count * share) ** 2 / (count * share * (1 - share))).sum().item() * 48 / 49
    assert chi_square < 85  # 48 degrees of freedom: 0.1 % beyond 84


def test_a_random_mask_tells_nothing_about_its_neighbour():
    result = audit(RandomMask(0.75), (14, 14), seed=0)
    assert result.bias is None
    assert result.together == pytest.approx(146 / 195, abs=0.003)  # without replacement


@pytest.mark.parametrize("strategy", [BlockMask, InverseBlockMask])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.75])
def test_block_masks_keep_neighbours_together(strategy: type[MaskStrategy], ratio: float):
    result = audit(strategy(ratio), (14, 14), seed=0, count=2000)
    assert result.together > ratio + 0.6 * (1 - ratio) * 0.5
    independent = audit(RandomMask(ratio), (14, 14), seed=0, count=2000)
    assert result.hidden_run > 1.5 * independent.hidden_run
    assert result.visible_run > 1.5 * independent.visible_run
    assert result.bias is None


def test_a_single_block_is_one_whole_rectangle():
    strategy = BlockMask(0.25, block_size=0.25, aspect=1.0)
    mask = strategy.draw(0, torch.arange(200), (8, 8))
    whole = 0
    for hidden in mask.hidden:
        rows, columns = hidden // 8, hidden % 8
        whole += (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1) == 16
    assert whole > 20  # those that do not hang over the border


def test_the_audit_finds_a_strategy_that_prefers_a_side():
    class Leaning(RandomMask):
        def scores(self, seed, positions, grid, counts=None):
            return super().scores(seed, positions, grid) + torch.linspace(0, 0.05, math.prod(grid))

    class LeaningBlock(Leaning):
        uniform = False

    assert "more or less often" in str(audit(Leaning(0.75), (8, 8), seed=0).bias)
    assert "mirror" in str(audit(LeaningBlock(0.75), (8, 8), seed=0).bias)


def test_blocks_need_a_picture():
    with pytest.raises(ConfigError, match="one axis"):
        BlockMask(0.5).draw(0, torch.arange(1), (100,))
    with pytest.raises(ConfigError, match=r"mask\.aspect=0"):
        BlockMask(0.5, aspect=0)


def test_ties_fall_to_the_earlier_token_and_the_count_stays():
    mask = hide_top(torch.zeros(2, 6), visible=4)
    assert mask.visible.tolist() == [[0, 1, 2, 3]] * 2
    assert float(mask.fraction()) == pytest.approx(2 / 6)


def test_gather_is_what_a_loop_would_do():
    mask = RandomMask(0.5).draw(0, torch.arange(3), (4, 4))
    tokens = torch.randn(3, 16, 5)
    visible = gather(tokens, mask.visible)
    for row in range(3):
        for slot, token in enumerate(mask.visible[row]):
            assert torch.equal(visible[row, slot], tokens[row, token])


def test_a_sample_of_few_tokens_keeps_one_whatever_its_batch():
    alone = RandomMask(0.95).draw(0, torch.tensor([7]), (14,))
    beside_a_longer_one = RandomMask(0.95).draw(0, torch.tensor([7, 8]), (40,), torch.tensor([14, 40]))
    assert alone.visible.shape == (1, 1)
    assert beside_a_longer_one.counted is not None
    assert torch.equal(beside_a_longer_one.hidden[0][beside_a_longer_one.counted[0]], alone.hidden[0])
