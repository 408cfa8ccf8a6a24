"""What images, video and spectrograms share: samples cut into equal patches on a regular grid."""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unmask.errors import ConfigError
from unmask.masking.select import gather
from unmask.modality.base import Modality
from unmask.nn.init import init_transformer
from unmask.nn.position import FixedPosition, resize_table
from unmask.schema import Batch, Mask

TARGET_EPS = 1e-6  # inside the root, on the unbiased variance (MAE's released code)


class PatchModality(Modality):
    """Patches become tokens by one linear map, and get positions, by default MAE's (arXiv 2111.06377).

    Args:
        width: D, token width.
        grid: patches along each axis.
        patch_values: values of a patch, which is what a reconstruction has.
        absolute_positions: add a position table to the tokens.
        position_grid: patches along each axis that a fixed table is made for, and interpolated from; None for `grid`.
    """

    def __init__(
        self,
        width: int,
        grid: tuple[int, ...],
        patch_values: int,
        absolute_positions: bool = True,
        position_grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.target_size = grid, patch_values
        self.position_grid = grid if position_grid is None else tuple(position_grid)
        self._width = width
        # A convolution whose stride is its kernel, as one matrix product over the patches that are wanted.
        self.projection = nn.Linear(patch_values, width)
        init_transformer(self.projection)
        none = torch.zeros(math.prod(grid), width)
        self.positions = self.position(width) if absolute_positions else FixedPosition(none)

    @abstractmethod
    def values(self, batch: Batch) -> Tensor:
        """(B, C, ...) float32 values by channel, before they are centred: what `data.mean` and `data.std` are of."""

    @abstractmethod
    def cut(self, batch: Batch) -> Tensor:
        """(B, N, P) values as they are loaded, patch by patch."""

    def cut_target(self, batch: Batch) -> Tensor:
        """(B, N, P) the same of what a reconstruction has: all of it."""
        return self.cut(batch)

    @abstractmethod
    def centre(self, patches: Tensor) -> Tensor:
        """(..., P) patches as they were cut, normalised by `data.mean` and `data.std`, float32."""

    def patches(self, batch: Batch, wanted: Tensor | None = None) -> Tensor:
        """(B, N, P) normalised float32 values, or (B, K, P) of the wanted patches: the others are not computed."""
        cut = self.cut(batch)
        return self.centre(cut if wanted is None else gather(cut, wanted))

    @abstractmethod
    def sincos(self, width: int, grid: tuple[int, ...], key: str) -> Tensor:
        """(N, width) sine-cosine table of a grid; an error names the key that sets the width."""

    @property
    def table(self) -> Tensor:
        """(N, D) what is added to the tokens."""
        table: Tensor = self.positions()
        return table

    def position(self, width: int) -> nn.Module:
        """Gives the (N, width) sine-cosine table."""
        key = "model.width" if width == self._width else "model.decoder.width"
        table = self.sincos(width, self.position_grid, key)
        return FixedPosition(resize_table(table, self.position_grid, self.grid))

    def embed(self, batch: Batch, visible: Tensor | None = None) -> Tensor:
        """Project the wanted patches only."""
        return self.projection(self.patches(batch, visible))

    def add_position(self, tokens: Tensor, visible: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """Add the table; nothing is padded."""
        if visible is None:
            return tokens + self.table
        return tokens + gather(self.table.expand(len(tokens), -1, -1), visible)

    def target(self, batch: Batch, mask: Mask, normalize: bool) -> Tensor:
        """Values of the hidden patches, optionally each patch by its own mean and unbiased deviation."""
        patches = self.centre(gather(self.cut_target(batch), mask.hidden))
        if not normalize:
            return patches
        mean, deviation = self.moments(patches)
        return (patches - mean) / deviation

    def filled(self, batch: Batch, mask: Mask, prediction: Tensor, normalized: bool) -> Tensor:
        """(B, N, P) the target's patches, with the prediction (B, H, P) where hidden.

        Where targets were normalised the model never predicted a patch's mean and deviation: they are the input's.
        """
        patches = self.centre(self.cut_target(batch))
        if normalized:
            mean, deviation = self.moments(gather(patches, mask.hidden))
            prediction = prediction * deviation + mean
        index = mask.hidden[:, :, None].expand_as(prediction)
        return patches.scatter(1, index, prediction.to(patches.dtype))

    def moments(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each patch (..., P) over all its values; they broadcast to it."""
        return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + TARGET_EPS).sqrt()


def check_patch(key: str, patch: int, side_key: str, side: int) -> None:
    """Raise ConfigError where a patch does not divide a side, naming the nearest that does."""
    if side % patch:
        divisors = [p for p in range(1, side + 1) if side % p == 0]
        raise ConfigError(
            f"{key}={patch} does not divide {side_key}={side}. "
            f"Choose {min(divisors, key=lambda p: abs(p - patch))}, or another {side_key.rpartition('.')[2]}."
        )
