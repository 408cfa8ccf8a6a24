"""Blocks, attention paths, positions, counts."""

import math

import pytest
import torch
from torch import nn

from tests.conftest import make_batch, make_mae
from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.masking.random import RandomMask
from unmask.modality.image import Image
from unmask.nn.attention import attend, attend_matmul, prefer_matmul
from unmask.nn.block import Block, Style
from unmask.nn.encoder import Encoder
from unmask.nn.patch import patchify, unpatchify
from unmask.nn.position import sincos_2d
from unmask.objective.mae import MAE


@pytest.mark.parametrize(
    ("width", "depth", "heads", "patch", "encoder", "decoder", "everything"),
    [(768, 12, 12, 16, 85_647_360, 26_008_320, 111_907_840),
     (1024, 24, 16, 16, 303_099_904, 26_139_392, 329_541_888),
     (1280, 32, 16, 14, 630_435_840, 26_178_124, 657_074_508)],
)  # fmt: skip
def test_parameter_counts_are_the_papers(width, depth, heads, patch, encoder, decoder, everything):
    with torch.device("meta"):
        image = Image(width, 224, patch, 3, [0.5] * 3, [0.5] * 3)
        mae = MAE(Backbone(image, Encoder(width, depth, heads)), 512, 8, 16, normalize=True)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(mae.backbone) == encoder
    assert count(mae.decoder) == decoder
    tables = (len(mae.backbone.modality.table) + 1) * (width + 512)  # stored as parameters in the released code
    assert count(mae) + tables == everything


def test_sincos_positions_are_the_released_ones():
    table = sincos_2d(768, (14, 14))
    dims = [0, 1, 192, 384, 576]
    assert table[1, dims].tolist() == pytest.approx([0.841471, 0.815251, 0.540302, 0, 1], abs=1e-6)
    dims = [0, 192, 384, 385, 576]
    assert table[14, dims].tolist() == pytest.approx([0, 1, 0.841471, 0.815251, 0.540302], abs=1e-6)
    small = sincos_2d(8, (2, 2))
    assert small[0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert small[1].tolist() == pytest.approx([0.841471, 0.01, 0.540302, 0.99995, 0, 0, 1, 1], abs=1e-5)
    assert small[2].tolist() == pytest.approx([0, 0, 1, 1, 0.841471, 0.01, 0.540302, 0.99995], abs=1e-5)
    with pytest.raises(ConfigError, match="multiple of 4"):
        sincos_2d(10, (2, 2))


@pytest.mark.parametrize("patch", [2, (2, 3), (4, 1)])
def test_patches_are_row_major_and_channel_last(patch: int | tuple[int, int]):
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6).float()
    height, width = (patch, patch) if isinstance(patch, int) else patch
    rows, columns = 4 // height, 6 // width
    patches = patchify(images, patch)
    assert patches.shape == (2, rows * columns, 3 * height * width)
    for batch in range(2):
        for token in range(rows * columns):
            row, column = height * (token // columns), width * (token % columns)
            expected = [
                images[batch, c, row + p, column + q] for p in range(height) for q in range(width) for c in range(3)
            ]
            assert patches[batch, token].tolist() == expected
    assert torch.equal(unpatchify(patches, patch, (rows, columns)), images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [5, 50, 197])
def test_both_attention_paths_are_equal(dtype: torch.dtype, tokens: int):
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, tokens, 16, dtype=dtype, requires_grad=True) for _ in range(3)]
    results = []
    for path in (torch.nn.functional.scaled_dot_product_attention, attend_matmul):
        out = path(*inputs)
        grads = torch.autograd.grad((out.float() * torch.linspace(-1, 1, 16)).sum(), inputs)
        results.append((out, *grads))
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=tolerance, atol=tolerance)


def test_attention_is_softmax_of_scaled_products():
    q, k, v = (torch.randn(1, 2, 7, 4) for _ in range(3))
    expected = torch.softmax(torch.einsum("bhqd,bhkd->bhqk", q, k) / 2, dim=-1) @ v
    torch.testing.assert_close(attend(q, k, v), expected, rtol=1e-5, atol=1e-6)


def test_float32_and_gpus_use_the_fused_kernel():
    assert not prefer_matmul("cpu", torch.float32, 50)
    assert not prefer_matmul("cuda", torch.bfloat16, 50)


