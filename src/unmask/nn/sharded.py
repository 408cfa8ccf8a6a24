"""Tensors that may be split over devices."""

from torch import Tensor
from torch.distributed.tensor import DTensor


def whole(x: Tensor) -> Tensor:
    """A tensor that may be split over devices, in one piece. All of them have to come."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def local(x: Tensor) -> Tensor:
    """This device's part of a tensor that may be split; changing it changes that."""
    return x.to_local() if isinstance(x, DTensor) else x
