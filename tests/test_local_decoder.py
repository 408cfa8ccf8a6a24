"""Windows of the local decoder, against torchvision's Swin and against a mask over all tokens."""

import pytest
import torch
from torchvision.models.swin_transformer import shifted_window_attention

from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.masking.random import RandomMask
from unmask.modality.audio import Audio
from unmask.nn.block import Block
from unmask.nn.encoder import Encoder
from unmask.nn.local_decoder import from_windows, same_region, to_windows
from unmask.nn.position_bias import RelativeBias
from unmask.objective.mae import MAE
from unmask.schema import Batch

GRID, WINDOW, WIDTH, HEADS = (8, 8), (4, 4), 32, 4


@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (2, 2), (1, 3)])
def test_attention_in_windows_equals_torchvisions(shift: tuple[int, int]):
    torch.manual_seed(0)
    attention, bias = Block(WIDTH, HEADS).attn, RelativeBias(WINDOW, 0, HEADS)
    torch.nn.init.normal_(bias.table)
    torch.nn.init.normal_(attention.qkv.bias)
    x = torch.randn(3, 64, WIDTH, requires_grad=True)
    table = bias(16, None)
    allowed = table.masked_fill(~same_region(GRID, WINDOW, shift, x.device)[:, None], float("-inf"))
    windows = to_windows(x, GRID, WINDOW, shift)
    ours = from_windows(attention(windows, bias=allowed.repeat(3, 1, 1, 1)), GRID, WINDOW, shift)
    theirs = shifted_window_attention(
        x.view(3, 8, 8, WIDTH), attention.qkv.weight, attention.proj.weight, table, list(WINDOW), HEADS, list(shift),
        qkv_bias=attention.qkv.bias, proj_bias=attention.proj.bias,
    )  # fmt: skip
    assert torch.allclose(ours, theirs.flatten(1, 2), atol=1e-5)
    weight = torch.randn_like(ours)
    inputs = (x, attention.qkv.weight, bias.table)
    mine = torch.autograd.grad((ours * weight).sum(), inputs, retain_graph=True)
    for a, b in zip(mine, torch.autograd.grad((theirs.flatten(1, 2) * weight).sum(), inputs), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (3, 1)])
def test_windows_there_and_back(shift: tuple[int, int]):
    x = torch.randn(2, 8 * 12, 5)
    assert torch.equal(from_windows(to_windows(x, (8, 12), WINDOW, shift), (8, 12), WINDOW, shift), x)


def make_mae(depth: int, window: tuple[int, int] = (4, 4), shift: tuple[int, int] = (2, 0)) -> MAE:
    torch.manual_seed(0)
    audio = Audio(32, 2.56, 16, [-5.0], [4.0])  # 16 x 8 tokens
    return MAE(Backbone(audio, Encoder(32, 1, 4)), 16, depth, 4, False, window, shift)


def test_a_prediction_knows_its_window_and_after_a_shift_the_neighbours():
    batch = Batch(torch.randn(1, 256, 128), torch.arange(1))
    for depth, reach in ((1, {0}), (2, {0, 1})):
        mae = make_mae(depth)
        mask = RandomMask(0.5).draw(0, batch.positions, mae.backbone.modality.grid)
        latent = torch.randn(1, 1 + mask.visible.shape[1], 32, requires_grad=True)
        hidden = int((mask.hidden[0] >= 2 * 8).nonzero()[0])  # in the rows that a shift joins to the next window
        token = int(mask.hidden[0, hidden])
        assert token // 8 in (2, 3)
        mae.decoder(latent, mask)[0, hidden].sum().backward()
        seen = mask.visible[0][latent.grad[0, 1:].abs().sum(1) > 0]
        assert {int(t) // 8 // 4 for t in seen} == reach
        assert {int(t) % 8 // 4 for t in seen} == {token % 8 // 4}
        assert not latent.grad[0, 0].any()  # the class token is left out


@pytest.mark.parametrize(
    ("window", "shift", "words"),
    [((3, 4), (0, 0), "does not divide the 16x8 tokens"), ((4, 4), (4, 0), "must be two numbers below")],
)
def test_windows_that_do_not_fit_say_so(window: tuple[int, int], shift: tuple[int, int], words: str):
    with pytest.raises(ConfigError, match=words):
        make_mae(1, window, shift)
