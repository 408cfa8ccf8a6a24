"""Learning rate by optimiser step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unmask.errors import ConfigError


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up from zero, then half a cosine down to `min_lr` (MAE, arXiv 2111.06377), every step anew.

    Attributes:
        peak: the applied learning rate.
        warmup: optimiser steps; the first step of a warm-up has rate zero, as in the paper's code.
        total: optimiser steps of the whole training.
        min_lr: the rate at the end.

    Raises:
        ConfigError: the warm-up is as long as the training.
    """

    peak: float
    warmup: int
    total: int
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.total)

    def __call__(self, step: int) -> float:
        """The rate that optimiser step `step` (from zero) uses."""
        if step < self.warmup:
            return self.peak * step / self.warmup
        progress = (step - self.warmup) / (self.total - self.warmup)
        return self.min_lr + (self.peak - self.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Constant:
    """Linear warm-up from zero, then the peak to the end; the arguments of WarmupCosine, but for `min_lr`."""

    peak: float
    warmup: int
    total: int

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.total)

    def __call__(self, step: int) -> float:
        """The rate that optimiser step `step` (from zero) uses."""
        return self.peak * min(1.0, step / self.warmup) if self.warmup else self.peak


@dataclass(frozen=True)
class Linear:
    """Linear warm-up from zero, then a straight line down to `min_lr` (fairseq's polynomial decay, of power 1).

    Its attributes and what it raises are WarmupCosine's.
    """

    peak: float
    warmup: int
    total: int
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.total)

    def __call__(self, step: int) -> float:
        """The rate that optimiser step `step` (from zero) uses."""
        if step < self.warmup:
            return self.peak * step / self.warmup
        return self.min_lr + (self.peak - self.min_lr) * (self.total - step) / (self.total - self.warmup)


@dataclass(frozen=True)
class Steps:
    """Linear warm-up from zero, then the peak, times `factor` at each of `drops` (ViTDet, arXiv 2203.16527).

    Attributes:
        peak: the applied learning rate.
        warmup: optimiser steps.
        total: optimiser steps of the whole training.
        drops: shares of the training after which the rate falls.
        factor: to so much of what it was.

    Raises:
        ConfigError: the warm-up is as long as the training.
    """

    peak: float
    warmup: int
    total: int
    drops: Sequence[float] = (8 / 9, 26 / 27)
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.total)

    def __call__(self, step: int) -> float:
        """The rate that optimiser step `step` (from zero) uses."""
        passed = sum(step >= round(share * self.total) for share in self.drops)
        return self.peak * self.factor**passed * (min(1.0, step / self.warmup) if self.warmup else 1.0)


@dataclass(frozen=True)
class TriStage:
    """Linear warm-up from a share of the peak, the peak, then an exponential fall to a share of it (wav2vec 2.0).

    Papers call the fall linear; fairseq, which made the numbers, is exponential (its tri_stage scheduler).

    Attributes:
        peak: the applied learning rate.
        warmup: optimiser steps.
        decay: optimiser steps of the fall, at the end.
        total: optimiser steps of the whole training.
        first: the rate at the start over the peak.
        last: the rate at the end over the peak.

    Raises:
        ConfigError: warm-up and fall are longer than the training.
    """

    peak: float
    warmup: int
    decay: int
    total: int
    first: float = 0.01
    last: float = 0.01

    def __post_init__(self) -> None:
        _check_warmup(self.warmup, self.total)
        if self.warmup + self.decay > self.total:
            raise ConfigError(
                f"scheduler.decay is {self.decay} steps, and after a warm-up of {self.warmup} there are "
                f"{self.total - self.warmup}. Shorten scheduler.decay or train longer."
            )

    def __call__(self, step: int) -> float:
        """The rate that optimiser step `step` (from zero) uses."""
        if step < self.warmup:
            return self.peak * (self.first + (1 - self.first) * step / self.warmup)
        into_fall = step - (self.total - self.decay)
        return self.peak * self.last ** (into_fall / self.decay) if into_fall > 0 else self.peak


def _check_warmup(warmup: int, total: int) -> None:
    if warmup >= total:
        raise ConfigError(
            f"scheduler.warmup is {warmup} steps and the training {total}, so the peak is never reached. "
            "Shorten scheduler.warmup ('5 %' is a share) or train longer (trainer.duration, trainer.max_steps)."
        )
