"""Speech: waveforms in, frames of 25 ms every 20 ms as tokens."""

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from unmask.errors import ConfigError
from unmask.masking.select import gather
from unmask.media import Media, in_a_row
from unmask.modality.base import Modality, Transform
from unmask.modality.contact_sheet import contact_sheet
from unmask.modality.spectrogram import GREY, shades
from unmask.modality.vocoder import from_bands
from unmask.nn.conv import FIELD, HOP, ConvPosition, WaveEncoder, count_frames
from unmask.nn.normalize import EPS
from unmask.nn.position import FixedPosition, sincos_1d
from unmask.schema import Batch, Mask, Sample

RATE = 16_000  # samples a second, of every source
BANDS = 80  # of the log-mel spectrogram
DENSER = 2  # frames a token that sounds are made of
LOUDNESS = 0.1  # of a sound whose utterance has unit variance
LOG_FLOOR = 1e-5  # power of an utterance of unit variance; about what 16 bits round off in a quiet recording


class Speech(Modality):
    """Waveforms through wav2vec 2.0's convolutions, with convolutional positions (data2vec, arXiv 2202.03555).

    Padding never changes a real frame: a frame is real where all samples that it sees are, and positions see zeros
    beyond the last real frame, as at the end of a clip alone. Neighbouring frames share 80 samples (5 ms), so a
    visible frame next to a hidden one has heard its edge.

    For objectives that rebuild the input, a token's target are the log-mel energies of its 400 samples: ours, since
    no such recipe is published for waveforms.

    Args:
        width: D, token width.
        crop_seconds: longer clips are cut to this, at random for training, else to their middle.
        conv_width: C, channels of the convolutions; None for D, but at most 512.
        position_layers: layers of the convolutional positions.
        position_kernel: tokens that each of them sees; odd.
        position_groups: groups of channels; divides D.
        normalize: give every clip zero mean and unit variance.

    Raises:
        ConfigError: the crop is shorter than two frames, or positions cannot be built as told.
    """

    window: Tensor
    filters: Tensor
    kind = "sounds"
    pointwise = False
    adaptable = ("crop_seconds",)
    # Frames are the student's own, and its convolutional positions are taken over: the teacher averages blocks alone.
    copied = ("modality",)
    embedders = ("modality.conv", "modality.norm", "modality.projection")
    target_size = BANDS

    def __init__(
        self,
        width: int,
        crop_seconds: float,
        conv_width: int | None = None,
        position_layers: int = 5,
        position_kernel: int = 19,
        position_groups: int = 16,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        self.crop = round(crop_seconds * RATE)
        if self.crop < FIELD + HOP:
            raise ConfigError(
                f"modality.crop_seconds={crop_seconds} is less than two frames. "
                f"Choose at least {(FIELD + HOP) / RATE:g}."
            )
        self.settings = {
            "width": width, "crop_seconds": crop_seconds, "conv_width": conv_width,
            "position_layers": position_layers, "position_kernel": position_kernel,
            "position_groups": position_groups, "normalize": normalize,
        }  # fmt: skip
        self.normalize = normalize
        self.grid = (count_frames(self.crop),)
        channels = min(512, width) if conv_width is None else conv_width
        self.conv = WaveEncoder(channels)
        self.norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, width)
        self.positions = ConvPosition(width, position_layers, position_kernel, position_groups)
        self.register_buffer("window", torch.hann_window(FIELD), persistent=False)
        self.register_buffer("filters", _mel_filters().to(self.window.device), persistent=False)

    def transform(self, train: bool) -> Transform:
        """Normalise, then crop; clips of less than a frame are filled up with zeros."""
        return SpeechTransform(self.crop, train, self.normalize)

    def counts(self, batch: Batch) -> Tensor | None:
        """(B,) frames whose samples are all real."""
        return None if batch.lengths is None else count_frames(batch.lengths)

    def grid_of(self, batch: Batch) -> tuple[int, ...]:
        """The frames of the longest clip."""
        return (count_frames(batch.inputs.shape[1]),)

    def embed(self, batch: Batch, visible: Tensor | None = None) -> Tensor:
        """Convolutions, a layer norm, a projection."""
        return self.projection(self.norm(self.conv(batch.inputs)))

    def add_position(self, tokens: Tensor, visible: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """Add what the convolutions say; padding is as if it were not there."""
        return tokens + self.positions(tokens, real)

    def new_mask_token(self) -> nn.Parameter:
        """Uniform in [0, 1), as wav2vec 2.0's."""
        return nn.Parameter(torch.rand(1, 1, self.settings["width"]))

    def position(self, width: int) -> FixedPosition:
        """Gives the (N, width) sine-cosine table."""
        return FixedPosition(sincos_1d(width, self.grid[0], "model.decoder.width"))

    def target(self, batch: Batch, mask: Mask, normalize: bool) -> Tensor:
        """Log-mel energies of the hidden frames, optionally each band by its mean and deviation over the clip."""
        energies = self.log_mel(batch)
        if normalize:
            mean, deviation = _moments(energies, self.real(batch))
            energies = (energies - mean) / deviation
        return gather(energies, mask.hidden)

    def raw_features(self, batch: Batch) -> Tensor:
        """Mean and deviation of each band of the log-mel spectrogram over a clip."""
        return torch.cat(_moments(self.log_mel(batch), self.real(batch)), dim=2).squeeze(1)

    def log_mel(self, batch: Batch) -> Tensor:
        """(B, N, bands) float32: log energies of the 400 samples that each token sees, on the mel scale."""
        with torch.autocast(batch.inputs.device.type, enabled=False):
            frames = batch.inputs.float().unfold(1, FIELD, HOP) * self.window
            power = torch.fft.rfft(frames).abs().square()
            return (power @ self.filters).clamp(min=LOG_FLOOR).log()

    def picture(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> np.ndarray:
        """Log-mel spectrograms, low bands at the bottom: input, hidden frames in grey, reconstruction."""
        energies, real, counts = self.log_mel(batch), self.real(batch), self.counts(batch)
        hidden = mask.is_hidden(energies.shape[1])
        if real is not None:
            hidden &= real
        input_ = shades(energies, energies, real)
        views = [input_, input_.masked_fill(hidden[:, None, None], GREY)]
        share = mask.fraction(None if counts is None else counts.sum())
        captions = ["input, log-mel", f"visible ({share:.0%} hidden)"]
        if prediction is not None:
            filled = self._filled(batch, mask, prediction, normalized)
            note = ", mean and deviation of each band taken from the input" if normalized else ""
            views.append(shades(filled, energies, real))
            captions.append(f"reconstruction{note}")
        return contact_sheet(views, captions)

    def media(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> dict[str, Media]:
        """The clips one after the other: as they sound from the energies of their frames, and from those rebuilt."""
        energies = {"input": self.log_mel(batch)}
        if prediction is not None:
            energies["reconstruction"] = self._filled(batch, mask, prediction, normalized)
        return {name: in_a_row(self._sound(values, self.real(batch)), RATE) for name, values in energies.items()}

    def _filled(self, batch: Batch, mask: Mask, prediction: Tensor, normalized: bool) -> Tensor:
        """(B, N, bands) energies with the prediction in hidden frames."""
        energies = self.log_mel(batch)
        if normalized:
            # The model never predicted how loud a band is and how much it moves: the sheet says so.
            mean, deviation = _moments(energies, self.real(batch))
            prediction = prediction * deviation + mean
        return energies.scatter(1, mask.hidden[..., None].expand_as(prediction), prediction.to(energies.dtype))

    def _sound(self, energies: Tensor, real: Tensor | None) -> Tensor:
        """(B, samples) waves that have such energies, padding silent, a tenth of full scale loud."""
        if real is not None:
            energies = energies.masked_fill(~real[..., None], math.log(LOG_FLOOR))
        # Frames of a token hardly overlap, and phases are found where windows do: one more between each two.
        between = F.interpolate(energies.transpose(1, 2), (energies.shape[1] - 1) * DENSER + 1, mode="linear",
                                align_corners=True).transpose(1, 2)  # fmt: skip
        wave = from_bands(between, torch.linalg.pinv(self.filters), FIELD, HOP // DENSER)
        return F.pad(LOUDNESS * wave, (FIELD // 2, FIELD // 2))  # to where the first frame begins and the last ends


class SpeechTransform(Transform):
    """A clip that the model takes; random draws come from torch's global generator."""

    def __init__(self, crop: int, random: bool, normalize: bool) -> None:
        self.crop, self.random, self.normalize = crop, random, normalize

    def __call__(self, sample: Sample) -> Tensor:
        """float32 (samples,) to float32 of at least one frame and at most the crop."""
        wave = F.layer_norm(sample.value, sample.value.shape) if self.normalize else sample.value
        surplus = len(wave) - self.crop
        if surplus > 0:
            start = int(torch.randint(surplus + 1, ())) if self.random else surplus // 2
            wave = wave[start : start + self.crop]
        return F.pad(wave, (0, max(0, FIELD - len(wave))))


def _moments(energies: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B, 1, bands) each: mean and deviation of a clip's bands over its real frames."""
    weight = energies.new_ones(energies.shape[:2]) if real is None else real.to(energies.dtype)
    weight = (weight / weight.sum(1, keepdim=True))[..., None]
    mean = (energies * weight).sum(1, keepdim=True)
    variance = ((energies - mean).square() * weight).sum(1, keepdim=True)
    return mean, (variance + EPS).sqrt()


@cache
def _mel_filters() -> Tensor:
    """(bins, bands) triangles on Slaney's mel scale, on the CPU: torchaudio looks into them."""
    with torch.device("cpu"):
        return melscale_fbanks(FIELD // 2 + 1, 0.0, RATE / 2, BANDS, RATE, mel_scale="slaney")
