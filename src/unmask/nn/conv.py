"""Convolutions over time: from a waveform to frames, and positions that frames tell by their neighbours."""

from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import ConfigError

LAYERS = ((10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2)  # (kernel, stride)
HOP, FIELD = 320, 400  # samples: from one frame to the next, and what one frame sees

Length = TypeVar("Length", int, Tensor)


def count_frames(samples: Length) -> Length:
    """Frames that lie whole in so many samples, at least `FIELD`."""
    return (samples - FIELD) // HOP + 1


class WaveEncoder(nn.Module):
    """wav2vec 2.0's convolutions in data2vec's mode (arXiv 2006.11477, 2202.03555): layer norm and GELU after each.

    No layer pads, and norms run over channels alone, so a frame depends on nothing but its own `FIELD` samples.

    Args:
        width: C, channels of every layer.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # Each convolution as one matrix product over its windows: the result lies token by token, as the norm wants
        # it, which on CPUs makes a step a quarter to a half faster.
        sizes = [kernel * (width if layer else 1) for layer, (kernel, _) in enumerate(LAYERS)]
        self.convs = nn.ModuleList(nn.Linear(size, width, bias=False) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in LAYERS)
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.get_parameter("weight"))

    def forward(self, waves: Tensor) -> Tensor:
        """(B, samples) to (B, frames, C)."""
        x = waves[..., None]
        for conv, norm, (kernel, stride) in zip(self.convs, self.norms, LAYERS, strict=True):
            x = F.gelu(norm(conv(x.unfold(1, kernel, stride).flatten(2))))
        return x


class ConvPosition(nn.Module):
    """Positions by content: a stack of grouped convolutions over the tokens (data2vec, arXiv 2202.03555).

    Each layer is a convolution with bias, a layer norm without parameters and a GELU.

    Args:
        width: D, token width.
        layers: how many.
        kernel: tokens that one layer sees; odd, so that none shifts them.
        groups: of channels; divides D.

    Raises:
        ConfigError: the kernel is even, or the groups do not divide the width.
    """

    def __init__(self, width: int, layers: int = 5, kernel: int = 19, groups: int = 16) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ConfigError(
                f"modality.position_kernel={kernel} has no middle, so it would shift the tokens. Choose {kernel + 1}."
            )
        if width % groups:
            raise ConfigError(
                f"modality.position_groups={groups} does not divide model.width={width}. "
                f"Choose a divisor, such as {max(g for g in range(1, groups) if width % g == 0)}."
            )
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups) for _ in range(layers)
        )

    def forward(self, tokens: Tensor, real: Tensor | None = None) -> Tensor:
        """(B, N, D): what is added to the tokens.

        With `real` (B, N), false at padding, each layer sees zeros there, which is what it sees beyond the end of a
        sample alone: so padding changes nothing.
        """
        padding = None if real is None else ~real[..., None]
        x = tokens
        for conv in self.convs:
            if padding is not None:
                x = x.masked_fill(padding, 0)
            x = conv(x.transpose(1, 2)).transpose(1, 2)
            x = F.gelu(F.layer_norm(x, x.shape[-1:]))
        return x
