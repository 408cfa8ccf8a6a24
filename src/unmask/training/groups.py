"""Which parameters decay, and how fast each layer learns."""

import re
from collections import defaultdict
from typing import Any

from torch import nn

from unmask.backbone import Learner

_BLOCK = re.compile(r"backbone\.encoder\.blocks\.(\d+)\.")


def parameter_groups(
    module: Learner,
    weight_decay: float,
    layer_decay: float = 1.0,
    depth: int = 0,
    decay_vectors: bool = False,
    decay_tokens: bool = True,
) -> list[dict[str, Any]]:
    """Groups for an optimiser: vectors and biases without decay, everything else with; each with its `lr_scale`.

    Class and mask tokens and learned positions have three axes and do decay, as in pretraining by MAE (arXiv
    2111.06377) and mae_st; fine-tuning there exempts them.

    Args:
        module: what learns.
        weight_decay: of parameters that decay.
        layer_decay: a layer's rate over that of the layer above (arXiv 2106.08254); 1 for all alike.
        depth: encoder blocks.
        decay_vectors: let vectors and biases decay too, as fairseq's data2vec does.
        decay_tokens: let class and mask tokens and mae_st's positions decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter.numel():  # no class token is one of no elements
            exempt = not decay_vectors and (parameter.ndim <= 1 or name.endswith(".bias"))
            exempt |= not decay_tokens and name.endswith(("_token", "_position"))
            decay = 0.0 if exempt else weight_decay
            groups[layer_scale(name, layer_decay, depth), decay].append(parameter)
    return [{"params": params, "weight_decay": d, "lr_scale": scale} for (scale, d), params in groups.items()]


def layer_scale(name: str, layer_decay: float, depth: int) -> float:
    """`decay ** (depth + 1 - id)`: embedding, positions, class token have id 0, block i has i + 1; all else: rate 1."""
    block = _BLOCK.match(name)
    if block:
        return layer_decay ** (depth - int(block[1]))
    if name.startswith(("backbone.modality.", "backbone.class_")):
        return layer_decay ** (depth + 1)
    return 1.0
