"""The few things that travel between layers, with their shapes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Boxes:
    """What is where in a picture.

    Attributes:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        classes: of each of n objects.
        corners: (n, 4) float32: left, top, right, bottom, in pixels.
        masks: (n, height, width) bool, the objects' pixels; None where they are not known.
        crowds: (n,) bool, boxes around many objects at once, which are neither learned nor counted; None for no such.
    """

    height: int
    width: int
    classes: tuple[int, ...]
    corners: Tensor
    masks: Tensor | None = None
    crowds: Tensor | None = None


Label = int | float | str | tuple[int, ...] | Boxes


class Sample(NamedTuple):
    """One item of a data source; the label is None where there is none.

    A label is a class (int), several classes (a tuple of int), a number (float), a transcript (str), or `Boxes`.
    The value is uint8 (C, H, W) for an image, float32 (samples,) at 16 kHz for speech, int64 (N,) token ids for text,
    a `Clip` for video.
    """

    value: Any
    label: Label | None


class Clip(Protocol):
    """A video that is decoded where it is looked at.

    Attributes:
        seconds: how long it lasts.
    """

    seconds: float

    def frames(self, times: Sequence[float]) -> Tensor:
        """uint8 (T, C, height, width): what is shown at each of these seconds, ascending.

        Raises:
            BrokenSample: they cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


@dataclass(frozen=True)
class Batch:
    """What the loader hands to the model.

    Attributes:
        inputs: (B, ...) as the modality's transform made them; images are uint8 (B, C, H, W), videos (B, T, C, H, W).
        positions: (B,) int64, each sample's position in the training stream: the address of its randomness.
        labels: (B,) int64 classes, (B,) float32 numbers, (B, C) float32 shares of classes, or (B, L) int64 sequences
            padded with zeros; None where the source has no labels. (Boxes are such sequences.)
        broken: one line for each sample that could not be read and was replaced.
        lengths: (B,) int64, how much of each row of `inputs` is real, where rows are padded at their end; else None.
        label_lengths: (B,) int64, the same of `labels`.
        seed: the run's, the other part of that address.
    """

    inputs: Tensor
    positions: Tensor
    labels: Tensor | None = None
    broken: tuple[str, ...] = ()
    lengths: Tensor | None = None
    label_lengths: Tensor | None = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.positions)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same batch on another device. Lightning calls this."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """Page-locked copies, for transfers to a GPU. The loader calls this."""
        return self._each(Tensor.pin_memory)

    def rows(self, start: int, stop: int) -> "Batch":
        """Some of the samples, without padding that none of them needs; nothing is copied."""
        some = self._each(lambda tensor: tensor[start:stop])
        return some if some.lengths is None else replace(some, inputs=some.inputs[:, : int(some.lengths.max())])

    def repeated(self, times: int) -> "Batch":
        """Each sample so many times in a row."""
        return self._each(lambda tensor: tensor.repeat_interleave(times, dim=0))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed: dict[str, Any] = {k: change(v) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True)
class Mask:
    """Which grid tokens are visible and which are hidden; every token is in one of the two but for kept ones, which
    are in both, and prefix tokens, which are in none.

    Rows of different counts are made rectangular by entries that do not count: padding tokens, in either tensor, or
    a hidden token that is listed twice.

    Attributes:
        visible: (B, V) int64 token indices, ascending up to kept ones.
        hidden: (B, H) int64 token indices, ascending after kept ones where all count.
        counted: (B, H) bool, which entries of `hidden` are to be predicted; None for all.
        kept: so many of `hidden`, the first, are the last of `visible` too: seen, and to be predicted all the same.
    """

    visible: Tensor
    hidden: Tensor
    counted: Tensor | None = None
    kept: int = 0

    @property
    def count(self) -> Tensor:
        """Scalar: hidden tokens that count, over all rows."""
        return self.hidden.new_tensor(self.hidden.numel()) if self.counted is None else self.counted.sum()

    def fraction(self, real: Tensor | None = None) -> Tensor:
        """Scalar: hidden tokens over all real ones of the rows; None where no row is padded."""
        return self.count / (self.hidden.numel() + self.visible.numel() if real is None else real)

    def is_hidden(self, tokens: int) -> Tensor:
        """(B, N) bool, true at hidden tokens."""
        return torch.zeros(len(self.hidden), tokens, dtype=torch.bool, device=self.hidden.device).scatter_(
            1, self.hidden, True
        )

    def every(self, count: int) -> "Mask":
        """Every `count`-th row: the first mask of each sample where a sample has so many."""
        counted = None if self.counted is None else self.counted[::count]
        return Mask(self.visible[::count], self.hidden[::count], counted)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of (B, H, ...) over hidden tokens that count, and over all further axes."""
        if self.counted is None:
            return values.mean()
        weight = self.counted.view(*self.counted.shape, *[1] * (values.ndim - 2))
        return (values * weight).sum() / (self.counted.sum().clamp(min=1) * values[0, 0].numel())


@dataclass(frozen=True)
class Output:
    """What an objective returns.

    Attributes:
        loss: scalar, float32.
        metrics: scalars to log, detached.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
