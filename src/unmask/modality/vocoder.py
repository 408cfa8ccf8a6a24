"""From a log-mel spectrogram back to a wave that has it."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.compliance import kaldi
from torchaudio.functional import griffinlim, lfilter

FFT, WINDOW, HOP = 512, 400, 160  # samples
EMPHASIS = 0.97  # Kaldi's, undone at the end
ITERATIONS = 32


def to_wave(energies: Tensor, rate: int) -> Tensor:
    """The wave whose log-mel energies come near the given ones, by Griffin and Lim's algorithm (1984).

    Bands are spread over frequencies by the least squares that reproduce them; the phase is made up, so it sounds
    hollow. On the CPU.

    Args:
        energies: (B, frames, bands) natural logarithms.
        rate: samples a second.

    Returns:
        (B, samples) float32, as long as the frames reach.
    """
    wave = from_bands(energies, _inverse(energies.shape[2], rate), FFT, HOP)
    # De-emphasis: y[n] = x[n] + 0.97 y[n - 1].
    wave = lfilter(wave, torch.tensor([1.0, -EMPHASIS]), torch.tensor([1.0, 0.0]), clamp=False)
    # Kaldi's frames begin at multiples of the hop, and those of the transform have their middle there.
    return F.pad(wave, (WINDOW // 2, WINDOW // 2))


def from_bands(energies: Tensor, inverse: Tensor, fft: int, hop: int) -> Tensor:
    """Griffin and Lim's algorithm on log energies of windows of `WINDOW` samples.

    Args:
        energies: (B, frames, bands) natural logarithms.
        inverse: (bands, bins) from energies of bands to powers of frequencies.
        fft: samples of the transform.
        hop: samples from one frame to the next.

    Returns:
        (B, (frames - 1) * hop) float32 on the CPU, from the middle of the first window to that of the last.
    """
    power = (energies.float().exp().cpu() @ inverse.cpu()).clamp(min=0).transpose(1, 2)
    # The phase starts at zero: a random one would need a seed, and ends no better.
    window = torch.hann_window(WINDOW, periodic=False)
    return griffinlim(power, window, fft, hop, WINDOW, 2.0, ITERATIONS, 0.99, None, rand_init=False)


@cache
def _inverse(bands: int, rate: int) -> Tensor:
    """(bands, bins) from energies of bands to powers of frequencies."""
    filters, _ = kaldi.get_mel_banks(bands, FFT, float(rate), 20.0, 0.0, 100.0, -500.0, 1.0)
    filters = F.pad(filters, (0, 1))  # Kaldi leaves out the last bin
    return torch.linalg.pinv(filters.double()).T.float()
