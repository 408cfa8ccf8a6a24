"""LARS: every matrix steps by a share of its own norm."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """Momentum on gradients that are scaled to their parameter's norm (arXiv 1708.03888), as MAE's linear probe has it.

    A tensor p of two axes or more with gradient g, decay included, goes by g times trust_coefficient |p| / |g|, where
    neither norm is zero; vectors and biases go by their gradient, and do not decay.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        momentum: share of the last update that is kept.
        weight_decay: added to the gradient, times the parameter.
        trust_coefficient: see above.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust_coefficient": trust_coefficient}
        super().__init__(params, given)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if "update" not in self.state[p]:
                    self.state[p]["update"] = torch.zeros_like(p)
                update: Tensor = self.state[p]["update"]
                update.mul_(group["momentum"]).add_(_scaled(p, group["weight_decay"], group["trust_coefficient"]))
                p.sub_(update, alpha=group["lr"])
        return loss


def _scaled(p: Tensor, weight_decay: float, trust_coefficient: float) -> Tensor:
    """The gradient of a parameter, at the length that LARS gives it."""
    assert p.grad is not None
    if p.ndim < 2:
        return p.grad
    gradient = p.grad + weight_decay * p
    size, length = p.norm(), gradient.norm()
    trust = torch.where((size > 0) & (length > 0), trust_coefficient * size / length, 1.0)
    return gradient * trust
