"""data2vec 2.0: one teacher for many masks, a student that sees visible tokens only, a convolutional decoder."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.conftest import QUICK, ROOT, make_batch
from tests.test_resume import assert_bit_equal
from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.masking.audit import as_grid, audit
from unmask.masking.kept_squares import KeptSquaresMask
from unmask.masking.random import RandomMask
from unmask.masking.select import gather, hide_top, hide_top_padded
from unmask.masking.span import SpanMask
from unmask.modality.image import Image
from unmask.modality.speech import Speech
from unmask.nn.block import Style
from unmask.nn.conv_decoder import ConvDecoder
from unmask.nn.encoder import Encoder
from unmask.objective.data2vec2 import Data2Vec2
from unmask.schema import Batch, Mask
from unmask.training.groups import parameter_groups

WIDTH, MASKS = 32, 3
SETTINGS = {
    "masks_per_sample": MASKS, "cls_weight": 0.0, "mask_noise_std": 0.01, "decoder_width": 24, "decoder_kernel": 3,
    "decoder_groups": 4, "decoder_layers": 2, "decoder_residual": True, "decoder_dropout": 0.0, "head_layers": 1,
    "top_k": 2, "target": "ffn", "layer_norm": "instance", "target_norm": "layer", "beta": 0.0, "reduction": "root",
    "tau_start": 0.5, "tau_end": 1.0, "tau_steps": 4,
}  # fmt: skip


def randomised(module: nn.Module) -> nn.Module:
    """Every parameter random, so that nothing is hidden by a zero or a one."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module


def make_images(class_token: bool = True, **changes) -> Data2Vec2:
    """A toy data2vec 2.0 of 4 x 4 patches whose teacher is not its student."""
    torch.manual_seed(0)
    encoder = Encoder(WIDTH, 3, 4, style=Style(norm_first=False, init="normal"))
    backbone = Backbone(Image(WIDTH, (16, 16), 4, 3, [0.5] * 3, [0.25] * 3), encoder, class_token)
    objective = Data2Vec2(backbone, **{**SETTINGS, "copied": [], **changes})
    randomised(objective.teacher.model)
    return objective


def make_speech(**changes) -> Data2Vec2:
    """The same on up to a quarter of a second of sound, 12 frames, with alibi and convolutional positions."""
    torch.manual_seed(0)
    modality = Speech(WIDTH, 0.25, conv_width=8, position_layers=2, position_kernel=3, position_groups=4)
    encoder = Encoder(WIDTH, 3, 4, style=Style(norm_first=False, init="normal", position_bias="alibi"))
    settings = {"target_norm": "none", "copied": ["modality.conv"], **changes}
    objective = Data2Vec2(Backbone(modality, encoder, class_token=False), **{**SETTINGS, **settings})
    randomised(objective.teacher.model)
    return objective


def make_sound(*frames: int) -> Batch:
    """Noise of so many frames each, padded with zeros."""
    lengths = torch.tensor([400 + 320 * (n - 1) for n in frames])
    waves = torch.randn(len(frames), int(lengths.max()), generator=torch.Generator().manual_seed(0))
    waves = waves * (torch.arange(waves.shape[1]) < lengths[:, None])
    return Batch(waves, torch.arange(len(frames)), lengths=lengths)


def masks(batch: Batch, each: int = MASKS, ratio: float = 0.75, grid: tuple[int, ...] = (4, 4)) -> Mask:
    """So many masks for each sample, those of a sample in a row."""
    return RandomMask(ratio).draw(0, torch.arange(len(batch) * each), grid)


def spy(module: nn.Module) -> list[Tensor]:
    """The outputs that a module is going to give, as a list that fills."""
    seen: list[Tensor] = []
    module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    return seen


# Targets.


