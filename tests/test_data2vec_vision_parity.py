"""data2vec's vision trunk against transformers' Data2VecVision, with every weight randomised and hidden patches."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import Data2VecVisionConfig, Data2VecVisionModel

from unmask.backbone import Backbone
from unmask.masking.select import hide_top
from unmask.modality.image import Image
from unmask.nn.block import Style
from unmask.nn.encoder import Encoder
from unmask.objective.data2vec import Data2Vec
from unmask.schema import Batch

WIDTH, DEPTH, HEADS, PATCH, EPS = 32, 3, 4, 4, 1e-6
STYLE = Style(norm_eps=EPS, key_bias=False, layer_scale=0.1, position_bias="relative", init="scaled_normal")


def make_backbone(size: tuple[int, int]) -> Backbone:
    image = Image(WIDTH, size, PATCH, 3, [0.5] * 3, [0.25] * 3, absolute_positions=False)
    return Backbone(image, Encoder(WIDTH, DEPTH, HEADS, style=STYLE))


def make_peer(size: tuple[int, int]) -> Data2VecVisionModel:
    """A toy model whose every parameter is random: freshly built, its tokens and its bias table are zero."""
    config = Data2VecVisionConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        image_size=list(size), patch_size=PATCH, layer_norm_eps=EPS, use_mask_token=True,
        use_absolute_position_embeddings=False, use_relative_position_bias=False,
        use_shared_relative_position_bias=True, use_mean_pooling=False, attn_implementation="eager",
    )  # fmt: skip
    peer = Data2VecVisionModel(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    if size[0] != size[1]:
        read_table_as_it_is(peer.encoder.relative_position_bias)
    return peer


def read_table_as_it_is(bias: nn.Module) -> None:
    """Its own index into its own table.

    It resizes the table first, with rows and columns swapped: that scrambles it where the grid is not square, although
    the size stays as it is.
    """

    def forward(window_size: tuple[int, int], *_: object, **__: object) -> Tensor:
        index = bias.generate_relative_position_index(window_size)
        return bias.relative_position_bias_table[index].permute(2, 0, 1)[None]

    bias.forward = forward


Read = Callable[[nn.Parameter], Tensor]


def pairs(ours: Backbone, mask_token: nn.Parameter, peer: Data2VecVisionModel, read: Read) -> list[tuple]:
    """(name, ours, theirs) for every parameter, in our layout; `read` picks the value or the gradient."""
    embeddings, conv = peer.embeddings, peer.embeddings.patch_embeddings.projection
    table = peer.encoder.relative_position_bias.relative_position_bias_table
    rows = [
        # Theirs is a convolution [D, C, p, p]; ours multiplies patches in the order row, column, channel.
        ("projection.weight", ours.modality.projection.weight, read(conv.weight).permute(0, 2, 3, 1).flatten(1)),
        ("projection.bias", ours.modality.projection.bias, read(conv.bias)),
        ("class_token", ours.class_token, read(embeddings.cls_token)),
        ("mask_token", mask_token, read(embeddings.mask_token)),
        ("table", ours.position_bias.table, read(table)),
        ("norm.weight", ours.encoder.norm.weight, read(peer.layernorm.weight)),
        ("norm.bias", ours.encoder.norm.bias, read(peer.layernorm.bias)),
    ]
    for i, (block, layer) in enumerate(zip(ours.encoder.blocks, peer.encoder.layer, strict=True)):
        attention = layer.attention.attention
        projections = (attention.query, attention.key, attention.value)
        rows += [
            (f"{i}.qkv", block.attn.qkv.weight, torch.cat([read(p.weight) for p in projections])),
            (f"{i}.query_bias", block.attn.query_bias, read(attention.query.bias)),
            (f"{i}.value_bias", block.attn.value_bias, read(attention.value.bias)),
            (f"{i}.scale1", block.scale1, read(layer.lambda_1)),
            (f"{i}.scale2", block.scale2, read(layer.lambda_2)),
        ]
        for mine, theirs in (
            (block.norm1, layer.layernorm_before),
            (block.norm2, layer.layernorm_after),
            (block.attn.proj, layer.attention.output.dense),
            (block.mlp[0], layer.intermediate.dense),
            (block.mlp[2], layer.output.dense),
        ):
            rows += [(f"{i}.weight", mine.weight, read(theirs.weight)), (f"{i}.bias", mine.bias, read(theirs.bias))]
    return [(name, read(mine), theirs) for name, mine, theirs in rows]


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (8, 20), (20, 8)])
def test_hidden_states_of_all_layers_and_all_gradients_equal_transformers(size: tuple[int, int]):
    torch.manual_seed(0)
    peer, ours, mask_token = make_peer(size), make_backbone(size), nn.Parameter(torch.zeros(1, 1, WIDTH))
    with torch.no_grad():
        for _, mine, theirs in pairs(ours, mask_token, peer, lambda p: p.data):
            mine.copy_(theirs)
    images = torch.randint(0, 256, (5, 3, *size), dtype=torch.uint8)
    count = (size[0] // PATCH) * (size[1] // PATCH)
    mask = hide_top(torch.rand(5, count), visible=count // 3)
    batch = Batch(images, torch.arange(5))

    states = [tokens for tokens, _ in ours.encoder.layers(*ours.prepare(batch, mask, mask_token, keep_hidden=True))]
    states.append(ours.encode(batch, mask, mask_token, keep_hidden=True))
    out = peer((images / 255 - 0.5) / 0.25, bool_masked_pos=mask.is_hidden(count), output_hidden_states=True)
    expected = [*out.hidden_states[1:], out.last_hidden_state]
    assert len(states) == len(expected) == DEPTH + 1
    weights = [torch.randn_like(state) / state.numel() ** 0.5 for state in expected]
    for mine, theirs in zip(states, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    for model in (states, expected):
        sum((state * weight).sum() for state, weight in zip(model, weights, strict=True)).backward()

    compared = 0
    for name, mine, theirs in pairs(ours, mask_token, peer, lambda p: p.grad):
        assert mine.abs().max() > 0, name
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
        compared += mine.numel()
    assert compared == sum(p.numel() for p in [*ours.parameters(), mask_token])
    assert compared == sum(p.numel() for p in peer.parameters())


def make_data2vec(width: int, depth: int, heads: int) -> Data2Vec:
    """As published for images."""
    image = Image(width, 224, 16, 3, [0.5] * 3, [0.5] * 3, absolute_positions=False)
    backbone = Backbone(image, Encoder(width, depth, heads, style=STYLE))
    return Data2Vec(
        backbone, top_k=6, target="block", layer_norm="layer", target_norm="layer", beta=2.0, reduction="mean",
        head_layers=1, tau_start=0.9998, tau_end=0.9998, tau_steps=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("width", "depth", "heads", "everything"), [(768, 12, 12, 86_256_720), (1024, 24, 16, 304_186_816)]
)
def test_parameter_counts_are_the_papers(width: int, depth: int, heads: int, everything: int):
    with torch.device("meta"):
        model = make_data2vec(width, depth, heads)
    # The released model is trunk, mask token and head; its teacher is another model.
    trained = [p for name, p in model.named_parameters() if not name.startswith("teacher.")]
    assert sum(p.numel() for p in trained) == everything
    assert model.backbone.position_bias.table.shape == (732, heads)
    assert all(p.requires_grad for p in trained)


def test_weights_start_as_beits():
    styles = [STYLE, Style(**{**vars(STYLE), "init": "normal"})]
    encoders = []
    for style in styles:
        torch.manual_seed(0)
        encoders.append(Encoder(64, 4, 4, style=style))
    scaled, plain = ([dict(block.named_parameters()) for block in encoder.blocks] for encoder in encoders)
    for layer, (mine, other) in enumerate(zip(scaled, plain, strict=True), start=1):
        for name, value in mine.items():
            if name in ("attn.proj.weight", "mlp.2.weight"):
                torch.testing.assert_close(value * (2 * layer) ** 0.5, other[name])
                assert 0.95 < other[name].std() / 0.02 < 1.05
            else:
                assert torch.equal(value, other[name]), name
        assert 0.95 < mine["attn.qkv.weight"].std() / 0.02 < 1.05
        assert torch.equal(mine["scale1"], torch.full((64,), 0.1))
        assert not any(value.any() for name, value in mine.items() if name.endswith("bias"))
    assert not make_backbone((16, 16)).position_bias.table.any()
