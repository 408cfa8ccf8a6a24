"""Initial weights as MAE's (arXiv 2111.06377)."""

from torch import nn

TOKEN_STD = 0.02  # class and mask tokens; the paper's truncated normal has bounds that never bite


def init_transformer(module: nn.Module) -> None:
    """Xavier uniform for linear layers, biases zero; layer norms keep one and zero. For `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
