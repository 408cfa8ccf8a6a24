"""What the runner asks of every objective."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from unmask.backbone import Backbone
from unmask.schema import Batch, Mask, Output


class Objective(nn.Module, ABC):
    """A backbone, a head, a loss.

    Attributes:
        backbone: what is being pretrained.
        normalize: whether reconstruction targets are normalised token by token.
    """

    backbone: Backbone
    normalize: bool

    @abstractmethod
    def forward(self, batch: Batch, mask: Mask) -> Output:
        """The loss at hidden tokens."""

    @abstractmethod
    def predict(self, batch: Batch, mask: Mask) -> Tensor:
        """(B, N - V, P) the reconstruction at hidden tokens, in the target's units."""


def spread(x: Tensor) -> Tensor:
    """(B, K, P) to a scalar: deviation over all tokens, averaged over dimensions. Near zero means collapse."""
    return x.detach().float().flatten(0, -2).std(0).mean()
