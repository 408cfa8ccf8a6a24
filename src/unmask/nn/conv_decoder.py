"""data2vec 2.0's light decoder: convolutions over the grid fill in what is hidden (arXiv 2212.07525)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.errors import ConfigError
from unmask.masking.select import gather
from unmask.schema import Mask

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class ConvDecoder(nn.Module):
    """Visible tokens back in their places, noise in the hidden ones, then convolutions along the grid's own axes.

    A layer is a convolution with a bias, a layer norm without weights and a GELU, and adds its input where the widths
    allow. No positions are added: neighbourhood is all that a convolution needs.

    Args:
        encoder_width: D, width of what comes in.
        width: W, of every layer.
        axes: of the grid: 1, 2 or 3.
        kernel: tokens along each axis, odd.
        groups: of each convolution; divide D and W.
        layers: convolutions.
        residual: whether a layer adds its input.
        noise_std: deviation of what stands in hidden places.
        dropout: share of the encoder's values that training drops, before noise is put between them.

    Raises:
        ConfigError: an even kernel, or groups that do not divide a width.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        axes: int,
        kernel: int,
        groups: int,
        layers: int,
        residual: bool,
        noise_std: float,
        dropout: float,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ConfigError(f"objective.decoder_kernel={kernel} has no middle. Choose {kernel + 1}.")
        for key, value in (("model.width", encoder_width), ("objective.decoder_width", width)):
            if value % groups:
                fitting = max(g for g in range(1, groups) if encoder_width % g == width % g == 0)
                raise ConfigError(f"objective.decoder_groups={groups} does not divide {key}={value}. Choose {fitting}.")
        self.residual, self.noise_std, self.dropout = residual, noise_std, dropout
        widths = [encoder_width, *[width] * (layers - 1)]
        convolution = CONVOLUTIONS[axes]
        self.layers = nn.ModuleList(convolution(w, width, kernel, padding=kernel // 2, groups=groups) for w in widths)

    def forward(self, latent: Tensor, mask: Mask, grid: Sequence[int], real: Tensor | None = None) -> Tensor:
        """(B, V, D) visible tokens to (B, H, W) at the hidden ones, in the mask's order.

        Args:
            latent: the encoder's output without prefix tokens.
            mask: which places are which.
            grid: token counts along each axis, padding included.
            real: (B, N) bool, false at padding, which every convolution finds to be zero; None for no padding.
        """
        x = self._in_place(F.dropout(latent, self.dropout, self.training), mask, grid)
        padding = None if real is None else ~real.view(-1, *grid, 1)
        for layer in self.layers:
            if padding is not None:
                x = x.masked_fill(padding, 0)
            out = layer(x.movedim(-1, 1)).movedim(1, -1)
            out = F.gelu(F.layer_norm(out, out.shape[-1:]))
            x = out + x if self.residual and out.shape == x.shape else out
        return gather(x.flatten(1, -2), mask.hidden)

    def _in_place(self, latent: Tensor, mask: Mask, grid: Sequence[int]) -> Tensor:
        """(B, *grid, D): the visible tokens where they belong, noise everywhere else."""
        batch, _, width = latent.shape
        shape = torch.Size((batch, *grid, width))
        x = (torch.randn(shape, dtype=latent.dtype, device=latent.device) * self.noise_std).flatten(1, -2)
        offset = torch.arange(batch, device=latent.device)[:, None] * x.shape[1]
        return x.flatten(0, 1).index_copy(0, (mask.visible + offset).flatten(), latent.flatten(0, 1)).view(shape)