@pytest.mark.parametrize("target_norm", ["none", "layer"])
def test_targets_are_the_mean_of_the_last_normalised_feed_forward_outputs(target_norm: str):
    objective, batch = make_images(target_norm=target_norm), make_batch(2)
    teacher = objective.teacher.model
    outputs = [spy(block.mlp) for block in teacher.encoder.blocks]
    targets = objective.targets(batch)
    seen = [out[0].double() for out in outputs]
    for sample in range(2):
        total = torch.zeros(16, WIDTH, dtype=torch.float64)
        for features in seen[-2:]:  # top_k
            grid_tokens = features[sample, 1:]  # the class token is no target
            for channel in range(WIDTH):
                column = grid_tokens[:, channel]
                variance = ((column - column.mean()) ** 2).mean()
                total[:, channel] += (column - column.mean()) / math.sqrt(variance + 1e-5)
        total /= 2
        if target_norm == "layer":
            for token in range(16):
                row = total[token]
                total[token] = (row - row.mean()) / torch.sqrt(((row - row.mean()) ** 2).mean() + 1e-5)
        torch.testing.assert_close(targets[sample], total.float(), rtol=1e-4, atol=1e-5)


def test_targets_of_padded_speech_are_those_of_each_clip_alone():
    objective = make_speech()
    batch = make_sound(11, 6)
    together = objective.targets(batch)
    for row, frames in enumerate((11, 6)):
        samples = int(batch.lengths[row])
        alone = objective.targets(Batch(batch.inputs[row : row + 1, :samples], torch.arange(1)))
        torch.testing.assert_close(together[row, :frames], alone[0], rtol=1e-4, atol=1e-5)


# Many masks, one teacher.


