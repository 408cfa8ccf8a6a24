"""Speech: equal to transformers' Data2VecAudio, blind to padding, and nothing leaks."""

import math

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn
from torch.nn.functional import layer_norm, pad
from torchaudio.transforms import MelSpectrogram
from transformers import Data2VecAudioConfig, Data2VecAudioModel

from tests.conftest import ROOT
from unmask.backbone import Backbone
from unmask.build.pretrain import build_sample_side
from unmask.data.stream import Item, collate
from unmask.errors import ConfigError
from unmask.masking.audit import as_grid
from unmask.masking.span import SpanMask, Wav2vecMask
from unmask.modality.speech import GREY, Speech
from unmask.nn.block import Style
from unmask.nn.conv import FIELD, HOP, LAYERS, ConvPosition, count_frames
from unmask.nn.encoder import Encoder
from unmask.nn.position import sincos_1d
from unmask.objective.data2vec import Data2Vec
from unmask.objective.mae import MAE
from unmask.schema import Batch, Sample

WIDTH, CHANNELS, DEPTH, HEADS, GROUPS = 32, 24, 3, 4, 4
POST_NORM = Style(norm_first=False, norm_eps=1e-5, init="normal")
DATA2VEC = {
    "top_k": None, "target": "ffn", "layer_norm": "instance", "target_norm": "none", "beta": 0.0,
    "reduction": "root", "head_layers": 1, "tau_start": 0.99, "tau_end": 0.999, "tau_steps": 10,
}  # fmt: skip


def make_backbone(style: Style = POST_NORM, class_token: bool = False, seed: int = 0, **settings) -> Backbone:
    """A toy backbone for clips of up to a second."""
    torch.manual_seed(seed)
    speech = Speech(WIDTH, 1.0, conv_width=CHANNELS, position_groups=GROUPS, **settings)
    return Backbone(speech, Encoder(WIDTH, DEPTH, HEADS, style=style), class_token).eval()


