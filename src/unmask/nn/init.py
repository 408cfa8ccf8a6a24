"""Initial weights: MAE's (arXiv 2111.06377), BERT's (arXiv 1810.04805) and BEiT's (arXiv 2106.08254)."""

from collections.abc import Iterable

import torch
from torch import nn

TOKEN_STD = 0.02  # class and mask tokens, embeddings; the papers' truncated normals have bounds that never bite


def init_transformer(module: nn.Module) -> None:
    """Xavier uniform for linear layers, biases zero; layer norms keep one and zero. For `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_normal(module: nn.Module) -> None:
    """N(0, .02²) for linear layers, biases zero. For `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=TOKEN_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_blocks(blocks: Iterable[nn.Module], name: str) -> None:
    """Initialise a stack as `Style.init` says."""
    for layer, block in enumerate(blocks, start=1):
        block.apply(init_transformer if name == "xavier" else init_normal)
        if name == "scaled_normal":
            with torch.no_grad():
                block.get_submodule("attn.proj").weight /= (2 * layer) ** 0.5
                block.get_submodule("mlp.2").weight /= (2 * layer) ** 0.5
