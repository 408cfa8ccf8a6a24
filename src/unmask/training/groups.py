"""Which parameters decay."""

from typing import Any

from torch import nn


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimiser: vectors and biases without decay, everything else with.

    Class and mask tokens have three axes and do decay, as in MAE's pretraining (arXiv 2111.06377).
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    plain = [p for name, p in trained if p.ndim <= 1 or name.endswith(".bias")]
    decayed = [p for name, p in trained if not (p.ndim <= 1 or name.endswith(".bias"))]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
