"""From features to words: BERT's head (arXiv 1810.04805), whose last matrix is the embedding of words."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.nn.block import LAYER_NORM_EPS
from unmask.nn.init import init_normal


class WordHead(nn.Module):
    """Dense, GELU, norm; then the product with each word's embedding, and a bias.

    Args:
        width: W, of what comes in.
        words: (P, D) the embedding, which learns here too.
        eps: of the norm.
    """

    def __init__(self, width: int, words: nn.Embedding, eps: float = LAYER_NORM_EPS) -> None:
        super().__init__()
        tokens, dim = words.weight.shape
        self.transform = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.LayerNorm(dim, eps=eps)).apply(init_normal)
        self.words = words.weight
        self.bias = nn.Parameter(torch.zeros(tokens))

    def forward(self, features: Tensor) -> Tensor:
        """(..., W) to logits (..., P)."""
        return F.linear(self.transform(features), self.words, self.bias)
