"""Loss and every gradient against transformers' ViTMAE, with every weight randomised and the same noise."""

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from tests.conftest import make_mae
from unmask.masking.select import hide_top, num_visible
from unmask.objective.mae import MAE
from unmask.schema import Batch

WIDTH, DEPTH, HEADS = 32, 3, 4
DECODER = (24, 2, 3)
PAIRS = {"norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}


def make_peer(size: tuple[int, int], patch: int, ratio: float, normalize: bool) -> ViTMAEForPreTraining:
    """A toy ViTMAE whose every parameter is random: freshly built, its tokens and positions are zero."""
    width, depth, heads = DECODER
    config = ViTMAEConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        image_size=size, patch_size=patch, mask_ratio=ratio, norm_pix_loss=normalize, layer_norm_eps=1e-6,
        decoder_hidden_size=width, decoder_num_hidden_layers=depth, decoder_num_attention_heads=heads,
        decoder_intermediate_size=4 * width, attn_implementation="eager",
    )  # fmt: skip
    peer = ViTMAEForPreTraining(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return peer


def pairs(ours: MAE, peer: ViTMAEForPreTraining, read) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name, ours, theirs) for every parameter, in our layout; `read` picks the value or the gradient."""
    rows = []

    def add(name: str, mine: torch.nn.Parameter, theirs: torch.Tensor) -> None:
        rows.append((name, read(mine), theirs))

    def add_both(name: str, mine: torch.nn.Module, theirs: torch.nn.Module) -> None:
        add(f"{name}.weight", mine.weight, read(theirs.weight))
        add(f"{name}.bias", mine.bias, read(theirs.bias))

    embeddings, backbone, decoder = peer.vit.embeddings, ours.backbone, peer.decoder
    conv = embeddings.patch_embeddings.projection
    # Theirs is a convolution [D, C, p, p]; ours multiplies patches in the order row, column, channel.
    add(
        "projection.weight",
        backbone.modality.projection.weight,
        read(conv.weight).permute(0, 2, 3, 1).flatten(1),
    )
    add("projection.bias", backbone.modality.projection.bias, read(conv.bias))
    add("class_token", backbone.class_token, read(embeddings.cls_token))
    add_both("norm", backbone.encoder.norm, peer.vit.layernorm)
    add("mask_token", ours.decoder.mask_token, read(decoder.mask_token))
    add_both("decoder.embed", ours.decoder.embed, decoder.decoder_embed)
    add_both("decoder.norm", ours.decoder.norm, decoder.decoder_norm)
    add_both("decoder.predict", ours.decoder.predict, decoder.decoder_pred)
    stacks = [("encoder", backbone.encoder.blocks, peer.vit.layers)]
    stacks.append(("decoder", ours.decoder.blocks, decoder.decoder_layers))
    for stack, blocks, layers in stacks:
        for i, (block, layer) in enumerate(zip(blocks, layers, strict=True)):
            modules = dict(layer.named_modules())
            for mine, their_name in PAIRS.items():
                add_both(f"{stack}.{i}.{mine}", block.get_submodule(mine), modules[their_name])
            attention = layer.attention
            projections = [attention.q_proj, attention.k_proj, attention.v_proj]
            add(
                f"{stack}.{i}.qkv.weight",
                block.attn.qkv.weight,
                torch.cat([read(p.weight) for p in projections]),
            )
            add(f"{stack}.{i}.qkv.bias", block.attn.qkv.bias, torch.cat([read(p.bias) for p in projections]))
            add_both(f"{stack}.{i}.proj", block.attn.proj, attention.o_proj)
    return rows


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("ratio", [0.15, 0.75, 0.95])
# (transformers builds its decoder table for the square root of the token count, so that must be whole)
@pytest.mark.parametrize(("size", "patch"), [((32, 32), 4), ((16, 64), 4), ((96, 96), 16), ((64, 256), 16)])
def test_loss_and_all_gradients_equal_transformers(size, patch: int, ratio: float, normalize: bool):
    torch.manual_seed(0)
    peer = make_peer(size, patch, ratio, normalize)
    ours = make_mae(size, patch, 3, WIDTH, DEPTH, HEADS, DECODER, normalize)
    table = peer.vit.embeddings.position_embeddings
    with torch.no_grad():
        for _, mine, theirs in pairs(ours, peer, lambda p: p.data):
            mine.copy_(theirs)
        # Their tables are random now; ours are fixed, so theirs become ours.
        for theirs, mine in (
            (table, ours.backbone.modality.table),
            (peer.decoder.decoder_pos_embed, ours.decoder.position()),
        ):
            theirs.copy_(torch.cat([torch.zeros(1, mine.shape[1]), mine])[None])
    count = (size[0] // patch) * (size[1] // patch)
    noise = torch.rand(5, count)
    images = torch.randint(0, 256, (5, 3, *size), dtype=torch.uint8)
    batch = Batch(images, torch.arange(5))
    mask = hide_top(noise, num_visible(count, ratio))

    out = ours(batch, mask)
    out.loss.backward()
    pixels = (images / 255 - 0.5) / 0.25
    # Without this flag it refuses to cut a picture that is not square; positions stay as they are.
    peer.patchify = lambda x, **_: ViTMAEForPreTraining.patchify(peer, x, interpolate_pos_encoding=True)
    their_loss = peer(pixels, noise=noise).loss
    their_loss.backward()

    torch.testing.assert_close(out.loss, their_loss, rtol=1e-5, atol=1e-5)
    compared = 0
    for name, mine, theirs in pairs(ours, peer, lambda p: p.grad):
        assert mine.abs().max() > 0, name
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
        compared += mine.numel()
    assert compared == sum(p.numel() for p in ours.parameters())
