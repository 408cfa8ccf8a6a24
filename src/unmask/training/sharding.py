"""Weights, gradients and optimiser states split over devices: models that one device cannot hold (arXiv 2304.11277)."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from unmask.backbone import Learner
from unmask.nn.block import Block
from unmask.nn.sharded import whole

# A block's output is a view of what it computed; only after its own return is anything added to it, out of place.
warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")


def sharded_strategy(devices: int) -> ModelParallelStrategy:
    """Every device sees other samples; a checkpoint is one file, of whole tensors, that any strategy can go on from."""
    # Lightning's own sizes would split each matrix instead, and give all devices the same samples.
    return ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1, save_distributed_checkpoint=False)


class Sharding:
    """A model that is split in place: each block by itself, a teacher's too, and what is around them as one.

    Args:
        model: what learns.
        mesh: the devices, along one axis.
    """

    def __init__(self, model: Learner, mesh: DeviceMesh) -> None:
        self.model = model
        self.whole = copy.deepcopy(model).requires_grad_(False)  # forwarded by one device without asking the others
        self._empty(self.whole)
        nothing = {p for p in model.parameters() if not p.numel()}  # no class token: there is nothing to split
        for part in [*(module for module in model.modules() if isinstance(module, Block)), model]:
            fully_shard(part, mesh=mesh, ignored_params=nothing)

    @contextmanager
    def gathered(self) -> Iterator[Learner]:
        """The model in one piece, for as long as it is looked at. All devices have to come."""
        device = next(self.model.parameters()).device
        self.whole.to(device)
        with torch.no_grad():
            for into, part in zip(self.whole.parameters(), self.model.parameters(), strict=True):
                into.data = whole(part)
            for buffer, its in zip(self.whole.buffers(), self.model.buffers(), strict=True):
                buffer.copy_(its)
        try:
            yield self.whole
        finally:
            self._empty(self.whole)

    @staticmethod
    def _empty(model: Learner) -> None:
        for parameter in model.parameters():
            parameter.data = parameter.data.new_empty(0)
