"""The few things that travel between layers, with their shapes."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Sample(NamedTuple):
    """One item of a data source: for images a uint8 tensor (C, H, W); the label is None where there is none."""

    value: Tensor
    label: int | None


@dataclass(frozen=True)
class Batch:
    """What the loader hands to the model.

    Attributes:
        inputs: (B, ...) as the modality's transform made them; images are uint8 (B, C, H, W).
        positions: (B,) int64, each sample's position in the training stream: the address of its randomness.
        labels: (B,) int64, or None where the source has no labels.
        broken: one line for each sample that could not be read and was replaced.
    """

    inputs: Tensor
    positions: Tensor
    labels: Tensor | None = None
    broken: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.positions)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same batch on another device. Lightning calls this."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=non_blocking)
        inputs = self.inputs.to(device, non_blocking=non_blocking)
        return Batch(inputs, self.positions.to(device, non_blocking=non_blocking), labels, self.broken)

    def pin_memory(self) -> "Batch":
        """Page-locked copies, for transfers to a GPU. The loader calls this."""
        labels = None if self.labels is None else self.labels.pin_memory()
        return Batch(self.inputs.pin_memory(), self.positions.pin_memory(), labels, self.broken)


@dataclass(frozen=True)
class Mask:
    """Which grid tokens are visible and which are hidden; every token is in one of the two, prefix tokens in none.

    Attributes:
        visible: (B, V) int64 token indices, ascending.
        hidden: (B, N - V) int64 token indices, ascending.
    """

    visible: Tensor
    hidden: Tensor

    @property
    def fraction(self) -> float:
        """Hidden tokens over all tokens."""
        return self.hidden.shape[1] / (self.hidden.shape[1] + self.visible.shape[1])


@dataclass(frozen=True)
class Output:
    """What an objective returns.

    Attributes:
        loss: scalar, float32.
        metrics: scalars to log, detached.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
