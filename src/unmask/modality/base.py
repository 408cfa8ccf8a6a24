"""What a modality must know, so that objectives, callbacks and the runner need not."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unmask.errors import ConfigError
from unmask.media import Media
from unmask.nn.init import TOKEN_STD
from unmask.schema import Batch, Mask, Output, Sample


class Transform(ABC):
    """From a source's sample to a row of `Batch.inputs`; picklable; random through torch's global generator."""

    def read(self, sample: Sample) -> Sample:
        """What is done once where a sample is seen several times in a row, each time changed by another call.

        Raises:
            BrokenSample: the sample turns out to be broken.
        """
        return sample

    @abstractmethod
    def __call__(self, sample: Sample) -> Tensor:
        """The row, from what `read` made."""


class Modality(nn.Module, ABC):
    """A kind of sample: how it is transformed, embedded, reconstructed and shown.

    Attributes:
        kind: of its samples: images, videos, sounds or texts.
        grid: token counts along each axis of the largest sample; N is their product. A batch of shorter samples has
            fewer tokens, along a single axis.
        target_size: P, values in the reconstruction of one token.
        settings: the constructor's arguments as JSON types, for the backbone's own file.
        pointwise: tokens are embedded and positioned one by one, so hidden ones need not be.
        copied: prefixes of a backbone's parameters that data2vec's teacher takes from the student as they are.
        embedders: prefixes of those that `embed` uses; a teacher that copies them all shares the student's embedding.
        adaptable: settings that fine-tuning may change.
        class_position: a class token gets a learned position of its own.
    """

    kind: str
    grid: tuple[int, ...]
    target_size: int
    settings: dict[str, Any]
    pointwise: bool = True
    copied: tuple[str, ...] = ()
    embedders: tuple[str, ...] = ("modality",)
    adaptable: tuple[str, ...] = ()
    class_position: bool = False

    @abstractmethod
    def transform(self, train: bool) -> Transform:
        """How samples are prepared, for training or to be looked at."""

    def test_views(self, time: int, space: int) -> list[Transform]:
        """Ways to look at one sample whose predictions are averaged: so many stretches of time, so many crops.

        Raises:
            ConfigError: there is but one.
        """
        if time * space > 1:
            raise ConfigError("views.time and views.space are for videos. Leave both at 1.")
        return [self.transform(train=False)]

    def fitted(self, weights: dict[str, Tensor], grid: tuple[int, ...]) -> dict[str, Tensor]:
        """The weights of one with other `adaptable` settings and that grid, made to fit.

        Raises:
            ConfigError: they cannot be.
        """
        return weights

    def counts(self, batch: Batch) -> Tensor | None:
        """(B,) real tokens of each sample, the first ones; None where nothing is padded."""
        return None

    def grid_of(self, batch: Batch) -> tuple[int, ...]:
        """The token grid of this batch, padding included."""
        return self.grid

    def real(self, batch: Batch) -> Tensor | None:
        """(B, N) bool, false at padding tokens; None where nothing is padded."""
        counts = self.counts(batch)
        if counts is None:
            return None
        return torch.arange(self.grid_of(batch)[0], device=counts.device) < counts[:, None]

    def never_hidden(self, batch: Batch) -> Tensor | None:
        """(B, N) bool, tokens that no mask may hide, such as the first of a text; None for none."""
        return None

    @abstractmethod
    def embed(self, batch: Batch, visible: Tensor | None = None) -> Tensor:
        """(B, N, D) tokens without positions; where the modality is pointwise also only those at `visible` (B, V)."""

    @abstractmethod
    def add_position(self, tokens: Tensor, visible: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """The tokens of `embed`, of all or of `visible`, with positions; `real` (B, N) is false at padding."""

    def new_mask_token(self) -> nn.Parameter | None:
        """(1, 1, D) a vector to stand where tokens are hidden; None where the modality has its own."""
        return nn.Parameter(torch.randn(1, 1, self.settings["width"]) * TOKEN_STD)

    def filling(self, batch: Batch, mask: Mask, mask_token: Tensor | None) -> Tensor:
        """(B or 1, N or 1, D) what stands where tokens are hidden, for encoders that see all places."""
        assert mask_token is not None
        return mask_token

    @abstractmethod
    def position(self, width: int) -> nn.Module:
        """Gives the (N, width) position table on the largest grid, for a decoder."""

    def keep(self, batch: Batch, mask: Mask) -> Mask:
        """The mask with some hidden tokens kept visible in training, where that makes sense."""
        return mask

    def head(self, width: int) -> nn.Module:
        """Predicts a token's target from features of that width."""
        return nn.Linear(width, self.target_size)

    @abstractmethod
    def target(self, batch: Batch, mask: Mask, normalize: bool) -> Tensor:
        """What a reconstruction must equal at the hidden tokens: (B, H, P) float32, or (B, H) classes of P."""

    def reconstruction_loss(self, prediction: Tensor, batch: Batch, mask: Mask, normalize: bool) -> Output:
        """Mean squared error over the hidden tokens of the whole batch; the target is a constant.

        Args:
            prediction: (B, H, P).
            batch: what was hidden from.
            mask: what was hidden.
            normalize: whether each token is predicted by its own mean and deviation.
        """
        prediction, target = prediction.float(), self.target(batch, mask, normalize)
        metrics = {"target_std": spread(target, mask), "prediction_std": spread(prediction, mask)}
        return Output(mask.mean((prediction - target).square()), metrics)

    @abstractmethod
    def raw_features(self, batch: Batch) -> Tensor:
        """(B, F) float32: the input itself, the baseline that every feature has to beat."""

    @abstractmethod
    def picture(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> np.ndarray:
        """(height, width, 3) uint8: input, what is visible, and the reconstruction.

        Args:
            batch: B samples, each shown once.
            mask: what was hidden.
            prediction: (B, H, P) the objective's reconstruction; None where it makes none.
            normalized: whether targets were normalised by each token's own mean and deviation.
        """

    def media(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> dict[str, Media]:
        """What can be heard, watched or read of the same, by name; empty where a picture says all."""
        return {}


def spread(x: Tensor, mask: Mask) -> Tensor:
    """(B, H, P) to a scalar: deviation over tokens that count, averaged over dimensions. Near zero means collapse."""
    x = x.detach().float()
    if mask.counted is None:
        x = x.flatten(0, -2)  # torch.std takes three times as long along this axis
        return ((x - x.mean(0)).square().sum(0) / (len(x) - 1)).sqrt().mean()
    weight, count = mask.counted[..., None], mask.counted.sum()
    mean = (x * weight).sum((0, 1)) / count.clamp(min=1)
    variance = ((x - mean).square() * weight).sum((0, 1)) / (count - 1).clamp(min=1)
    return variance.sqrt().mean()
