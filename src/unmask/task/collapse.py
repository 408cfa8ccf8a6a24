"""Tell features that still say something from features that have collapsed, at looks taken during a training."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unmask.task.probe import effective_rank

STATES = ("healthy", "suspect", "collapsed")
PATIENCE = 3  # looks in a row; a healthy model may pass through one bad look
RANKED = 1024  # tokens that the rank is computed from: it costs their number times D²

# In 28 healthy toy runs (11 pairs of objective and modality) the least after the grace was: spread 0.13 (teacher's
# 0.41), shares 0.08, deviation 0.12 of the start, directions 0.17 of the start. Most lows pass: a model first learns
# the mean. At 100 times the learning rate, spread or deviation fell below 0.01; without an anchor, spread to 0.03.
ALIKE = 0.05  # deviation over size
ALIKE_TARGETS = 0.1  # fairseq's limit on the deviation of data2vec's targets, whose size is one (arXiv 2202.03555)
ALIKE_PREDICTIONS = 0.01  # fairseq's on that of the predictions
SHARE = 0.01  # of the variance
SHRUNK = 0.01  # deviation over that at the start
FLATTENED = 0.05  # directions beyond the first over those at the start
OF_THE_START = 0.25  # features that began below four times a limit are held to this much of what they began with
TINY = torch.finfo(torch.float32).tiny

TOO_LITTLE = {
    "spread": "{view} features are all but equal: they deviate by {value:.2g} of their size",
    "between_samples": "{view} features are those of their place alone: {value:.2g} of the variance is between samples",
    "between_tokens": "{view} features are equal all over a sample: {value:.2g} of the variance is between its tokens",
}


class Look(NamedTuple):
    """What was found at an optimiser step: the numbers of `measure`, and `prediction_std` where it is known."""

    step: int
    numbers: dict[str, float]


class Verdict(NamedTuple):
    """One of `STATES`, and why it is not the first."""

    state: str
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ": ".join([self.state, "; ".join(self.reasons)]) if self.reasons else self.state


def measure(views: dict[str, Tensor], real: Tensor | None = None) -> dict[str, float]:
    """Numbers of a few samples' features, each as `<view>_<name>`.

    A vector that is the same everywhere has no `spread`; one that only says where in the sample it stands, which
    the deviation of the targets cannot tell from health, has no variance `between_samples`; one that is constant in
    time has none `between_tokens`; features on a line have `rank` one.

    Args:
        views: (B, N, D) features by name, as `Objective.views` gives them.
        real: (B, N) bool, false at padding; None for no padding.

    Returns:
        `deviation` over tokens, mean over dimensions; `size`, root mean square; `spread`, a dimension's deviation over
        its size, median over dimensions (trained encoders often have a few large constant ones, which would make all
        others look small); `between_samples` and `between_tokens`, shares of the variance that are left between
        samples at one place and between tokens of one sample; `rank`, effective, of at most 1024 tokens. With a
        teacher also `teacher_student_cosine`, the mean cosine of a token's two features less the mean of all tokens:
        with the means it would be one where all features are equal. It is to be looked at, not judged by, since a
        head stands between the two and a collapsed model may have any value.
    """
    views = {name: features.double().cpu() for name, features in views.items()}
    first = next(iter(views.values()))
    here = torch.ones(first.shape[:2], dtype=torch.bool) if real is None else real.cpu()
    numbers = {f"{view}_{name}": x for view, features in views.items() for name, x in _numbers(features, here).items()}
    if "teacher" in views:
        teacher, student = (views[name][here] for name in ("teacher", "student"))
        cosine = torch.cosine_similarity(teacher - teacher.mean(0), student - student.mean(0))
        numbers["teacher_student_cosine"] = cosine.mean().item()
    return numbers


def _numbers(features: Tensor, here: Tensor) -> dict[str, float]:
    tokens = features[here]
    deviation, size = tokens.std(0), tokens.square().mean(0).sqrt()
    variance = max(deviation.square().sum().item(), TINY)
    some = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:RANKED]]
    return {
        "deviation": deviation.mean().item(),
        "size": size.square().mean().sqrt().item(),
        "spread": (deviation / size.clamp(min=TINY)).median().item(),
        "between_samples": _left(features, here, 0) / variance,
        "between_tokens": _left(features, here, 1) / variance,
        "rank": effective_rank(some.float().numpy()) if tokens.isfinite().all() else math.nan,
    }


def _left(features: Tensor, here: Tensor, axis: int) -> float:
    """Unbiased variance around the means along one axis of (B, N), summed over dimensions."""
    weight = here.double()[..., None]
    features = features.masked_fill(~here[..., None], 0.0)
    count = weight.sum(axis, keepdim=True)
    mean = (features * weight).sum(axis, keepdim=True) / count.clamp(min=1)
    freedom = (count - 1).clamp(min=0).sum().clamp(min=1)
    return (((features - mean).square() * weight).sum() / freedom).item()


def judge(looks: Sequence[Look], grace: int) -> Verdict:
    """Suspect if the features of the last look show a fault, collapsed if those of the last three do.

    Predictions that are all but equal make no collapse, and are suspect only if they stay so for three looks beside
    a teacher: a healthy model first learns the mean, and where the input is the target it may long know no better.

    Args:
        looks: in order; the first is what the others are compared with.
        grace: looks up to this step show no faults.
    """
    late = [look.numbers for look in looks if look.step > grace][-PATIENCE:]
    found = [tuple(_faults(numbers, looks[0].numbers)) for numbers in late]
    reasons = found[-1] if found else ()
    said = [(x["prediction_std"], x["teacher_size"]) for x in late if {"prediction_std", "teacher_size"} <= x.keys()]
    if len(said) == PATIENCE and all(deviation < ALIKE_PREDICTIONS * size for deviation, size in said):
        deviation, size = said[-1]
        reasons += (f"predictions are all but equal: they deviate by {deviation:.2g}, targets are of size {size:.2g}",)
    if not reasons:
        return Verdict("healthy")
    return Verdict("collapsed" if len(found) == PATIENCE and all(found) else "suspect", reasons)


def _faults(now: dict[str, float], start: dict[str, float]) -> Iterator[str]:
    """What is wrong with the features of each view."""
    for view in [key.removesuffix("_rank") for key in now if key.endswith("_rank")]:
        if math.isnan(now[f"{view}_rank"]):
            yield f"{view} features are not finite"
            continue
        for name, words in TOO_LITTLE.items():
            key, limit = f"{view}_{name}", SHARE
            if name == "spread":
                limit = ALIKE_TARGETS if view == "teacher" else ALIKE
            if now[key] < min(limit, OF_THE_START * start[key]):
                yield words.format(view=view, value=now[key])
        deviation, before = now[f"{view}_deviation"], start[f"{view}_deviation"]
        if deviation < SHRUNK * before:
            yield f"{view} features have shrunk: they deviate by {deviation:.2g} and did by {before:.2g} at the start"
        rank, before = now[f"{view}_rank"], start[f"{view}_rank"]
        if rank - 1 < FLATTENED * (before - 1):
            yield f"{view} features use {rank:.1f} directions and used {before:.1f} at the start"
