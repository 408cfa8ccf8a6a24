"""SimMIM and MaskFeat: their losses restated, and histograms of oriented gradients against a loop over pixels."""

import math

import pytest
import torch
from torch import Tensor

from tests.conftest import QUICK, make_batch
from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.masking.random import RandomMask
from unmask.modality.audio import Audio
from unmask.modality.image import Image
from unmask.modality.speech import Speech
from unmask.nn.encoder import Encoder
from unmask.nn.hog import hog, hog_size
from unmask.nn.patch import patchify
from unmask.objective.simmim import SimMIM
from unmask.schema import Batch, Mask

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]


def make_simmim(target: str = "pixel", loss: str = "l1", normalize: bool = False, patch: int = 4) -> SimMIM:
    torch.manual_seed(0)
    image = Image(32, (4 * patch, 4 * patch), patch, 3, MEAN, STD)
    return SimMIM(Backbone(image, Encoder(32, 2, 4)), target, loss, normalize)


def make_mask(batch: Batch, ratio: float = 0.5) -> Mask:
    return RandomMask(ratio).draw(0, batch.positions, (4, 4))


def every_token(count: int, tokens: int) -> Tensor:
    return torch.arange(tokens).expand(count, -1)


def predictions(model: SimMIM, batch: Batch, mask: Mask) -> Tensor:
    """(B, H, P), each step written out: hidden embeddings replaced, then positions, then the class token."""
    backbone = model.backbone
    image = backbone.modality
    pixels = (batch.inputs / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    tokens = image.projection(patchify(pixels, image.patch_size))
    for row, hidden in enumerate(mask.hidden.tolist()):
        for token in hidden:
            tokens[row, token] = model.mask_token[0, 0]
    tokens = torch.cat([backbone.class_token.expand(len(tokens), -1, -1), tokens + image.table], dim=1)
    for block in backbone.encoder.blocks:
        tokens, _ = block(tokens)
    features = backbone.encoder.norm(tokens)[:, 1:]
    rows = [torch.stack([features[row, token] for token in hidden]) for row, hidden in enumerate(mask.hidden.tolist())]
    return torch.stack(rows) @ model.head.weight.T + model.head.bias


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_loss_is_the_mean_error_of_hidden_pixels(loss: str, normalize: bool):
    model, batch = make_simmim(loss=loss, normalize=normalize), make_batch()
    mask = make_mask(batch)
    predicted = predictions(model, batch, mask)
    errors = []
    for row, hidden in enumerate(mask.hidden.tolist()):
        for place, token in enumerate(hidden):
            top, left = 4 * (token // 4), 4 * (token % 4)
            patch = batch.inputs[row, :, top : top + 4, left : left + 4] / 255
            patch = (patch - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
            if normalize:
                patch = (patch - patch.mean()) / (patch.var(correction=1) + 1e-6).sqrt()
            error = predicted[row, place] - patch.permute(1, 2, 0).flatten()
            errors.append(error.abs().mean() if loss == "l1" else (error**2).mean())
    torch.testing.assert_close(model(batch, mask).loss, torch.stack(errors).mean(), rtol=1e-5, atol=1e-5)


def test_maskfeats_loss_is_the_mean_squared_error_of_histograms():
    model, batch = make_simmim("hog", "l2"), make_batch()
    mask = make_mask(batch)
    described = slow_hog(batch.inputs / 255, 4)
    target = torch.stack([described[row, hidden] for row, hidden in enumerate(mask.hidden)])
    expected = ((predictions(model, batch, mask) - target) ** 2).mean()
    torch.testing.assert_close(model(batch, mask).loss, expected, rtol=1e-5, atol=1e-5)
    assert model(batch, mask).metrics["target_std"] > 0


@pytest.mark.parametrize("target", ["pixel", "hog"])
def test_hidden_tokens_that_do_not_count_are_left_out(target: str):
    model, batch = make_simmim(target), make_batch(1)
    mask = make_mask(batch)
    fewer = torch.arange(8)[None] < 3
    want = model.backbone.modality.hog_target(batch, mask) if target == "hog" else None
    want = model.backbone.modality.target(batch, mask, normalize=False) if want is None else want
    expected = (predictions(model, batch, mask) - want)[:, :3].abs().mean()
    loss = model(batch, Mask(mask.visible, mask.hidden, fewer)).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_hidden_pixels_never_reach_the_encoder():
    model, batch = make_simmim(), make_batch(2)
    mask = make_mask(batch)
    before = model.predict(batch, mask)
    for row, tokens in enumerate(mask.hidden):
        for token in tokens.tolist():
            top, left = 4 * (token // 4), 4 * (token % 4)
            batch.inputs[row, :, top : top + 4, left : left + 4] = 99
    assert torch.equal(before, model.predict(batch, mask))
    batch.inputs.zero_()
    assert not torch.equal(before, model.predict(batch, mask))


@pytest.mark.parametrize("target", ["pixel", "hog"])
def test_gradients_reach_every_parameter(target: str):
    model, batch = make_simmim(target), make_batch()
    model(batch, make_mask(batch)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_pixels_are_predicted_for_pictures_and_histograms_are_not():
    batch = make_batch(3)
    mask = make_mask(batch, 0.75)
    assert make_simmim().predict(batch, mask).shape == (3, 12, 48)
    model = make_simmim("hog")
    assert model.predict(batch, mask) is None
    assert model.backbone.modality.picture(batch, mask, None, model.normalize).shape[2] == 3


def test_mistakes_name_the_key_and_the_way_out():
    with pytest.raises(ConfigError, match=r"objective\.target=pixels.*Did you mean pixel\?"):
        make_simmim("pixels")
    with pytest.raises(ConfigError, match=r"objective\.loss=l3.*Choose one of l1, l2"):
        make_simmim(loss="l3")
    sounds = Backbone(Audio(16, 0.64, 16, [0.0], [1.0]), Encoder(16, 1, 2))
    with pytest.raises(ConfigError, match=r"objective\.target=hog needs .* Audio has none\. Use objective\.target="):
        SimMIM(sounds, "hog", "l2", normalize=False)
    with pytest.raises(ConfigError, match=r"objective=simmim .* modality=speech has none\. Use objective=mae"):
        SimMIM(Backbone(Speech(16, 1.0), Encoder(16, 1, 2)), "pixel", "l1", normalize=False)


@pytest.mark.parametrize("words", [[], ["objective.target=hog", "objective.loss=l2"]], ids=["simmim", "maskfeat"])
def test_the_program_trains_it(train, words: list[str]):
    quick = [word for word in QUICK if "pictures" not in word]
    folder = train(*quick, "objective=simmim", *words, "trainer.max_steps=4")
    assert (folder / "backbone" / "model.safetensors").exists()
    assert list((folder / "pictures").glob("*.png"))


# Histograms of oriented gradients.


def slow_hog(images: Tensor, patch: int, bins: int = 9) -> Tensor:
    """(B, N, P) of all patches, pixel by pixel."""
    count, channels, height, width = images.shape
    cells = 2 if patch % 2 == 0 else 1
    side = patch // cells

    def mirrored(index: int, size: int) -> int:
        return abs(index) if index < size else 2 * (size - 1) - index

    def histogram(pixels: Tensor, top: int, left: int) -> list[float]:
        found = [0.0] * bins
        for y in range(top, top + side):
            for x in range(left, left + side):
                right = (pixels[y, mirrored(x + 1, width)] - pixels[y, mirrored(x - 1, width)]).item()
                down = (pixels[mirrored(y + 1, height), x] - pixels[mirrored(y - 1, height), x]).item()
                angle = math.atan2(down, right) % math.pi  # half a turn holds every direction
                found[int(angle / math.pi * bins) % bins] += math.hypot(right, down)
        norm = math.sqrt(sum(value**2 for value in found))
        return [value / norm for value in found] if norm else found

    rows = []
    for image in images.double():
        for token in range((height // patch) * (width // patch)):
            top, left = divmod(token, width // patch)
            values = []
            for cell_row in range(cells):
                for cell_column in range(cells):
                    for channel in range(channels):
                        corner = (top * patch + cell_row * side, left * patch + cell_column * side)
                        values += histogram(image[channel], *corner)
            rows.append(torch.tensor(values))
    return torch.stack(rows).view(count, -1, len(rows[0]))


@pytest.mark.parametrize(
    ("size", "patch", "channels"),
    [((32, 16), 16, 3), ((16, 16), 4, 3), ((8, 12), 2, 1), ((9, 6), 3, 3), ((14, 28), 14, 1), ((4, 4), 1, 3)],
)
def test_histograms_are_those_of_a_loop_over_pixels(size: tuple[int, int], patch: int, channels: int):
    images = make_batch(2, (channels, *size)).inputs / 255
    expected = slow_hog(images, patch)
    got = hog(images, patch, every_token(2, expected.shape[1]))
    assert got.shape[2] == hog_size(patch, channels)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_patch_of_16_pixels_in_colour_has_maskfeats_108_values():
    assert hog_size(16, 3) == 2 * 2 * 9 * 3 == 108
    assert make_simmim("hog", patch=16).head.out_features == 108


def test_only_the_wanted_patches_are_described():
    images = make_batch(2).inputs / 255
    everything = hog(images, 4, every_token(2, 16))
    wanted = torch.tensor([[3, 1], [15, 0]])
    expected = torch.stack([everything[0, [3, 1]], everything[1, [15, 0]]])
    assert torch.equal(hog(images, 4, wanted), expected)


def test_a_constant_image_has_no_gradients():
    assert not hog(torch.full((1, 3, 16, 16), 0.7), 4, every_token(1, 16)).any()


def test_contrast_and_brightness_do_not_matter():
    images = make_batch(2).inputs / 255
    scale, shift = torch.tensor([0.3, 2.0, 5.0]).view(3, 1, 1), torch.tensor([0.1, -1.0, 3.0]).view(3, 1, 1)
    tokens = every_token(2, 16)
    torch.testing.assert_close(hog(images * scale + shift, 4, tokens), hog(images, 4, tokens), rtol=1e-4, atol=1e-4)


def as_cells(values: Tensor, patch: int, grid: tuple[int, int], bins: int) -> Tensor:
    """(B, cell rows, cell columns, C, bins) of a whole image."""
    cells = 2 if patch % 2 == 0 else 1
    parts = values.view(len(values), *grid, cells, cells, -1, bins)
    return parts.permute(0, 1, 3, 2, 4, 5, 6).reshape(len(values), grid[0] * cells, grid[1] * cells, -1, bins)


def test_a_quarter_turn_moves_cells_and_shifts_directions_by_half():
    # Nine bins cut half a turn so that a quarter is four and a half of them; eight make it exactly four.
    images = torch.rand(2, 3, 16, 16)
    before, after = (
        as_cells(hog(x, 4, every_token(2, 16), bins=8), 4, (4, 4), 8) for x in (images, images.rot90(1, (2, 3)))
    )
    torch.testing.assert_close(after, before.rot90(1, (1, 2)).roll(4, -1), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after, before.rot90(1, (1, 2)), atol=0.1)


def test_a_half_turn_and_a_negative_leave_directions_as_they_are():
    images = torch.rand(2, 3, 16, 16)
    before, turned, negative = (
        as_cells(hog(x, 4, every_token(2, 16)), 4, (4, 4), 9) for x in (images, images.rot90(2, (2, 3)), 1 - images)
    )
    torch.testing.assert_close(turned, before.flip(1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(negative, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("degrees", "expected"), [(0, 0), (10, 0), (30, 1), (90, 4), (170, 8), (190, 0), (270, 4)])
def test_a_slope_falls_into_the_bin_of_its_direction(degrees: int, expected: int):
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    angle = math.radians(degrees)
    slope = round(math.cos(angle), 6) * x + round(math.sin(angle), 6) * y
    middle = hog(slope[None, None], 8, torch.tensor([[4]]))  # away from the mirrored border
    one_hot = torch.nn.functional.one_hot(torch.tensor(expected), 9).float()
    torch.testing.assert_close(middle.view(4, 9), one_hot.expand(4, 9))