@pytest.mark.parametrize("kind", ["image", "speech"])
def test_many_masks_with_one_teacher_pass_are_many_passes_with_one_mask(kind: str):
    # Without noise, which differs between passes.
    if kind == "image":
        make, batch = lambda **changes: make_images(cls_weight=0.7, mask_noise_std=0.0, **changes), make_batch(2)
        mask = masks(batch)
    else:
        make, batch = lambda **changes: make_speech(mask_noise_std=0.0, **changes), make_sound(11, 7)
        counts = torch.tensor([11, 7]).repeat_interleave(MASKS)
        mask = SpanMask(0.5, length=2).draw(0, torch.arange(2 * MASKS), (11,), counts)
    many, single = make(), make(masks_per_sample=1)
    single.load_state_dict(many.state_dict())
    passes = spy(many.teacher.model.encoder.blocks[0])
    out = many(batch, mask)
    out.loss.backward()
    assert len(passes) == 1
    assert len(passes[0][0]) == 2  # one row a sample

    losses = []
    for i in range(MASKS):
        counted = None if mask.counted is None else mask.counted[i::MASKS]
        losses.append(single(batch, Mask(mask.visible[i::MASKS], mask.hidden[i::MASKS], counted)).loss)
    mean = torch.stack(losses).mean()  # every mask counts as many tokens
    mean.backward()
    torch.testing.assert_close(out.loss, mean, rtol=1e-5, atol=1e-6)
    assert not torch.isclose(losses[0], losses[1])
    for (name, a), b in zip(many.named_parameters(), single.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_an_index_of_many_rows_takes_from_each_sample_in_turn():
    tokens = torch.randn(2, 5, 3)
    index = torch.randint(0, 5, (6, 4), generator=torch.Generator().manual_seed(0))
    taken = gather(tokens, index)
    for row in range(6):
        for slot in range(4):
            assert torch.equal(taken[row, slot], tokens[row // 3, index[row, slot]])


def test_a_batch_is_repeated_sample_by_sample_and_every_first_mask_found_again():
    batch = Batch(torch.arange(3)[:, None] * 10, torch.arange(3), torch.tensor([5, 6, 7]), (), torch.tensor([1, 2, 3]))
    twice = batch.repeated(2)
    assert twice.positions.tolist() == [0, 0, 1, 1, 2, 2]
    assert twice.inputs.tolist() == [[0], [0], [10], [10], [20], [20]]
    assert twice.lengths.tolist() == [1, 1, 2, 2, 3, 3]
    assert twice.labels.tolist() == [5, 5, 6, 6, 7, 7]
    mask = hide_top_padded(torch.rand(6, 5), 0.5, torch.tensor([5, 5, 3, 3, 4, 4]))
    first = mask.every(2)
    assert torch.equal(first.hidden, mask.hidden[[0, 2, 4]])
    assert torch.equal(first.visible, mask.visible[[0, 2, 4]])
    assert torch.equal(first.counted, mask.counted[[0, 2, 4]])


# What the student sees.


def test_hidden_pixels_never_reach_the_student():
    objective, batch = make_images(masks_per_sample=2), make_batch(2)
    mask = masks(batch, each=2)
    mask = Mask(mask.visible[[0, 0, 1, 1]], mask.hidden[[0, 0, 1, 1]])  # so that a patch is hidden from all clones
    seen = spy(objective.backbone.encoder)
    objective(batch, mask)
    for row, tokens in enumerate(mask.hidden[::2]):
        for token in tokens.tolist():
            top, left = 4 * (token // 4), 4 * (token % 4)
            batch.inputs[row, :, top : top + 4, left : left + 4] = 99
    objective(batch, mask)
    before, after = seen
    assert before.shape == (4, 1 + 4, WIDTH)  # visible tokens only
    assert torch.equal(before, after)
    batch.inputs[0] = 7
    objective(batch, mask)
    assert not torch.equal(before[0], seen[2][0])  # visible ones do


def test_hidden_frames_never_reach_the_student_through_positions_or_attention():
    objective, batch = make_speech(masks_per_sample=1), make_sound(11, 11)
    modality = objective.backbone.modality
    mask = SpanMask(0.5, length=2).draw(0, batch.positions, (11,))
    frames = modality.embed(batch).detach()
    other = torch.where(mask.is_hidden(11)[..., None], torch.randn_like(frames), frames)
    seen = spy(objective.backbone.encoder)
    for local in (frames, other, other + 1):
        modality.embed = lambda batch, local=local: local
        torch.manual_seed(0)  # the same noise
        objective(batch, mask)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_noise_stands_in_hidden_places_before_positions_are_added():
    objective, batch = make_speech(masks_per_sample=1, mask_noise_std=0.5), make_sound(11)
    mask = SpanMask(0.5, length=2).draw(0, batch.positions, (11,))
    positions = objective.backbone.modality.positions
    given: list[Tensor] = []
    positions.register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    objective.train()
    torch.manual_seed(3)
    objective(batch, mask)
    torch.manual_seed(4)
    objective(batch, mask)
    hidden = [gather(x, mask.hidden) for x in given]
    assert not torch.equal(hidden[0], hidden[1])
    assert 0.4 < hidden[0].std() < 0.6
    assert torch.equal(*(gather(x, mask.visible) for x in given))


# The decoder.


GROUPS = 4


def restated(decoder: ConvDecoder, latent: Tensor, mask: Mask, grid: tuple[int, ...], noise: Tensor) -> Tensor:
    """What the decoder should give at every place of the grid, (B, *grid, W), written out."""
    x = noise.flatten(1, -2).clone()
    for row in range(len(x)):
        for slot, token in enumerate(mask.visible[row].tolist()):
            x[row, token] = latent[row, slot]
    x = x.unflatten(1, grid)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(grid)]
    for layer in decoder.layers:
        padding = layer.weight.shape[2] // 2
        out = convolve(x.movedim(-1, 1), layer.weight, layer.bias, padding=padding, groups=GROUPS).movedim(1, -1)
        mean = out.mean(-1, keepdim=True)
        variance = (out - mean).square().mean(-1, keepdim=True)
        out = (out - mean) / torch.sqrt(variance + 1e-5)
        out = out * 0.5 * (1 + torch.erf(out / math.sqrt(2)))
        x = x + out if decoder.residual and x.shape == out.shape else out
    return x


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("width", [16, 24])
@pytest.mark.parametrize(("grid", "kernel"), [((4, 6), 3), ((15,), 7), ((2, 3, 3), 3)])
def test_the_decoder_is_convolutions_over_noise_and_visible_tokens(grid, kernel: int, width: int, residual: bool):
    torch.manual_seed(0)
    decoder = ConvDecoder(16, width, len(grid), kernel, GROUPS, layers=3, residual=residual, noise_std=0.5, dropout=0.0)
    count = math.prod(grid)
    mask = RandomMask(0.5).draw(0, torch.arange(3), grid)
    latent = torch.randn(3, count - mask.hidden.shape[1], 16)
    torch.manual_seed(1)
    given = decoder(latent, mask, grid)
    torch.manual_seed(1)
    noise = torch.randn(3, *grid, 16) * 0.5
    wanted = restated(decoder, latent, mask, grid, noise).flatten(1, -2)
    assert given.shape == (3, mask.hidden.shape[1], width)
    for row in range(3):
        torch.testing.assert_close(given[row], wanted[row, mask.hidden[row]], rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing_that_the_decoder_says():
    torch.manual_seed(0)
    decoder = ConvDecoder(16, 16, 1, 7, groups=4, layers=3, residual=True, noise_std=0.0, dropout=0.0)
    counts = torch.tensor([12, 7])
    mask = SpanMask(0.5, length=2).draw(0, torch.arange(2), (12,), counts)
    latent = torch.randn(2, mask.visible.shape[1], 16)
    real = torch.arange(12) < counts[:, None]
    together = decoder(latent, mask, (12,), real)
    kept, hidden = mask.visible[1] < 7, mask.counted[1]
    alone = Mask(mask.visible[1:, kept], mask.hidden[1:, hidden])
    assert 0 < hidden.sum() < len(hidden)
    torch.testing.assert_close(together[1:, hidden], decoder(latent[1:, kept], alone, (7,)), rtol=1e-4, atol=1e-5)


def test_padding_changes_no_prediction_of_a_clip():
    objective, batch = make_speech(masks_per_sample=1, mask_noise_std=0.0), make_sound(11, 6)
    mask = SpanMask(0.5, length=2).draw(0, batch.positions, (11,), torch.tensor([11, 6]))
    predictions = spy(objective.head)
    objective(batch, mask)
    hidden = mask.counted[1]
    alone = Mask(mask.visible[1:, mask.visible[1] < 6], mask.hidden[1:, hidden])
    short = int(batch.lengths[1])
    objective(Batch(batch.inputs[1:, :short], batch.positions[1:], lengths=batch.lengths[1:]), alone)
    torch.testing.assert_close(predictions[0][1, hidden], predictions[1][0], rtol=1e-4, atol=1e-5)


def test_decoder_dropout_acts_on_the_encoders_output_before_the_noise():
    decoder = ConvDecoder(16, 16, 1, 3, groups=1, layers=1, residual=False, noise_std=0.0, dropout=0.5)
    mask = hide_top(torch.arange(8.0)[None], 4)
    given: list[Tensor] = []
    decoder.layers[0].register_forward_hook(lambda module, inputs, output: given.append(inputs[0]))
    latent = torch.ones(1, 4, 16)
    decoder(latent, mask, (8,))
    decoder.eval()
    decoder(latent, mask, (8,))
    assert set(given[0][0, :, :4].unique().tolist()) == {0.0, 2.0}
    assert (given[1][0, :, :4] == 1).all()
    assert not given[1][0, :, 4:].any()


@pytest.mark.parametrize("layers", [1, 2])
def test_the_head_starts_small_and_doubles_the_width_inside(layers: int):
    objective = make_images(head_layers=layers)
    linear = [module for module in objective.head if isinstance(module, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == {1: [(24, 32)], 2: [(24, 48), (48, 32)]}[layers]
    weights = torch.cat([m.weight.flatten() for m in linear])
    assert weights.std().item() == pytest.approx(0.02, rel=0.1)
    assert not any(m.bias.any() for m in linear)


# The loss.


@pytest.mark.parametrize(("reduction", "scale"), [("mean", 1.0), ("root", math.sqrt(WIDTH)), ("sum", WIDTH)])
@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_the_loss_is_the_error_at_hidden_tokens_and_at_the_class_token(reduction: str, scale: float, beta: float):
    objective = make_images(cls_weight=0.7, reduction=reduction, beta=beta)
    batch = make_batch(2)
    mask = masks(batch)
    predictions, students = spy(objective.head), spy(objective.backbone.encoder)
    out = objective(batch, mask)
    targets = objective.targets(batch)

    def error(a: Tensor, b: Tensor) -> float:
        total = 0.0
        for difference in (a - b).flatten().tolist():
            size = abs(difference)
            total += size**2 if beta == 0 else size**2 / 2 / beta if size < beta else size - beta / 2
        return total / a.numel()

    rows = range(2 * MASKS)
    hidden = [error(predictions[0][row], targets[row // MASKS, mask.hidden[row]]) for row in rows]
    whole = [error(students[0][row, 0], targets[row // MASKS].mean(0)) for row in rows]
    expected = scale * (sum(hidden) + 0.7 * sum(whole)) / len(rows)
    assert out.loss.item() == pytest.approx(expected, rel=1e-4)
    assert out.metrics["cls_loss"].item() == pytest.approx(scale * sum(whole) / len(rows), rel=1e-4)
    assert 0.5 < out.metrics["target_std"] < 1.5


def test_the_class_tokens_target_leaves_padding_out():
    torch.manual_seed(0)
    modality = Speech(WIDTH, 0.25, conv_width=8, position_layers=2, position_kernel=3, position_groups=4)
    backbone = Backbone(modality, Encoder(WIDTH, 3, 4, style=Style(norm_first=False)))
    objective = Data2Vec2(backbone, **{**SETTINGS, "cls_weight": 1.0, "masks_per_sample": 1})
    batch = make_sound(11, 6)
    mask = SpanMask(0.5, length=2).draw(0, batch.positions, (11,), torch.tensor([11, 6]))
    students = spy(backbone.encoder)
    out = objective(batch, mask)
    targets = objective.targets(batch)
    wholes = torch.stack([targets[0].mean(0), targets[1, :6].mean(0)])
    expected = (students[0][:, 0] - wholes).square().mean() * math.sqrt(WIDTH)
    torch.testing.assert_close(out.metrics["cls_loss"], expected, rtol=1e-4, atol=1e-5)


def test_hidden_frames_that_are_padding_do_not_count():
    objective, batch = make_speech(masks_per_sample=1, mask_noise_std=0.0), make_sound(11, 6)
    mask = SpanMask(0.5, length=2).draw(0, batch.positions, (11,), torch.tensor([11, 6]))
    predictions = spy(objective.head)
    loss = objective(batch, mask).loss
    targets = objective.targets(batch)
    errors = []
    for row in range(2):
        for slot, token in enumerate(mask.hidden[row].tolist()):
            if mask.counted[row, slot]:
                assert token < (11, 6)[row]
                errors.append((predictions[0][row, slot] - targets[row, token]).square().sum())
    assert len(errors) < mask.hidden.numel()
    torch.testing.assert_close(loss, torch.stack(errors).mean() / math.sqrt(WIDTH), rtol=1e-4, atol=1e-5)


# Gradients, teacher, parameter groups.


@pytest.mark.parametrize("kind", ["image", "speech"])
def test_gradients_reach_every_parameter_of_the_student_and_none_of_the_teacher(kind: str):
    if kind == "image":
        objective, batch = make_images(cls_weight=0.7, head_layers=2), make_batch(4)
        mask = masks(batch)
    else:
        objective, batch = make_speech(), make_sound(12, 12)
        mask = SpanMask(0.5, length=2).draw(0, torch.arange(2 * MASKS), (12,))
    objective(batch, mask).loss.backward()
    for name, parameter in objective.named_parameters():
        if name.startswith("teacher."):
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.any() or parameter.numel() == 0, name


def test_the_teacher_stands_still_once_tau_is_one():
    objective = make_images()
    before = {k: v.clone() for k, v in objective.teacher.model.state_dict().items()}
    objective.after_step(4)  # tau_steps
    assert all(torch.equal(before[k], v) for k, v in objective.teacher.model.state_dict().items())
    objective.after_step(2)  # tau = .75
    student = dict(objective.backbone.named_parameters())
    for name, value in objective.teacher.model.named_parameters():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * student[name])


@pytest.mark.parametrize(("kind", "averaged"), [
    ("image", {"modality.projection", "class_token", "encoder"}),
    ("speech", {"modality.positions", "encoder", "position_bias"}),
    ("text", {"encoder.blocks"}),
])  # fmt: skip
def test_the_teacher_averages_what_the_paper_says(kind: str, averaged: set[str]):
    from omegaconf import OmegaConf

    copied = tuple(OmegaConf.load(ROOT / "conf" / "published" / f"data2vec2_{kind}.yaml").objective.copied)
    objective = make_images(copied=copied) if kind != "speech" else make_speech(copied=copied)
    objective.after_step(1)
    student = dict(objective.backbone.named_parameters())
    for name, value in objective.teacher.model.named_parameters():
        assert torch.equal(value, student[name]) != name.startswith(tuple(averaged)), name


def test_slopes_norms_and_biases_do_not_decay_and_convolutions_do():
    objective = make_speech()
    names = {id(p): name for name, p in objective.named_parameters()}
    still, decaying = set(), set()
    for group in parameter_groups(objective, 0.05):
        (decaying if group["weight_decay"] else still).update(names[id(p)] for p in group["params"])
    assert "backbone.position_bias.scale" in still
    assert "decoder.layers.0.bias" in still
    assert "decoder.layers.0.weight" in decaying
    assert not any(name.startswith("teacher.") for name in still | decaying)


# Masks.


@pytest.mark.parametrize(
    ("grid", "ratio", "adjust", "squares", "visible"),
    [((14, 14), 0.8, 0.07, 5, 39), ((14, 14), 0.75, 0.1, 7, 49), ((16, 16), 0.75, 0.1, 9, 64)],
)
def test_as_many_squares_and_visible_tokens_as_in_the_released_code(grid, ratio, adjust, squares: int, visible: int):
    strategy = KeptSquaresMask(ratio, side=3, adjust=adjust)
    assert strategy.squares(math.prod(grid)) == squares
    assert strategy.draw(0, torch.arange(4), grid).visible.shape == (4, visible)


@pytest.mark.parametrize(("ratio", "side", "grid"), [(0.8, 3, (14, 14)), (0.6, 5, (9, 12)), (0.9, 1, (14, 14))])
def test_kept_tokens_are_squares_with_a_random_rest(ratio: float, side: int, grid, monkeypatch: pytest.MonkeyPatch):
    from unmask.masking import kept_squares

    drawn: dict[str, Tensor] = {}
    original = kept_squares.noise

    def keep(seed, purpose, positions, count):
        drawn[purpose] = original(seed, purpose, positions, count)
        return drawn[purpose]

    monkeypatch.setattr(kept_squares, "noise", keep)
    strategy = KeptSquaresMask(ratio, side=side, adjust=0.07)
    rows, columns = grid
    mask = strategy.draw(5, torch.arange(50), grid)
    hidden = as_grid(mask, grid)
    surplus = 0
    for row in range(50):
        painted = torch.zeros(grid, dtype=torch.bool)
        for number in drawn["squares"][row].tolist():
            centre = int(number * rows * columns)
            y, x = divmod(centre, columns)
            for dy in range(-(side // 2), side // 2 + 1):
                for dx in range(-(side // 2), side // 2 + 1):
                    painted[min(max(y + dy, 0), rows - 1), min(max(x + dx, 0), columns - 1)] = True
        kept = ~hidden[row]
        if painted.sum() >= kept.sum():
            surplus += 1
            assert not (kept & ~painted).any()
        else:
            assert not (painted & hidden[row]).any()
    if side == 3:
        assert 0 < surplus < 50  # both kinds of mending were seen


@pytest.mark.parametrize("grid", [(14, 14), (6, 10), (4, 4)])
@pytest.mark.parametrize("ratio", [0.3, 0.75, 0.9])
def test_kept_squares_prefer_no_side_and_keep_neighbours_together(grid, ratio: float):
    result = audit(KeptSquaresMask(ratio, side=3, adjust=0.07), grid, seed=0, count=4000)
    assert result.bias is None
    independent = audit(RandomMask(ratio), grid, seed=0, count=2000)
    if ratio == 0.75:
        assert result.visible_run > 1.2 * independent.visible_run
        assert result.ratio[0] == result.ratio[2] == pytest.approx(0.75, abs=0.01)


def test_a_mask_of_squares_is_a_function_of_seed_and_position():
    draw = KeptSquaresMask(0.75, side=3, adjust=0.07).draw
    whole = draw(7, torch.arange(64), (14, 14))
    assert torch.equal(whole.hidden[20:30], draw(7, torch.arange(20, 30), (14, 14)).hidden)
    assert not torch.equal(whole.hidden, draw(8, torch.arange(64), (14, 14)).hidden)


# Mistakes, and the real program.


def test_what_cannot_be_is_said_in_one_sentence():
    with pytest.raises(ConfigError, match=r"objective\.cls_weight=0\.5 weighs a class token, and there is none"):
        make_images(class_token=False, cls_weight=0.5)
    with pytest.raises(ConfigError, match=r"objective\.decoder_kernel=4 has no middle\. Choose 5"):
        make_images(decoder_kernel=4)
    with pytest.raises(ConfigError, match=r"objective\.decoder_groups=16 does not divide objective\.decoder_width=24"):
        make_images(decoder_groups=16)
    with pytest.raises(ConfigError, match=r"decoder_groups=3 does not divide model\.width=32\. Choose 2"):
        make_images(decoder_groups=3)
    with pytest.raises(ConfigError, match=r"mask\.side=2"):
        KeptSquaresMask(0.75, side=2, adjust=0.1)
    with pytest.raises(ConfigError, match=r"mask\.adjust=-1"):
        KeptSquaresMask(0.75, side=3, adjust=-1)
    with pytest.raises(ConfigError, match=r"this grid has one axis\. Use mask=span"):
        KeptSquaresMask(0.75, side=3, adjust=0.1).draw(0, torch.arange(1), (100,))


@pytest.mark.parametrize(("word", "expected"), [
    ("objective.masks_per_sample=0", "masks_per_sample=0 is not possible. It must be a whole number of masks"),
    ("objective.mask_noise_std=-1", "objective.mask_noise_std=-1"),
    ("objective.cls_weight=-1", "objective.cls_weight=-1"),
    ("objective.decoder_kernel=4", "objective.decoder_kernel=4 is not possible. It must be an odd number of tokens"),
    ("objective.decoder_layers=0", "objective.decoder_layers=0"),
    ("objective.decoder_groups=7", "objective.decoder_groups=7 does not divide model.width=64. Choose 4"),
    ("objective.decoder_dropout=1", "objective.decoder_dropout=1"),
    ("model.class_token=false", "Set objective.cls_weight=0, or model.class_token=true"),
    ("mask.side=2", "mask.side=2"),
    ("mask.adjust=2", "mask.adjust=2"),
])  # fmt: skip
def test_a_mistake_on_the_command_line_gets_one_sentence(train, capsys, word: str, expected: str):
    with pytest.raises(SystemExit) as exit_:
        train("objective=data2vec2", "mask=kept_squares", word)
    error = capsys.readouterr().err.strip()
    assert exit_.value.code == 2
    assert error.startswith("error: ")
    assert expected in error
    assert len(error.splitlines()) == 1


def test_a_resumed_run_draws_the_same_noise_and_a_picture_shows_each_sample_once(train, tmp_path: Path):
    quick = [word for word in QUICK if word != "callbacks.pictures=null"]
    words = ("objective=data2vec2", "mask=kept_squares", "objective.mask_noise_std=0.5", *quick)
    whole = train(*words, "callbacks.pictures.count=2", "trainer.max_steps=6", folder="whole")
    part = train(*words, "callbacks.pictures.count=2", "trainer.max_steps=3", "scheduler=constant", folder="part")
    assert (whole / "pictures" / "step=000000006.png").exists()
    train(*words, "callbacks.pictures.count=2", "trainer.max_steps=6", "scheduler=constant", folder="constant")
    train(f"resume={part}", "trainer.max_steps=6")
    assert_bit_equal(part, tmp_path / "constant")
