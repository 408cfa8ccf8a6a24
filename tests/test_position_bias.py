"""What is added to attention scores: alibi's distances and BEiT's learned offsets, against loops."""

import math

import pytest
import torch

from tests.conftest import make_batch
from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.masking.random import RandomMask
from unmask.masking.span import SpanMask
from unmask.modality.image import Image
from unmask.modality.speech import Speech
from unmask.nn.block import Style
from unmask.nn.encoder import Encoder
from unmask.nn.position_bias import Alibi, RelativeBias, alibi_slopes
from unmask.schema import Batch


def make_alibi(prefix: int, heads: int) -> Alibi:
    """With factors that differ between heads."""
    alibi = Alibi(prefix, heads)
    with torch.no_grad():
        alibi.scale.copy_(torch.linspace(0.5, 2, heads))
    return alibi


def make_relative(grid: tuple[int, int], prefix: int, heads: int) -> RelativeBias:
    """With a table of different numbers."""
    relative = RelativeBias(grid, prefix, heads)
    with torch.no_grad():
        relative.table.copy_(torch.arange(relative.table.numel()).view(relative.table.shape))
    return relative


# Slopes.


def test_slopes_halve_where_there_are_eight_heads():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]  # arXiv 2108.12409


@pytest.mark.parametrize("heads", [1, 2, 4, 16, 32])
def test_slopes_of_a_power_of_two_are_a_geometric_row_that_starts_at_its_own_ratio(heads: int):
    start = 2 ** (-8 / heads)
    expected = [start]
    for _ in range(heads - 1):
        expected.append(expected[-1] * start)
    assert alibi_slopes(heads).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("heads", [3, 6, 12, 20])
def test_other_numbers_of_heads_fill_up_with_every_second_slope_of_the_next_power(heads: int):
    power = 1
    while power * 2 <= heads:
        power *= 2
    doubled = alibi_slopes(2 * power).tolist()
    expected = alibi_slopes(power).tolist() + [doubled[i] for i in range(0, 2 * power, 2)][: heads - power]
    assert alibi_slopes(heads).tolist() == pytest.approx(expected)


# Alibi.


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("hidden", [False, True])
def test_alibi_is_minus_the_distance_times_slope_and_factor(prefix: int, hidden: bool):
    heads, tokens = 3, 10
    alibi = make_alibi(prefix, heads)
    visible = SpanMask(0.5, length=2).draw(0, torch.arange(2), (tokens,)).visible if hidden else None
    bias = alibi(tokens, visible)
    rows = [list(range(tokens))] if visible is None else visible.tolist()
    assert bias.shape == (len(rows), heads, prefix + len(rows[0]), prefix + len(rows[0]))
    for row, places in enumerate(rows):
        for head in range(heads):
            factor = (alibi.slopes[head] * alibi.scale[head]).item()
            for a in range(prefix + len(places)):
                for b in range(prefix + len(places)):
                    apart = abs(places[a - prefix] - places[b - prefix]) if min(a, b) >= prefix else 0
                    assert bias[row, head, a, b].item() == pytest.approx(-apart * factor, abs=1e-6)


def test_alibis_factor_is_learned_and_never_rewards_distance():
    alibi = Alibi(0, 4)
    alibi(6, None).sum().backward()
    assert (alibi.scale.grad < 0).all()  # a larger factor takes more away
    with torch.no_grad():
        alibi.scale.fill_(-1)
    assert not alibi(6, None).any()


def test_alibi_reaches_the_attention_of_visible_tokens_and_padding_is_not_looked_at():
    torch.manual_seed(0)
    modality = Speech(32, 0.25, conv_width=8, position_layers=1, position_kernel=3, position_groups=4)
    encoder = Encoder(32, 2, 4, style=Style(norm_first=False, position_bias="alibi"))
    backbone = Backbone(modality, encoder, class_token=False)
    batch = Batch(torch.randn(2, 400 + 320 * 10), torch.arange(2), lengths=torch.tensor([3600, 2000]))
    counts = modality.counts(batch)
    mask = SpanMask(0.5, length=2).draw(0, batch.positions, (11,), counts)
    _, bias = backbone.prepare(batch, mask)
    alone = backbone.position_bias(11, mask.visible)
    for row in range(2):
        for slot, place in enumerate(mask.visible[row].tolist()):
            column = bias[row, :, :, slot]
            if place < counts[row]:
                assert torch.equal(column, alone[row, :, :, slot])
            else:
                assert (column == -math.inf).all()
    before = backbone.encode(batch, mask)
    with torch.no_grad():
        backbone.position_bias.scale.zero_()
    assert not torch.allclose(before, backbone.encode(batch, mask), atol=1e-4)


# Learned offsets.


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("hidden", [False, True])
def test_relative_bias_is_a_number_for_each_offset_on_the_grid(prefix: int, hidden: bool):
    grid, heads = (3, 5), 2
    relative = make_relative(grid, prefix, heads)
    visible = RandomMask(0.6).draw(0, torch.arange(3), grid).visible if hidden else None
    bias = relative(15, visible)
    rows = [list(range(15))] if visible is None else visible.tolist()
    assert bias.shape == (len(rows), heads, prefix + len(rows[0]), prefix + len(rows[0]))
    offsets = (2 * 3 - 1) * (2 * 5 - 1)
    for row, places in enumerate(rows):
        for a in range(prefix + len(places)):
            for b in range(prefix + len(places)):
                if a < prefix and b < prefix:
                    entry = offsets + 2
                elif a < prefix:
                    entry = offsets
                elif b < prefix:
                    entry = offsets + 1
                else:
                    (y, x), (v, u) = divmod(places[a - prefix], 5), divmod(places[b - prefix], 5)
                    entry = (y - v + 2) * 9 + (x - u + 4)
                assert torch.equal(bias[row, :, a, b], relative.table[entry])


def test_every_entry_of_the_relative_table_is_used_by_some_pair():
    relative = RelativeBias((3, 4), 1, 2)
    relative(12, None).sum().backward()
    assert (relative.table.grad > 0).all()
    assert not relative.table.any()  # and it starts at zero


def test_relative_bias_reaches_the_attention_of_visible_tokens():
    torch.manual_seed(0)
    image = Image(32, (16, 16), 4, 3, [0.5] * 3, [0.25] * 3, absolute_positions=False)
    backbone = Backbone(image, Encoder(32, 2, 4, style=Style(position_bias="relative")))
    batch = make_batch(2)
    mask = RandomMask(0.5).draw(0, batch.positions, (4, 4))
    before = backbone.encode(batch, mask)
    with torch.no_grad():
        backbone.position_bias.table.normal_()
    _, bias = backbone.prepare(batch, mask)
    assert torch.equal(bias, backbone.position_bias(16, mask.visible))
    assert not torch.allclose(before, backbone.encode(batch, mask), atol=1e-4)


def test_a_line_of_tokens_has_no_relative_bias():
    modality = Speech(32, 0.25, conv_width=8, position_layers=1, position_kernel=3, position_groups=4)
    with pytest.raises(ConfigError, match=r"two axes, and this one has 1\. Use encoder\.position_bias=alibi"):
        Backbone(modality, Encoder(32, 1, 4, style=Style(position_bias="relative")))
