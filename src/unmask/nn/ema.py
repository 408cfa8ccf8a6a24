"""A teacher: a copy of a module whose weights are the running average of the student's."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from unmask.nn.sharded import local


class EMA(nn.Module):
    """teacher <- τ teacher + (1 - τ) student, in float32, for every parameter that is not merely copied.

    Starts as a copy of the student, has no gradients and stays in eval mode.

    Args:
        student: the module to follow.
        copied: prefixes of parameter names that the teacher takes over as they are.
    """

    def __init__(self, student: nn.Module, copied: Sequence[str] = ()) -> None:
        super().__init__()
        self.model = copy.deepcopy(student).requires_grad_(False)
        prefixes = tuple(f"{name}." for name in copied)
        self.averaged = [not f"{name}.".startswith(prefixes) for name, _ in student.named_parameters()]
        self.train(False)

    def train(self, mode: bool = True) -> "EMA":
        """Always eval: the teacher has no dropout."""
        return super().train(False)

    @torch.no_grad()
    def update(self, student: nn.Module, tau: float) -> None:
        """One step towards the student; copied parameters and buffers become equal to it."""
        mine, theirs = ([local(p) for p in one.parameters()] for one in (self.model, student))
        averaged = [i for i, average in enumerate(self.averaged) if average]
        copied = [i for i, average in enumerate(self.averaged) if not average]
        if averaged:
            torch._foreach_lerp_([mine[i] for i in averaged], [theirs[i] for i in averaged], 1 - tau)
        own = [*(mine[i] for i in copied), *self.model.buffers()]
        if own:
            torch._foreach_copy_(own, [*(theirs[i] for i in copied), *student.buffers()])


def linear_tau(start: float, end: float, steps: int, step: int) -> float:
    """τ after `step` optimiser steps: from `start` to `end` over `steps`, then constant (arXiv 2202.03555)."""
    return end - (end - start) * max(0.0, 1 - step / steps) if steps else end
