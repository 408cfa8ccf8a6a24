"""What can be heard, watched or read: sounds as WAV, films as MP4, notes as text."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
from torch import Tensor

LEAST_SIDE = 96  # pixels


class Sound(NamedTuple):
    """A mono recording.

    Attributes:
        samples: (samples,) float32, full scale is 1.
        rate: samples a second.
    """

    samples: Tensor
    rate: int

    def write(self, stem: Path) -> Path:
        """Write `stem`.wav, quieter where it would clip; its path."""
        path = stem.with_name(f"{stem.name}.wav")
        loudest = self.samples.abs().max().clamp(min=1.0)
        soundfile.write(path, (self.samples / loudest).cpu().numpy(), self.rate, "PCM_16", format="WAV")
        return path


class Film(NamedTuple):
    """Moving pictures.

    Attributes:
        frames: (T, C, H, W) uint8, C 1 or 3.
        fps: frames a second.
    """

    frames: Tensor
    fps: float

    def write(self, stem: Path, enlarge: bool = True) -> Path:
        """Write `stem`.mp4, if wanted with small frames enlarged; its path."""
        import av  # only who has videos pays for it

        path = stem.with_name(f"{stem.name}.mp4")
        zoom = max(1, LEAST_SIDE // min(self.frames.shape[2:])) if enlarge else 1
        large = self.frames.expand(-1, 3, -1, -1).repeat_interleave(zoom, -2).repeat_interleave(zoom, -1)
        large = large[..., : large.shape[-2] // 2 * 2, : large.shape[-1] // 2 * 2]  # H.264 wants even sides
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream(
                "libx264", rate=Fraction(self.fps).limit_denominator(1000), options={"crf": "18", "threads": "1"}
            )
            stream.height, stream.width, stream.pix_fmt = large.shape[-2], large.shape[-1], "yuv420p"
            for frame in large.permute(0, 2, 3, 1).contiguous().cpu().numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return path


class Note(NamedTuple):
    """Something to read.

    Attributes:
        text: plain, in lines that are laid out for a font of equal widths.
    """

    text: str

    def write(self, stem: Path) -> Path:
        """Write `stem`.txt; its path."""
        path = stem.with_name(f"{stem.name}.txt")
        path.write_text(self.text, encoding="utf-8")
        return path


Media = Sound | Film | Note


def in_a_row(clips: Tensor, rate: int, pause: float = 0.25) -> Sound:
    """(B, samples) clips one after the other, with so many seconds of silence between them."""
    silence = clips.new_zeros(len(clips), round(pause * rate))
    return Sound(torch.cat([clips, silence], dim=1).flatten(), rate)
