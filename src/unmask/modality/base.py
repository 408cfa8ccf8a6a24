"""What a modality must know, so that objectives, callbacks and the runner need not."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from unmask.schema import Batch, Mask, Sample

Transform = Callable[[Sample], Tensor]


class Modality(nn.Module, ABC):
    """A kind of sample: how it is transformed, embedded, reconstructed and shown.

    Attributes:
        grid: token counts along each axis; N is their product.
        target_size: P, values in the reconstruction target of one token.
        settings: the constructor's arguments as JSON types, for the backbone's own file.
    """

    grid: tuple[int, ...]
    target_size: int
    settings: dict[str, Any]

    @abstractmethod
    def transform(self, train: bool) -> Transform:
        """From a source's sample to a row of `Batch.inputs`; picklable; random through torch's global generator."""

    @abstractmethod
    def embed(self, batch: Batch, mask: Mask | None) -> Tensor:
        """(B, V, D) tokens with positions: the visible ones of a mask, or all (B, N, D)."""

    @abstractmethod
    def position(self, width: int) -> Tensor:
        """(N, width) fixed position table on this grid, for a decoder."""

    @abstractmethod
    def target(self, batch: Batch, mask: Mask, normalize: bool) -> Tensor:
        """(B, N - V, P) float32: what a reconstruction must equal at the hidden tokens."""

    @abstractmethod
    def raw_features(self, batch: Batch) -> Tensor:
        """(B, F) float32: the input itself, the baseline that every feature has to beat."""

    @abstractmethod
    def picture(self, batch: Batch, mask: Mask, prediction: Tensor, normalized: bool) -> np.ndarray:
        """(height, width, 3) uint8: input, what is visible, and the reconstruction.

        Args:
            batch: B samples, each shown once a row.
            mask: what was hidden.
            prediction: (B, N - V, P) the objective's reconstruction.
            normalized: whether targets were normalised by each token's own mean and deviation.
        """
