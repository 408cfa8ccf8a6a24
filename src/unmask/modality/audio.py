"""Sound: Kaldi's log-mel spectrogram in, square patches of it as tokens (Audio-MAE, arXiv 2207.06405)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Beta
from torchaudio.compliance import kaldi

from unmask.errors import ConfigError
from unmask.media import Media, in_a_row
from unmask.modality.base import Transform
from unmask.modality.contact_sheet import contact_sheet
from unmask.modality.patches import PatchModality, check_patch
from unmask.modality.spectrogram import GREY, shades
from unmask.modality.vocoder import to_wave
from unmask.nn.patch import patchify, unpatchify
from unmask.nn.position import sincos_2d
from unmask.schema import Batch, Mask, Sample

RATE = 16_000  # samples a second, of every source
WINDOW, HOP = 400, 160  # samples: 25 ms every 10 ms
BANDS = 128


class Audio(PatchModality):
    """Patches of the log-mel spectrogram, rows of tokens are time and columns frequency.

    Shorter clips are filled up with zeros, which are loud beside digital silence, before anything is normalised, and
    are tokens like all others: as published.

    Args:
        width: D, token width.
        seconds: what a sample lasts, rounded to whole patches; longer clips are cropped, at random for training.
        patch_size: frames of 10 ms of a patch.
        mean: of the log energies, a list of one.
        std: their deviation, likewise; they are divided by twice that, as in Audio-MAE and AST.
        patch_bands: bands of a patch, dividing 128; None for squares. Few frames of all bands suit speech (SSAST,
            arXiv 2110.09784).
        roll_gain: shift training clips in a circle, and scale them by Beta(10, 10) + 0.5.
        position_grid: (times, frequencies) that positions are of, where clips were of another length in pretraining.

    Raises:
        ConfigError: the patch does not fit, or there are no mean and deviation.
    """

    kind = "sounds"
    adaptable = ("seconds", "roll_gain", "mean", "std")

    def __init__(
        self,
        width: int,
        seconds: float,
        patch_size: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        patch_bands: int | None = None,
        roll_gain: bool = False,
        position_grid: Sequence[int] | None = None,
    ) -> None:
        bands = patch_size if patch_bands is None else patch_bands
        check_patch(f"modality.patch_{'size' if bands == patch_size else 'bands'}", bands, "the bands", BANDS)
        if not mean or not std:
            raise ConfigError(
                "data.mean and data.std are not set: mean and deviation of the log energies of these sounds. "
                "Measure them with data_statistics=true beside the same words, and give both."
            )
        rows = round(seconds * RATE / HOP / patch_size)
        if rows < 1:
            raise ConfigError(
                f"modality.seconds={seconds} is less than a patch of {patch_size} frames. "
                f"Choose at least {patch_size * HOP / RATE:g}."
            )
        super().__init__(width, (rows, BANDS // bands), patch_size * bands, position_grid=position_grid)
        self.settings = {
            "width": width, "seconds": seconds, "patch_size": patch_size, "patch_bands": bands,
            "mean": list(mean), "std": list(std), "roll_gain": roll_gain, "position_grid": list(self.position_grid),
        }  # fmt: skip
        self.patch, self.mean, self.std, self.roll_gain = (patch_size, bands), mean[0], std[0], roll_gain
        self.frames = rows * patch_size

    def transform(self, train: bool) -> Transform:
        """Centre the wave, crop, and take its spectrogram; not normalised yet."""
        return AudioTransform(self.frames, train, train and self.roll_gain)

    def values(self, batch: Batch) -> Tensor:
        """(B, 1, frames, bands) log energies."""
        return batch.inputs[:, None].float()

    def cut(self, batch: Batch) -> Tensor:
        """(B, N, P) log energies."""
        return patchify(batch.inputs[:, None], self.patch)

    def centre(self, patches: Tensor) -> Tensor:
        """Normalise log energies by twice their deviation, as AST and Audio-MAE do."""
        return (patches.float() - self.mean) / (2 * self.std)

    def sincos(self, width: int, grid: tuple[int, ...], key: str) -> Tensor:
        """(N, width) table of times and frequencies."""
        rows, columns = grid
        return sincos_2d(width, (rows, columns), key)

    def raw_features(self, batch: Batch) -> Tensor:
        """Mean and deviation of each band over the clip."""
        energies = self.spectrogram(self.patches(batch))
        return torch.cat([energies.mean(1), energies.std(1)], dim=1)

    def picture(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> np.ndarray:
        """Spectrograms, low bands at the bottom: input, hidden patches in grey, reconstruction."""
        energies = self.spectrogram(self.patches(batch))
        hidden = mask.is_hidden(self.grid[0] * self.grid[1])[..., None].expand(-1, -1, self.target_size)
        input_ = shades(energies, energies)
        grey = self.spectrogram(hidden.float()).transpose(1, 2).flip(1)[:, None] > 0
        views = [input_, input_.masked_fill(grey, GREY)]
        captions = ["input, log-mel", f"visible ({mask.fraction():.0%} hidden)"]
        if prediction is not None:
            note = ", mean and deviation of each hidden patch taken from the input" if normalized else ""
            views.append(shades(self.spectrogram(self.filled(batch, mask, prediction, normalized)), energies))
            captions.append(f"reconstruction{note}")
        return contact_sheet(views, captions)

    def media(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> dict[str, Media]:
        """The clips one after the other: as they sound from their spectrogram, and from its reconstruction."""
        patches = {"input": self.patches(batch)}
        if prediction is not None:
            patches["reconstruction"] = self.filled(batch, mask, prediction, normalized)
        return {
            name: in_a_row(to_wave(self.spectrogram(values) * 2 * self.std + self.mean, RATE), RATE)
            for name, values in patches.items()
        }

    def spectrogram(self, patches: Tensor) -> Tensor:
        """(B, N, P) to (B, frames, bands)."""
        rows, columns = self.grid
        return unpatchify(patches, self.patch, (rows, columns))[:, 0]


class AudioTransform(Transform):
    """From a source's clip to a spectrogram of fixed size; random draws come from torch's global generator.

    Args:
        frames: rows of the spectrogram.
        random: crop at a random place, else in the middle.
        roll_gain: shift in a circle and scale, at random.
    """

    def __init__(self, frames: int, random: bool, roll_gain: bool) -> None:
        self.frames, self.random, self.roll_gain = frames, random, roll_gain

    def __call__(self, sample: Sample) -> Tensor:
        """float32 (samples,) to float32 (frames, bands)."""
        wave = sample.value - sample.value.mean()
        if self.roll_gain:
            wave = wave.roll(int(torch.randint(len(wave), ()))) * (Beta(10.0, 10.0).sample() + 0.5)
        samples = (self.frames - 1) * HOP + WINDOW
        surplus = len(wave) - samples
        if surplus > 0:
            start = int(torch.randint(surplus + 1, ())) if self.random else surplus // 2
            wave = wave[start : start + samples]
        energies = fbank(F.pad(wave, (0, max(0, WINDOW - len(wave)))))
        return F.pad(energies, (0, 0, 0, self.frames - len(energies)))


def fbank(wave: Tensor) -> Tensor:
    """Kaldi's log-mel energies as HTK and Audio-MAE take them: (samples,) to (frames, bands), without dither."""
    return kaldi.fbank(
        wave[None],
        htk_compat=True,
        sample_frequency=RATE,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=BANDS,
        dither=0.0,
        frame_shift=1000 * HOP / RATE,
    )
