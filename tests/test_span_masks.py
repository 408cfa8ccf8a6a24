"""Spans: exact counts, wav2vec 2.0's rule, rows of different length."""

import math
import random
from collections import Counter

import pytest
import torch

from unmask.address import noise
from unmask.errors import ConfigError
from unmask.masking.audit import as_grid, audit
from unmask.masking.block import BlockMask
from unmask.masking.random import RandomMask
from unmask.masking.span import SpanMask, Wav2vecMask, coverage, starts_for_ratio
from unmask.objective.data2vec import regression
from unmask.schema import Mask

COUNTS = torch.tensor([49, 1, 2, 5, 10, 11, 12, 24, 48, 49])


def share(mask: Mask, tokens: int) -> torch.Tensor:
    """(B,) hidden tokens over all."""
    return as_grid(mask, (tokens,)).float().mean(1)


@pytest.mark.parametrize("length", [1, 4, 10, 60])
@pytest.mark.parametrize("ratio", [0.15, 0.5, 0.75, 0.95])
def test_spans_are_hidden_one_after_the_other_until_the_count_is_reached(ratio: float, length: int):
    tokens = 49
    positions = torch.arange(50)
    mask = SpanMask(ratio, length).draw(3, positions, (tokens,))
    hidden_count = tokens - math.floor(tokens * (1 - ratio) + 1e-6)
    assert mask.hidden.shape == (50, hidden_count)
    places = noise(3, "spans", positions, tokens + length - 1)
    for row in range(50):
        hidden: set[int] = set()
        for place in places[row].argsort(descending=True).tolist():
            start = place - (length - 1)  # the first places hang over the beginning
            span = {t for t in range(start, start + length) if 0 <= t < tokens} - hidden
            if len(hidden) + len(span) >= hidden_count:
                break
            hidden |= span
        drawn = set(mask.hidden[row].tolist())
        assert hidden < drawn
        assert drawn - hidden <= span  # the last span is ragged


def test_spans_are_as_if_drawn_with_replacement():
    tokens, length, ratio = 49, 6, 0.5
    rng = random.Random(0)
    runs, edge, count = 0, 0, 4000
    for _ in range(count):
        hidden: set[int] = set()
        while True:
            start = rng.randrange(-(length - 1), tokens)
            span = [t for t in range(start, start + length) if 0 <= t < tokens and t not in hidden]
            if len(hidden) + len(span) >= 25:
                hidden |= set(rng.sample(span, 25 - len(hidden)))
                break
            hidden |= set(span)
        runs += sum(t in hidden and t - 1 not in hidden for t in range(tokens))
        edge += (0 in hidden) + (tokens - 1 in hidden)
    result = audit(SpanMask(ratio, length), (tokens,), seed=0, count=count)
    assert 25 / result.hidden_run == pytest.approx(runs / count, rel=0.02)
    ends = (result.coverage[0] + result.coverage[-1]).item()
    assert ends == pytest.approx(edge / count, abs=0.04)


@pytest.mark.parametrize("length", [5, 10])
@pytest.mark.parametrize("ratio", [0.15, 0.5, 0.75])
def test_spans_keep_neighbours_together_and_treat_both_ends_alike(ratio: float, length: int):
    result = audit(SpanMask(ratio, length), (99,), seed=1, count=4000)
    independent = audit(RandomMask(ratio), (99,), seed=1, count=2000)
    assert result.hidden_run > 2 * independent.hidden_run
    assert result.bias is None
    assert result.coverage.max() - result.coverage.min() < 0.05


# p .65 begins .65 * 499 / 10 spans, which hide .491 with deviation .029; p .8 57 %, p .5 40 %.
@pytest.mark.parametrize(("p", "mean", "std"), [(0.65, 0.491, 0.029), (0.8, 0.567, 0.031), (0.5, 0.403, 0.025)])
def test_the_wav2vec_rule_hides_as_much_as_in_the_papers(p: float, mean: float, std: float):
    hidden = share(Wav2vecMask(0.5, 10, p).draw(0, torch.arange(5000), (499,)), 499)
    assert hidden.mean().item() == pytest.approx(mean, abs=0.0015)
    assert hidden.std().item() == pytest.approx(std, abs=0.0015)


@pytest.mark.parametrize("p", [0.05, 0.65, 3.0])
def test_the_wav2vec_rule_is_what_a_loop_would_do(p: float):
    length, positions = 10, torch.arange(60)
    counts = COUNTS.repeat(6)
    tokens = int(counts.max())
    mask = Wav2vecMask(0.5, length, p).draw(5, positions, (tokens,), counts)
    extra, places = noise(5, "span count", positions, 1), noise(5, "spans", positions, tokens)
    hidden = 0
    for row, count in enumerate(counts.tolist()):
        own = min(length, count - 1)
        begins = max(1, int(p * count / length + extra[row, 0].item()))
        starts = places[row, : count - own].argsort()[:begins].tolist() if own else []
        expected = {start + offset for start in starts for offset in range(own)}
        assert set(mask.hidden[row][mask.counted[row]].tolist()) == expected
        assert count - 1 not in expected
        hidden += len(expected)
    assert float(mask.fraction(counts.sum())) == pytest.approx(hidden / int(counts.sum()))


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.75, 0.95])
@pytest.mark.parametrize("tokens", [49, 249])
def test_the_wav2vec_rule_meets_a_ratio_on_average(ratio: float, tokens: int):
    hidden = share(Wav2vecMask(ratio).draw(0, torch.arange(2500), (tokens,)), tokens)
    assert hidden.mean().item() == pytest.approx(ratio, abs=4 * hidden.std().item() / 50)


