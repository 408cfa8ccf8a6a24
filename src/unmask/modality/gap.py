"""Gaps in recordings, to be filled by a model of spectrograms."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.errors import ConfigError
from unmask.masking.select import gather
from unmask.modality.audio import HOP, RATE, WINDOW, Audio, fbank
from unmask.modality.vocoder import to_wave
from unmask.schema import Batch, Mask


class Gap:
    """A gap in a recording, and a model's tokens around it. What was in the gap is not looked at, only compared with.

    Args:
        audio: the model's modality.
        wave: (samples,) the whole recording.
        start: of the gap, seconds.
        stop: its end.

    Attributes:
        batch: one sample about the gap, with silence in it.
        mask: hides all tokens that the gap touches.
        silent: whether there is silence in the gap already, so that there is nothing to compare with.

    Raises:
        ConfigError: the gap lies outside of the recording, or leaves the model nothing to hear.
    """

    def __init__(self, audio: Audio, wave: Tensor, start: float, stop: float) -> None:
        first, last = round(start * RATE), round(stop * RATE)
        if last > len(wave):
            raise ConfigError(f"hide={start}s-{stop}s ends after the recording, which lasts {len(wave) / RATE:.2f} s.")
        samples = (audio.frames - 1) * HOP + WINDOW
        begin = max(0, min((first + last - samples) // 2, len(wave) - samples))
        self.audio, self._wave, self._first, self._last, self._begin = audio, wave, first, last, begin
        silenced = wave.clone()
        silenced[first:last] = 0
        self.silent = not wave[first:last].any()
        self.batch = Batch(self._energies(silenced), torch.zeros(1, dtype=torch.int64))
        frames = torch.arange(audio.frames) * HOP + begin
        self._real = frames + WINDOW <= len(wave)  # the rest is filling, and loud
        touched = (frames < last) & (frames + WINDOW > first) & self._real
        rows, audible = (x.view(audio.grid[0], -1).any(1) for x in (touched, self._real))
        if not (audible & ~rows).any() or not (self._real & ~touched).any():
            raise ConfigError(
                f"hide={start}s-{stop}s hides all of the {samples / RATE:.2f} s that the model hears. Hide less."
            )
        hidden = rows[:, None].expand(audio.grid).flatten()
        self._frames = touched
        self.mask = Mask((~hidden).nonzero().T, hidden.nonzero().T)

    def fill(self, prediction: Tensor, normalized: bool) -> Tensor:
        """(samples,) the recording with the gap filled, cross-faded over 5 ms at both ends."""
        made = to_wave(self._filled(prediction, normalized), RATE)[0]
        fade = min(RATE // 200, self._first, len(self._wave) - self._last)
        first, last = self._first - fade, self._last + fade
        share = torch.ones(last - first)
        if fade:
            share[:fade], share[-fade:] = torch.linspace(0, 1, fade), torch.linspace(1, 0, fade)
        repaired = self._wave.clone()
        inside = made[first - self._begin : last - self._begin]
        repaired[first:last] = repaired[first:last] * (1 - share) + inside * share
        return repaired

    def distances(self, prediction: Tensor, normalized: bool) -> dict[str, float]:
        """Mean distance in decibels of the gap's spectrogram from what was there, of the model and of two baselines."""
        truth = self._energies(self._wave)
        filled = {
            "model": self._filled(prediction, normalized),
            "straight line between both sides": self._bridged(),
            "silence": self.batch.inputs,
        }
        decibels = 10 / math.log(10)
        return {
            name: float((energies - truth)[0, self._frames].abs().mean() * decibels)
            for name, energies in filled.items()
        }

    def _energies(self, wave: Tensor) -> Tensor:
        """(1, frames, bands) of the stretch that the model hears."""
        samples = (self.audio.frames - 1) * HOP + WINDOW
        stretch = wave[self._begin : self._begin + samples]
        energies = fbank(F.pad(stretch - wave.mean(), (0, max(0, WINDOW - len(stretch)))))
        return F.pad(energies, (0, 0, 0, self.audio.frames - len(energies)))[None]

    def _filled(self, prediction: Tensor, normalized: bool) -> Tensor:
        """(1, frames, bands) with the prediction in the gap.

        A model of normalised patches never predicts their mean and deviation: those are bridged from both sides.
        """
        audio = self.audio
        patches = audio.patches(self.batch)
        if normalized:
            bridged = replace(self.batch, inputs=self._bridged())
            mean, _ = audio.moments(audio.patches(bridged, self.mask.hidden))
            whole = self._real.view(audio.grid[0], -1).all(1)[:, None].expand(audio.grid).flatten()
            seen = whole & ~self.mask.is_hidden(len(whole))[0]
            _, deviation = audio.moments(patches[:, seen] if seen.any() else gather(patches, self.mask.visible))
            prediction = prediction * deviation.mean() + mean
        index = self.mask.hidden[:, :, None].expand_as(prediction)
        filled = audio.spectrogram(patches.scatter(1, index, prediction)) * 2 * audio.std + audio.mean
        return torch.where(self._frames[:, None], filled, self.batch.inputs)

    def _bridged(self) -> Tensor:
        """(1, frames, bands) with a straight line in the gap, from the last frame before it to the first after it."""
        touched = self._frames.nonzero().flatten()
        before, after = int(touched[0]) - 1, int(touched[-1]) + 1
        energies = self.batch.inputs.clone()
        ends = [energies[0, i] for i in (before, after) if 0 <= i < len(self._real) and self._real[i]]
        share = ((touched - before) / (after - before))[:, None]
        energies[0, touched] = torch.lerp(ends[0], ends[-1], share)
        return energies
