"""The audio modality: Kaldi's spectrogram, patches of it, and what clips of any length become."""

import math

import pytest
import torch
from torchaudio.compliance import kaldi

from unmask.errors import ConfigError
from unmask.masking.random import RandomMask
from unmask.modality.audio import BANDS, HOP, RATE, WINDOW, Audio, AudioTransform, fbank
from unmask.modality.vocoder import to_wave
from unmask.nn.position import sincos_2d
from unmask.schema import Batch, Sample


def sound(samples: int, seed: int = 0) -> torch.Tensor:
    """Noise under a tone, off centre."""
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise + 0.4 * torch.sin(torch.arange(samples) * 0.3) + 0.05


def make_audio(seconds: float = 0.64, patch_size: int = 16, **settings) -> Audio:
    return Audio(32, seconds, patch_size, [-3.0], [2.0], **settings)


def test_the_spectrogram_is_kaldis_of_the_centred_wave():
    wave = sound(WINDOW + 63 * HOP)
    energies = AudioTransform(64, random=False, roll_gain=False)(Sample(wave, None))
    centred = (wave - wave.mean())[None]
    expected = kaldi.fbank(
        centred, htk_compat=True, sample_frequency=16_000, use_energy=False, window_type="hanning",
        num_mel_bins=128, dither=0.0, frame_shift=10,
    )  # fmt: skip
    assert energies.shape == (64, 128)
    assert torch.equal(energies, expected)


def test_a_frame_is_the_log_of_mel_sums_of_a_power_spectrum():
    """Restated: centre the window, emphasise, Hann, spectrum of 512, triangles on the HTK mel scale, log."""
    wave = sound(WINDOW)
    frame = wave - wave.mean()
    frame = frame - 0.97 * torch.cat([frame[:1], frame[:-1]])
    power = torch.fft.rfft(frame * torch.hann_window(WINDOW, periodic=False), 512).abs().square()

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    edges = torch.linspace(mel(20), mel(8000), BANDS + 2)
    bins = torch.tensor([mel(i * 16_000 / 512) for i in range(257)])
    for band in (20, 64, 127):
        left, centre, right = edges[band : band + 3]
        triangle = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
        triangle[256] = 0  # Kaldi leaves out the last bin
        assert fbank(wave)[0, band].item() == pytest.approx((power * triangle).sum().log().item(), abs=1e-3)


def test_ten_seconds_are_512_tokens_time_by_frequency():
    audio = make_audio(10.24)
    assert audio.grid == (64, 8)
    assert audio.target_size == 256
    assert torch.equal(audio.table, sincos_2d(32, (64, 8)))