def test_the_ratio_of_the_paper_is_its_probability():
    assert starts_for_ratio(0.491, 10, 499)[499].item() * 10 / 499 == pytest.approx(0.65, abs=0.002)


@pytest.mark.parametrize(("length", "tokens"), [(10, 49), (3, 12), (9, 10)])
def test_coverage_is_hypergeometric(length: int, tokens: int):
    places = tokens - length
    for starts, covered in enumerate(coverage(length, tokens), start=1):
        missed = 0.0
        for token in range(tokens):
            ways = sum(start <= token < start + length for start in range(places))
            missed += math.comb(places - ways, starts) / math.comb(places, starts)
        assert covered == pytest.approx(1 - missed / tokens, abs=1e-9)
    assert starts == places


@pytest.mark.parametrize("strategy", [SpanMask(0.5), SpanMask(0.95, 3), Wav2vecMask(0.5), Wav2vecMask(0.9, 5, 0.7)])
def test_padding_is_never_to_be_predicted_and_changes_no_mask(strategy):
    positions = torch.arange(len(COUNTS))
    mask = strategy.draw(1, positions, (49,), COUNTS)
    hidden = as_grid(mask, (49,))
    for row, count in enumerate(COUNTS.tolist()):
        counting = mask.hidden[row][mask.counted[row]].tolist()
        assert max(Counter(counting).values(), default=1) == 1  # no token counts twice
        assert set(counting) == set(hidden[row, :count].nonzero().flatten().tolist())
        assert max(counting, default=0) < count
        visible = set(mask.visible[row].tolist())
        assert not visible & set(counting)
        assert min(visible) < count  # something to see
        elsewhere = strategy.draw(1, positions[row : row + 1], (count + 30,), COUNTS[row : row + 1])
        assert torch.equal(as_grid(elsewhere, (count + 30,))[0, :count], hidden[row, :count])


def test_places_that_do_not_count_take_no_part_in_the_loss():
    mask = Wav2vecMask(0.5, 10, 0.65).draw(0, torch.arange(8), (99,))
    error = regression(torch.randn(8, mask.hidden.shape[1], 4), torch.zeros(()), 0)
    loop = [error[row, slot].mean() for row in range(8) for slot in range(error.shape[1]) if mask.counted[row, slot]]
    assert not mask.counted.all()
    torch.testing.assert_close(mask.mean(error), torch.stack(loop).mean())


def test_what_a_row_of_many_visible_tokens_leaves_out_is_from_anywhere():
    mask = Wav2vecMask(0.5, 10, 0.65).draw(0, torch.arange(10_000), (99,))
    seen = torch.zeros(10_000, 99).scatter_(1, mask.visible, 1.0)
    hidden = as_grid(mask, (99,))
    assert not (seen.bool() & hidden).any()
    middle = slice(20, 80)
    kept = seen[:, middle].sum(0) / (~hidden[:, middle]).sum(0)  # of those not hidden
    assert kept.min() > 0.9 * kept.max()


def test_no_token_is_hidden_that_must_not_be():
    spared = torch.zeros(4, 49, dtype=torch.bool)
    spared[:, :8] = True
    mask = Wav2vecMask(0.9).draw(0, torch.arange(4), (49,), None, spared)
    free = Wav2vecMask(0.9).draw(0, torch.arange(4), (49,))
    assert not as_grid(mask, (49,))[:, :8].any()
    assert torch.equal(as_grid(mask, (49,))[:, 8:], as_grid(free, (49,))[:, 8:])


def test_a_grid_of_one_row_or_column_is_one_axis():
    positions, strategy = torch.arange(3), SpanMask(0.5, 4)
    expected = strategy.draw(1, positions, (32,))
    for grid in ((32, 1), (1, 32), (1, 32, 1)):
        mask = strategy.draw(1, positions, grid)
        assert torch.equal(mask.hidden, expected.hidden)


@pytest.mark.parametrize("strategy", [SpanMask(0.5), Wav2vecMask(0.5), Wav2vecMask(0.5, probability=0.65)])
def test_a_span_mask_is_a_function_of_seed_and_position(strategy):
    whole = as_grid(strategy.draw(7, torch.arange(64), (49,)), (49,))
    part = as_grid(strategy.draw(7, torch.arange(20, 30), (49,)), (49,))
    assert torch.equal(whole[20:30], part)
    assert not torch.equal(whole, as_grid(strategy.draw(8, torch.arange(64), (49,)), (49,)))


def test_each_mask_names_the_one_for_the_other_kind_of_grid():
    with pytest.raises(ConfigError, match=r"mask=span hides along one axis, and this grid is .*Use mask=block\."):
        SpanMask(0.5).draw(0, torch.arange(1), (7, 7))
    with pytest.raises(ConfigError, match=r"mask=wav2vec hides along one axis, and this grid is .*Use mask=block\."):
        Wav2vecMask(0.5).draw(0, torch.arange(1), (7, 7))
    with pytest.raises(ConfigError, match=r"Use mask=span\."):
        BlockMask(0.5).draw(0, torch.arange(1), (49,))
    with pytest.raises(ConfigError, match=r"mask\.length=0"):
        SpanMask(0.5, length=0)
    with pytest.raises(ConfigError, match=r"mask\.probability=-1"):
        Wav2vecMask(0.5, probability=-1)