def test_a_pre_norm_block_with_zero_branches_is_the_identity():
    block = Block(16, 2)
    for module in (block.attn.proj, block.mlp[2]):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    x = torch.randn(2, 5, 16)
    out, feed_forward = block(x)
    assert torch.equal(out, x)
    assert not feed_forward.any()


def test_a_post_norm_block_with_zero_branches_only_normalises():
    block = Block(16, 2, style=Style(norm_first=False))
    for module in (block.attn.proj, block.mlp[2]):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    x = torch.randn(2, 5, 16)
    out, _ = block(x)
    torch.testing.assert_close(out, nn.functional.layer_norm(x, (16,), eps=1e-6), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_block_that_computes_the_last_tokens_gives_what_the_whole_block_gives_there(norm_first: bool):
    block = Block(16, 2, style=Style(norm_first=norm_first))
    x = torch.randn(2, 9, 16)
    for whole, part in zip(block(x), block(x, last=4), strict=True):
        torch.testing.assert_close(whole[:, -4:], part, rtol=1e-5, atol=1e-6)


def test_weights_start_as_maes():
    torch.manual_seed(0)
    mae = make_mae(width=64, depth=1, decoder=(64, 1, 4))
    bound = math.sqrt(6 / (64 + 192))
    weight = mae.backbone.encoder.blocks[0].attn.qkv.weight
    assert 0.98 * bound < weight.abs().max() <= bound
    projection = mae.backbone.modality.projection.weight  # the convolution seen as [D, C p p]
    assert 0.98 < projection.abs().max() / math.sqrt(6 / (64 + 48)) <= 1
    assert 0.01 < mae.backbone.class_token.std() < 0.03
    assert not any(p.any() for name, p in mae.named_parameters() if name.endswith("bias"))


def test_target_is_normalised_by_unbiased_variance_with_eps_inside_the_root():
    mae, batch = make_mae(), make_batch()
    mask = RandomMask(0.75).draw(0, batch.positions, (4, 4))
    modality = mae.backbone.modality
    target = modality.target(batch, mask, normalize=True)
    patches = patchify((batch.inputs / 255 - 0.5) / 0.25, 4)
    row = patches[1, mask.hidden[1, 2]]
    variance = ((row - row.mean()) ** 2).sum() / (len(row) - 1)
    torch.testing.assert_close(target[1, 2], (row - row.mean()) / torch.sqrt(variance + 1e-6), rtol=1e-5, atol=1e-5)


def test_a_flat_patch_has_a_finite_target():
    mae, batch = make_mae(), make_batch()
    batch.inputs.fill_(7)
    out = mae(batch, RandomMask(0.75).draw(0, batch.positions, (4, 4)))
    out.loss.backward()
    assert out.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in mae.parameters())


def test_hidden_pixels_never_reach_the_encoder():
    mae, batch = make_mae(), make_batch(2)
    mask = RandomMask(0.5).draw(0, batch.positions, (4, 4))
    before = mae.backbone.encode(batch, mask)
    for row, tokens in enumerate(mask.hidden):
        for token in tokens.tolist():
            top, left = 4 * (token // 4), 4 * (token % 4)
            batch.inputs[row, :, top : top + 4, left : left + 4] = 99
    assert torch.equal(before, mae.backbone.encode(batch, mask))


def test_the_encoder_sees_the_visible_tokens_only():
    mae, batch = make_mae(), make_batch(3)
    mask = RandomMask(0.75).draw(0, batch.positions, (4, 4))
    assert mae.backbone.encode(batch, mask).shape == (3, 1 + 4, 32)
    assert mae.predict(batch, mask).shape == (3, 12, 48)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match=r"model\.heads=5 does not divide model\.width=32.*such as 4"):
        Encoder(32, 1, 5)


def test_a_dropped_block_leaves_its_input_and_has_gradients():
    torch.manual_seed(0)
    encoder = Encoder(16, 3, 2, style=Style(layer_drop=0.5))
    x = torch.randn(2, 5, 16)
    dropped = 0
    for _ in range(8):
        encoder.zero_grad()
        before = x
        for tokens, feed_forward in encoder.layers(x):
            if torch.equal(tokens, before):
                dropped += 1
                assert not feed_forward.any()
            before = tokens
        before.sum().backward()
        assert all(p.grad is not None for p in encoder.blocks.parameters())
    assert 4 < dropped < 20
    encoder.eval()
    assert not any(torch.equal(tokens, x) for tokens, _ in encoder.layers(x))