def test_a_token_is_a_square_of_time_and_frequency():
    audio = make_audio()
    energies = torch.randn(1, 64, 128)
    patches = audio.patches(Batch(energies, torch.arange(1)))
    for row, column in ((0, 0), (1, 5), (3, 7)):
        square = energies[0, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        assert torch.allclose(patches[0, 8 * row + column], ((square + 3) / 4).flatten())


def test_a_token_may_be_a_few_frames_of_all_bands():
    audio = make_audio(patch_size=2, patch_bands=128)
    energies = torch.randn(1, 64, 128)
    patches = audio.patches(Batch(energies, torch.arange(1)))
    assert audio.grid == (32, 1)
    assert torch.equal(audio.table, sincos_2d(32, (32, 1)))
    assert torch.allclose(patches[0, 5], ((energies[0, 10:12] + 3) / 4).flatten())
    assert torch.allclose(audio.spectrogram(patches), (energies + 3) / 4)


@pytest.mark.parametrize("samples", [1, 100, WINDOW, 5000])
def test_short_clips_are_filled_up_with_zeros_before_they_are_normalised(samples: int):
    audio = make_audio()
    energies = audio.transform(train=True)(Sample(sound(samples), None))
    frames = max(1, (samples - WINDOW) // HOP + 1)
    assert energies.shape == (64, 128)
    assert energies.isfinite().all()
    assert energies[:frames].any(dim=1).all()
    assert not energies[frames:].any()


def test_long_clips_are_cropped_in_the_middle_to_look_at_and_anywhere_to_train_on():
    audio, clip = make_audio(), Sample(sound(40_000), None)
    whole = fbank(clip.value - clip.value.mean())
    still = audio.transform(train=False)(clip)
    start = (40_000 - (63 * HOP + WINDOW)) // 2
    assert torch.allclose(still, fbank((clip.value - clip.value.mean())[start : start + 63 * HOP + WINDOW]))
    assert len(whole) > 64
    torch.manual_seed(0)
    crops = [audio.transform(train=True)(clip) for _ in range(3)]
    assert not torch.equal(crops[0], crops[1])


def test_roll_and_gain_move_and_scale_the_wave_of_training_clips_only():
    audio, clip = make_audio(roll_gain=True), Sample(sound(63 * HOP + WINDOW), None)
    torch.manual_seed(0)
    still, moved = (audio.transform(train=train)(clip) for train in (False, True))
    assert torch.equal(still, make_audio().transform(train=False)(clip))
    gains = [(audio.transform(train=True)(clip).exp().sum() / still.exp().sum()).sqrt().item() for _ in range(20)]
    assert not torch.allclose(still, moved)
    assert all(0.5 <= gain <= 1.55 for gain in gains)
    assert max(gains) - min(gains) > 0.1


def test_targets_are_normalised_patches_of_the_hidden_tokens():
    audio = make_audio()
    batch = Batch(torch.randn(2, 64, 128), torch.arange(2))
    mask = RandomMask(0.75).draw(0, batch.positions, audio.grid)
    patches = audio.patches(batch)
    target = audio.target(batch, mask, normalize=True)
    for row in range(2):
        for slot, token in enumerate(mask.hidden[row].tolist()):
            values = patches[row, token]
            assert torch.allclose(target[row, slot], (values - values.mean()) / (values.var() + 1e-6).sqrt(), atol=1e-6)


def test_a_perfect_prediction_draws_the_input():
    audio = make_audio()
    batch = Batch(torch.randn(2, 64, 128), torch.arange(2))
    mask = RandomMask(0.75).draw(0, batch.positions, audio.grid)
    for normalized in (True, False):
        prediction = audio.target(batch, mask, normalized)
        assert torch.allclose(audio.filled(batch, mask, prediction, normalized), audio.patches(batch), atol=1e-5)
        sheet = audio.picture(batch, mask, prediction, normalized)
        rows = sheet.shape[0] // 3
        assert (sheet[22:rows] == sheet[2 * rows + 22 :]).all()
        assert (sheet[22:rows] != sheet[rows + 22 : 2 * rows]).any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seconds": 0.05}, "less than a patch of 16 frames. Choose at least 0.16"),
        ({"patch_size": 12}, "modality.patch_size=12 does not divide"),
        ({"patch_bands": 48}, "modality.patch_bands=48 does not divide the bands=128. Choose 32"),
        ({"mean": None}, "data_statistics=true"),
    ],
)
def test_what_cannot_be_built_says_what_to_change(settings: dict, words: str):
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        Audio(**{"width": 32, "seconds": 0.64, "patch_size": 16, "mean": [0.0], "std": [1.0], **settings})


def test_a_wave_made_from_a_spectrogram_has_that_spectrogram():
    time = torch.arange(WINDOW + 99 * HOP) / RATE
    wave = torch.sin(2 * math.pi * (300 + 900 * time) * time) * (0.2 + time)  # rises, and grows louder
    wave += 0.05 * torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    energies = fbank(wave)
    again = to_wave(energies[None], RATE)[0]
    assert len(again) == len(wave)
    error = (fbank(again) - energies).abs()
    assert error[2:-2].mean() < 0.5  # nats; bands differ by 2 from their mean
    shifted = [(fbank(again.roll(HOP * k)) - energies)[2:-2].abs().mean() for k in (-1, 1)]
    assert error[2:-2].mean() < min(shifted)


def test_what_is_heard_is_the_clips_in_a_row():
    audio = Audio(32, 0.64, 16, [-8.0], [4.0])
    transform = audio.transform(train=False)
    waves = [sound(63 * HOP + WINDOW, seed) * 0.3 for seed in range(2)]
    batch = Batch(torch.stack([transform(Sample(wave, None)) for wave in waves]), torch.arange(2))
    mask = RandomMask(0.5).draw(0, batch.positions, audio.grid)
    media = audio.media(batch, mask, audio.target(batch, mask, normalize=True), normalized=True)
    assert set(media) == {"input", "reconstruction"}
    heard = media["input"]
    assert heard.rate == RATE
    assert len(heard.samples) == 2 * (63 * HOP + WINDOW + RATE // 4)
    assert torch.allclose(heard.samples, media["reconstruction"].samples, atol=1e-2)