def randomise(module: nn.Module, seed: int = 1) -> None:
    """Give every parameter a random value: freshly built, many are zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)


def make_clips(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    """Noise whose loudness changes with time."""
    generator = torch.Generator().manual_seed(seed)
    return [
        0.1 * torch.randn(n, generator=generator) * torch.linspace(0, 9, n).sin()
        + 0.02 * torch.linspace(0, 2000, n).sin()
        for n in lengths
    ]


def make_batch(speech: Speech, *lengths: int, seed: int = 0) -> Batch:
    """Transformed clips, padded to the longest."""
    transform = speech.transform(train=False)
    clips = make_clips(*lengths, seed=seed)
    return collate([Item(transform(Sample(clip, None)), p, None, ()) for p, clip in enumerate(clips)])


def alone(batch: Batch, row: int) -> Batch:
    """One clip of a batch without its padding."""
    assert batch.lengths is not None
    return Batch(batch.inputs[row : row + 1, : batch.lengths[row]], batch.positions[row : row + 1])


def make_peer() -> Data2VecAudioModel:
    config = Data2VecAudioConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        conv_dim=(CHANNELS,) * 7, num_conv_pos_embedding_groups=GROUPS, hidden_dropout=0.0, attention_dropout=0.0,
        feat_proj_dropout=0.0, layerdrop=0.0, layer_norm_eps=1e-5, attn_implementation="eager",
    )  # fmt: skip
    peer = Data2VecAudioModel(config).eval()
    randomise(peer)
    return peer


def pairs(ours: Backbone, mask_token: nn.Parameter, peer: Data2VecAudioModel, read):
    """(name, ours, theirs) for every parameter, in our layout; `read` picks the value or the gradient."""
    rows = []

    def add(name: str, mine: nn.Parameter, theirs: torch.Tensor) -> None:
        rows.append((name, read(mine), theirs))

    def add_both(name: str, mine: nn.Module, theirs: nn.Module) -> None:
        add(f"{name}.weight", mine.weight, read(theirs.weight))
        add(f"{name}.bias", mine.bias, read(theirs.bias))

    speech = ours.modality
    add("mask_token", mask_token, read(peer.masked_spec_embed)[None, None])
    for i, layer in enumerate(peer.feature_extractor.conv_layers):
        add(f"conv.{i}", speech.conv.convs[i].weight, read(layer.conv.weight).flatten(1))
        add_both(f"conv.{i}.norm", speech.conv.norms[i], layer.layer_norm)
    add_both("norm", speech.norm, peer.feature_projection.layer_norm)
    add_both("projection", speech.projection, peer.feature_projection.projection)
    for i, layer in enumerate(peer.encoder.pos_conv_embed.layers):
        add_both(f"positions.{i}", speech.positions.convs[i], layer.conv)
    add_both("encoder.norm", ours.encoder.norm, peer.encoder.layer_norm)
    for i, (block, layer) in enumerate(zip(ours.encoder.blocks, peer.encoder.layers, strict=True)):
        projections = [layer.attention.q_proj, layer.attention.k_proj, layer.attention.v_proj]
        add(f"{i}.qkv.weight", block.attn.qkv.weight, torch.cat([read(p.weight) for p in projections]))
        add(f"{i}.qkv.bias", block.attn.qkv.bias, torch.cat([read(p.bias) for p in projections]))
        add_both(f"{i}.proj", block.attn.proj, layer.attention.out_proj)
        add_both(f"{i}.norm1", block.norm1, layer.layer_norm)
        add_both(f"{i}.norm2", block.norm2, layer.final_layer_norm)
        add_both(f"{i}.mlp.0", block.mlp[0], layer.feed_forward.intermediate_dense)
        add_both(f"{i}.mlp.2", block.mlp[2], layer.feed_forward.output_dense)
    return rows


def make_pair() -> tuple[Backbone, nn.Parameter, Data2VecAudioModel]:
    """Ours, its mask token and theirs, with the same random weights."""
    ours, peer = make_backbone(), make_peer()
    mask_token = ours.modality.new_mask_token()
    with torch.no_grad():
        for _, mine, theirs in pairs(ours, mask_token, peer, lambda p: p.data):
            mine.copy_(theirs)
    return ours, mask_token, peer


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("samples", [8000, 11_111])
def test_every_layer_and_all_gradients_equal_transformers(samples: int, masked: bool):
    ours, mask_token, peer = make_pair()
    batch = make_batch(ours.modality, samples, samples, samples)
    (tokens,) = ours.modality.grid_of(batch)
    mask = Wav2vecMask(0.5, 5).draw(0, batch.positions, (tokens,)) if masked else None

    x, bias = ours.prepare(batch, mask, mask_token, keep_hidden=True)
    layers = [ours.encoder.norm(x), *(tokens for tokens, _ in ours.encoder.layers(x, bias))]
    indices = None if mask is None else mask.is_hidden(tokens)
    theirs = peer(batch.inputs, mask_time_indices=indices, output_hidden_states=True).hidden_states
    assert len(layers) == len(theirs) == DEPTH + 1
    for mine, their in zip(layers, theirs, strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-5, atol=1e-5)

    weights = torch.randn(layers[0].shape)
    for hidden_states in (layers, theirs):
        sum((weights * hidden).mean() for hidden in hidden_states).backward()
    compared = 0
    for name, mine, their in pairs(ours, mask_token, peer, lambda p: p.grad if p.grad is not None else 0 * p.data):
        largest = mine.abs().max()
        assert largest > 0 or (name == "mask_token" and not masked), name
        assert (mine - their).abs().max() <= 1e-5 * largest, name
        compared += mine.numel()
    assert compared == sum(p.numel() for p in ours.parameters()) + WIDTH


def test_each_clip_of_a_padded_batch_is_what_transformers_makes_of_it_alone():
    ours, _, peer = make_pair()
    batch = make_batch(ours.modality, 12_000, 16_000, 3001)
    encoded = ours.encode(batch)
    for row in range(3):
        theirs = peer(alone(batch, row).inputs).last_hidden_state[0]
        torch.testing.assert_close(encoded[row, : len(theirs)], theirs, rtol=1e-5, atol=1e-5)


def test_base_has_as_many_parameters_as_the_paper():
    with torch.device("meta"):
        speech = Speech(768, 15.6)
        backbone = Backbone(speech, Encoder(768, 12, 12, style=POST_NORM), class_token=False)
        objective = Data2Vec(backbone, **DATA2VEC)
    count = lambda *modules: sum(p.numel() for m in modules for p in m.parameters())  # noqa: E731
    assert count(speech.conv) == 4_206_592
    assert count(speech.norm, speech.projection) == 395_008
    assert count(speech.positions) == 3_505_920
    assert count(backbone.encoder.blocks) == 85_054_464
    assert objective.mask_token.numel() == 768
    assert count(backbone.encoder.norm) == 1536
    assert count(objective.head) == 590_592
    assert count(backbone, objective.head) + objective.mask_token.numel() == 93_754_880


def test_frames_are_counted_as_the_convolutions_count_them():
    golden = {400: 1, 16_000: 49, 32_000: 99, 80_000: 249, 160_000: 499, 250_000: 781, 320_000: 999}
    assert {samples: count_frames(samples) for samples in golden} == golden
    for samples in range(400, 3000):
        layer = samples
        for kernel, stride in LAYERS:
            layer = (layer - kernel) // stride + 1
        assert count_frames(samples) == layer
    assert make_backbone().modality.embed(Batch(torch.zeros(1, 3000), torch.arange(1))).shape[1] == count_frames(3000)


def test_a_frame_sees_its_400_samples_and_no_others():
    speech = make_backbone().modality
    waves = torch.randn(1, 4000, requires_grad=True)
    frames = speech.embed(Batch(waves, torch.arange(1)))
    for frame in (0, 5, 11):
        (seen,) = torch.autograd.grad(frames[0, frame].sin().sum(), waves, retain_graph=True)
        touched = seen[0].nonzero().flatten()
        assert (touched.min(), touched.max()) == (frame * HOP, frame * HOP + FIELD - 1)


# The lengths straddle: a frame of 12,000 samples ends at 11,920, the next would end at 12,240.
@pytest.mark.parametrize("bias", ["none", "alibi"])
@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("how", ["whole", "visible only", "all places"])
def test_padding_changes_nothing(how: str, class_token: bool, bias: str):
    style = Style(norm_first=False, position_bias=bias)
    backbone = make_backbone(style, class_token)
    randomise(backbone)
    batch = make_batch(backbone.modality, 12_000, 16_000, 420, 8081)
    fill = torch.rand(1, 1, WIDTH)
    counts = backbone.modality.counts(batch)
    assert counts.tolist() == [37, 49, 1, 25]
    junk = batch.inputs.clone()
    for row, length in enumerate(batch.lengths):
        junk[row, length:] = 7.0  # what stands in the padding does not matter
    for inputs in (batch.inputs, junk):
        padded = Batch(inputs, batch.positions, lengths=batch.lengths)
        mask = None if how == "whole" else SpanMask(0.5, 3).draw(0, batch.positions, (49,), counts)
        encoded = backbone.encode(padded, mask, fill, keep_hidden=how == "all places")
        features = backbone.features(padded)
        for row, count in enumerate(counts.tolist()):
            if count == 1 and mask is not None:
                continue  # alone it has nothing to hide
            single = alone(batch, row)
            own = None if mask is None else SpanMask(0.5, 3).draw(0, single.positions, (count,))
            expected = backbone.encode(single, own, fill, keep_hidden=how == "all places")[0]
            torch.testing.assert_close(encoded[row, : len(expected)], expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(features[row], backbone.features(single)[0], rtol=1e-5, atol=1e-5)


def test_targets_and_raw_features_know_no_padding():
    speech = make_backbone().modality
    batch = make_batch(speech, 12_000, 16_000, 8081)
    counts = speech.counts(batch)
    mask = SpanMask(0.5, 3).draw(0, batch.positions, (49,), counts)
    for normalize in (True, False):
        target = speech.target(batch, mask, normalize)
        for row, count in enumerate(counts.tolist()):
            single = alone(batch, row)
            own = SpanMask(0.5, 3).draw(0, single.positions, (count,))
            expected = speech.target(single, own, normalize)[0]
            torch.testing.assert_close(target[row][mask.counted[row]], expected, rtol=1e-4, atol=1e-4)
    raw = speech.raw_features(batch)
    assert raw.shape == (3, 160)
    for row in range(3):
        torch.testing.assert_close(raw[row], speech.raw_features(alone(batch, row))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strategy", [SpanMask(0.5, 4), Wav2vecMask(0.5, 4)])
def test_what_is_hidden_never_reaches_what_is_visible(strategy):
    backbone = make_backbone()
    batch = make_batch(backbone.modality, 16_000, 12_000)
    mask = strategy.draw(0, batch.positions, (49,), backbone.modality.counts(batch))
    local = backbone.modality.embed(batch)
    before = backbone.encode(batch, mask, local=local)
    hidden = as_grid(mask, (49,))[..., None]
    changed = torch.where(hidden, torch.randn_like(local) * 9, local)
    assert torch.equal(before, backbone.encode(batch, mask, local=changed))
    assert not torch.allclose(before, backbone.encode(batch, mask, local=local + 1))


def test_changing_hidden_samples_changes_no_frame_that_does_not_hear_them():
    backbone = make_backbone()
    batch = make_batch(backbone.modality, 16_000)
    mask = SpanMask(0.5, 8).draw(0, batch.positions, (49,))
    heard = torch.zeros(16_000, dtype=torch.bool)
    for frame in mask.visible[0].tolist():
        heard[frame * HOP : frame * HOP + FIELD] = True
    changed = torch.where(heard, batch.inputs, torch.randn(1, 16_000))
    assert (~heard).sum() > 16_000 * 0.4
    before = backbone.encode(batch, mask)
    torch.testing.assert_close(before, backbone.encode(Batch(changed, batch.positions), mask), rtol=1e-5, atol=1e-5)


def test_positions_see_as_far_as_their_kernels_reach():
    layers, kernel = 2, 5
    positions = ConvPosition(8, layers, kernel, groups=2)
    tokens = torch.randn(1, 40, 8, requires_grad=True)
    (seen,) = torch.autograd.grad(positions(tokens)[0, 20].sin().sum(), tokens)
    touched = seen[0].abs().sum(1).nonzero().flatten()
    assert (touched.min(), touched.max()) == (20 - layers * (kernel // 2), 20 + layers * (kernel // 2))


def test_clips_are_normalised_whole_then_cropped():
    speech = make_backbone().modality
    (clip,) = make_clips(20_000)
    still = speech.transform(train=False)(Sample(clip, None))
    middle = clip[2000:18_000]
    torch.testing.assert_close(still, layer_norm(clip, clip.shape)[2000:18_000])
    torch.manual_seed(0)
    crops = [speech.transform(train=True)(Sample(clip, None)) for _ in range(20)]
    assert {len(crop) for crop in crops} == {16_000}
    assert len({crop[0].item() for crop in crops}) > 10
    plain = make_backbone(normalize=False).modality.transform(train=False)
    assert torch.equal(plain(Sample(clip, None)), middle)


def test_a_clip_of_less_than_a_frame_is_filled_up():
    speech = make_backbone().modality
    (clip,) = make_clips(100)
    value = speech.transform(train=True)(Sample(clip, None))
    torch.testing.assert_close(value, pad(layer_norm(clip, clip.shape), (0, 300)))
    silent = speech.transform(train=True)(Sample(torch.zeros(500), None))
    assert not silent.any()


def test_log_mel_frames_lie_where_the_tokens_lie():
    speech = make_backbone().modality
    batch = make_batch(speech, 16_000, 16_000)
    theirs = MelSpectrogram(n_fft=400, hop_length=320, center=False, n_mels=80, mel_scale="slaney")
    expected = theirs(batch.inputs).clamp(min=1e-5).log().transpose(1, 2)
    torch.testing.assert_close(speech.log_mel(batch), expected, rtol=1e-4, atol=1e-4)
    frame = batch.inputs[:, 7 * HOP : 7 * HOP + FIELD]
    torch.testing.assert_close(
        speech.log_mel(Batch(frame, batch.positions))[:, 0], expected[:, 7], rtol=1e-4, atol=1e-4
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(speech.log_mel(batch), speech.log_mel(batch).float())
        torch.testing.assert_close(speech.log_mel(batch), expected, rtol=1e-4, atol=1e-4)


def test_normalised_targets_have_every_band_by_its_mean_and_deviation_over_the_real_frames():
    speech = make_backbone().modality
    batch = make_batch(speech, 16_000, 9000)
    mask = SpanMask(0.5, 3).draw(0, batch.positions, (49,), speech.counts(batch))
    target, energies = speech.target(batch, mask, normalize=True), speech.log_mel(batch)
    for row, count in enumerate((49, 27)):
        real = energies[row, :count]
        deviation = ((real - real.mean(0)).square().mean(0) + 1e-5).sqrt()
        for slot, token in enumerate(mask.hidden[row].tolist()):
            if mask.counted[row, slot]:
                expected = (energies[row, token] - real.mean(0)) / deviation
                torch.testing.assert_close(target[row, slot], expected, rtol=1e-3, atol=1e-4)


def test_the_decoder_table_is_half_sines_half_cosines():
    table = sincos_1d(6, 4)
    for token in range(4):
        angles = [token / 10_000 ** (i / 3) for i in range(3)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert table[token].tolist() == pytest.approx(expected, abs=1e-6)
    assert make_backbone().modality.position(10)().shape == (49, 10)
    with pytest.raises(ConfigError, match=r"model\.decoder\.width=9 .*even number"):
        make_backbone().modality.position(9)


def test_the_mask_token_is_uniform_between_zero_and_one():
    token = Speech(512, 1.0).new_mask_token()
    assert token.shape == (1, 1, 512)
    assert 0 <= token.min() < 0.02 < 0.98 < token.max() < 1
    assert token.mean().item() == pytest.approx(0.5, abs=0.05)


def test_convolutions_start_as_kaimings():
    speech = Speech(512, 1.0)
    for layer, (kernel, _) in enumerate(LAYERS):
        std = math.sqrt(2 / (kernel * (512 if layer else 1)))
        assert speech.conv.convs[layer].weight.std().item() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("strategy", [SpanMask(0.5, 5), Wav2vecMask(0.5, 5)])
def test_data2vec_trains_on_padded_speech_with_the_students_own_frames(strategy):
    backbone = make_backbone().train()
    objective = Data2Vec(backbone, **DATA2VEC)
    assert objective.shares_local
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], 1e-3)
    batch = make_batch(backbone.modality, 16_000, 9000, 12_000)
    counts = backbone.modality.counts(batch)
    for step in range(1, 4):
        out = objective(batch, strategy.draw(step, batch.positions, (49,), counts))
        optimizer.zero_grad()
        out.loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())
        optimizer.step()
        objective.after_step(step)
    teacher = objective.teacher.model
    for name, mine in backbone.named_parameters():
        same = torch.equal(mine, teacher.get_parameter(name))
        assert same == name.startswith(("modality.", "class_token")), name


def test_the_teachers_layers_are_normalised_over_real_frames():
    backbone = make_backbone()
    objective = Data2Vec(backbone, **DATA2VEC)
    batch = make_batch(backbone.modality, 16_000, 9000)
    targets = objective.targets(batch)
    for row, count in enumerate((49, 27)):
        expected = objective.targets(alone(batch, row))[0]
        assert len(expected) == count
        torch.testing.assert_close(targets[row, :count], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(targets[row, :count].mean(0), torch.zeros(WIDTH), rtol=0, atol=1e-4)


@pytest.mark.parametrize("strategy", [SpanMask(0.5, 5), Wav2vecMask(0.3, 3)])
def test_mae_learns_a_spectrogram(strategy):
    mae = MAE(make_backbone().train(), 16, 1, 2, normalize=True)
    optimizer = torch.optim.Adam(mae.parameters(), 3e-3)
    batch = make_batch(mae.backbone.modality, 16_000, 9000, 12_000)
    mask = strategy.draw(0, batch.positions, (49,), mae.backbone.modality.counts(batch))
    losses = []
    for _ in range(40):
        out = mae(batch, mask)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
    assert losses[0] > 0.7  # targets have variance one
    assert losses[-1] < 0.6 * losses[0]


def test_a_picture_shows_hidden_frames_in_grey_and_a_perfect_guess_as_the_input():
    speech = make_backbone().modality
    batch = make_batch(speech, 16_000, 9000)
    mask = SpanMask(0.5, 5).draw(0, batch.positions, (49,), speech.counts(batch))
    for normalized in (True, False):
        target = speech.target(batch, mask, normalized)
        sheet = speech.picture(batch, mask, target, normalized)
        rows = sheet.reshape(3, -1, *sheet.shape[1:])[:, 22:]
        assert sheet.dtype == "uint8"
        assert (abs(rows[0].astype(int) - rows[2]) <= 1).all()
        first = rows[1][:80, :49, 0]
        grey = (first == GREY).all(0)
        assert grey.tolist() == mask.is_hidden(49)[0].tolist()
        assert (rows[:, :80, 53 + 27 : 53 + 49] == 255).all()  # padding of the second clip
    assert speech.picture(batch, mask, None, normalized=False).shape[0] == 2 * (80 + 4 + 22)


def test_a_sound_has_the_energies_that_it_is_made_from_and_a_perfect_guess_sounds_as_the_input():
    speech = make_backbone().modality
    time = torch.arange(FIELD + 48 * HOP) / 16_000
    rising = torch.sin(2 * math.pi * (300 + 900 * time) * time) * (0.2 + time)
    rising += 0.05 * torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    clips = [layer_norm(clip, clip.shape) for clip in (rising, rising[: FIELD + 20 * HOP])]
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = Batch(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.arange(2), lengths=lengths)
    mask = SpanMask(0.5, 5).draw(0, batch.positions, (49,), speech.counts(batch))
    media = speech.media(batch, mask, speech.target(batch, mask, True), normalized=True)
    input_, again = (media[name].samples for name in ("input", "reconstruction"))
    assert (input_ - again).abs().max() < 1e-2 * input_.abs().max()
    first, second = input_.view(2, -1)[:, : len(time)]
    assert second[lengths[1] + FIELD :].abs().max() < 0.05 * second.abs().max()  # padding is silent
    energies = [speech.log_mel(Batch((wave / wave.std())[None], torch.arange(1))) for wave in (first, clips[0])]
    error = (energies[0] - energies[1]).abs()[:, 2:-2].mean()
    shifted = [(energies[0].roll(k, 1) - energies[1]).abs()[:, 2:-2].mean() for k in (-1, 1)]
    assert error < 0.5  # nats
    assert error < min(shifted)
    assert list(speech.media(batch, mask, None, normalized=True)) == ["input"]


def test_low_notes_lie_at_the_bottom_of_a_picture():
    speech = make_backbone().modality
    tone = torch.sin(torch.arange(16_000) * (2 * math.pi * 300 / 16_000))[None]  # 300 Hz, of 8,000
    batch = Batch(tone, torch.arange(1))
    sheet = speech.picture(batch, SpanMask(0.5).draw(0, batch.positions, (49,)), None, normalized=False)
    assert 60 < sheet[22 : 22 + 80, 10, 0].argmax() < 80


def test_a_speech_backbone_is_the_same_when_loaded(tmp_path):
    backbone = make_backbone(Style(norm_first=False, position_bias="alibi"))
    randomise(backbone)
    backbone.save(tmp_path)
    batch = make_batch(backbone.modality, 16_000, 9000)
    assert torch.equal(Backbone.load(tmp_path).eval().features(batch), backbone.features(batch))


def test_mistakes_are_named():
    with pytest.raises(
        ConfigError, match=r"modality\.position_groups=16 does not divide model\.width=40.*such as 10\."
    ):
        Speech(40, 1.0)
    with pytest.raises(ConfigError, match=r"modality\.position_kernel=18 .*Choose 19\."):
        Speech(32, 1.0, position_kernel=18)
    with pytest.raises(ConfigError, match=r"modality\.crop_seconds=0\.03 .*Choose at least 0\.045\."):
        Speech(32, 0.03)


@pytest.mark.parametrize("mask", ["span", "wav2vec"])
def test_modality_speech_alone_is_a_sensible_run(mask: str):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", ["modality=speech", "objective=data2vec", f"mask={mask}", "model=small"])
    assert (cfg.data.name, cfg.encoder.name, cfg.mask.name, cfg.mask.ratio) == ("spoken_words", "post_norm", mask, 0.5)
    assert not cfg.model.class_token
    assert {k: cfg.objective[k] for k in ("target", "layer_norm", "target_norm", "beta", "reduction")} == {
        "target": "ffn", "layer_norm": "instance", "target_norm": "none", "beta": 0.0, "reduction": "root",
    }  # fmt: skip
    modality, _ = build_sample_side(cfg)
    assert modality.settings["crop_seconds"] == cfg.data.crop_seconds
