"""What a training is doing and how fast, to every logger."""

import math
import resource
import sys
import time
from collections import defaultdict
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.utils.flop_counter import FlopCounterMode

from unmask.errors import ConfigError
from unmask.nn.sharded import whole
from unmask.schema import Batch
from unmask.training.module import TrainingModule
from unmask.training.precision import matmul_dtype


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Two products of queries with keys and weights with values; (B, heads, tokens, d)."""
    return 2 * math.prod(query) * key[2] + 2 * math.prod(query[:3]) * key[2] * value[3]


def _attention_backward_flops(
    grad: Any, query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    """The weights once more, then two products for each of the forward's two."""
    scores = 2 * math.prod(query) * key[2]
    return 3 * scores + 2 * (2 * math.prod(query[:3]) * key[2] * value[3])


# torch counts the fused attention of GPUs, but not that of CPUs.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


class Metrics(L.Callback):
    """Means over the micro-batches since the last log; nothing is read from the device in between.

    First among the callbacks: the time from the end of all hooks to the next micro-batch is then the wait for data.

    Args:
        every: optimiser steps between two rows.

    Attributes:
        latest: the last row.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.latest: dict[str, float] = {}
        self._flops_per_sample = 0.0
        self._counter: FlopCounterMode | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure what this machine can do at best."""
        dtype = matmul_dtype(str(trainer.precision))
        self._peak = matmul_flops_per_second(pl_module.device, dtype)
        self._clear()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Stop the data clock, start the step clock."""
        self._began = time.perf_counter()
        if self._flops_per_sample == 0:  # count the first micro-batch: the same operations, seen by a counter
            self._counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
            self._counter.__enter__()  # type: ignore[no-untyped-call]
        elif hasattr(pl_module, "batch_ended"):
            self._waited += self._began - pl_module.batch_ended

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """The gradient's norm, where it is going to be logged."""
        if (trainer.global_step + 1) % self.every == 0:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            self._grad_norm = float(whole(get_total_norm(gradients)))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Add up, and log at the end of every so many optimiser steps."""
        assert isinstance(pl_module, TrainingModule)
        if self._counter is not None:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._flops_per_sample = self._counter.get_total_flops() / len(batch)
            self._counter = None
        for name, value in pl_module.output.metrics.items():
            self._sums[name] = self._sums[name] + value
        if pl_module.mask is not None:
            self._hidden.append(pl_module.hidden_fraction)
            self._visible += pl_module.mask.visible.numel()
        self._count += 1
        self._samples += len(batch)
        self._busy += time.perf_counter() - self._began
        parts = trainer.accumulate_grad_batches
        if (batch_idx + 1) % parts == 0:
            self._sums["loss"] = self._sums["loss"] + pl_module.step_loss * parts  # divided by micro-batches below
            if trainer.global_step % self.every == 0:
                self._log(trainer, pl_module)
                self._clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What came since the last row."""
        if self._count:
            assert isinstance(pl_module, TrainingModule)
            self._log(trainer, pl_module)

    def _log(self, trainer: L.Trainer, module: TrainingModule) -> None:
        count, seconds = self._count, self._busy + self._waited
        # With several devices: means and speeds of all ranks, times of this one. Saving, probes, pictures are left out.
        speed = self._samples / seconds * trainer.world_size
        seen = trainer.global_step * trainer.datamodule.global_batch  # type: ignore[attr-defined]
        self.latest = {
            **{name: float(_over_ranks(trainer, value, "mean")) / count for name, value in sorted(self._sums.items())},
            "learning_rate": module.optimization.learning_rate(trainer.global_step - 1),
            "grad_norm": self._grad_norm,
            "epoch": seen / len(trainer.datamodule.train),  # type: ignore[attr-defined]
            "samples_per_second": speed,
            "step_seconds": seconds * trainer.accumulate_grad_batches / count,
            "data_wait_share": self._waited / seconds,
            "mfu": speed / trainer.world_size * self._flops_per_sample / self._peak,
            "teraflop": seen * self._flops_per_sample / 1e12,  # since the first step of the run
            "memory_gb": memory_gb(module.device),
        }
        if self._hidden:
            hidden = torch.stack(self._hidden)
            self.latest |= {
                "visible_tokens_per_second": self._visible / seconds * trainer.world_size,
                "hidden_fraction_min": float(_over_ranks(trainer, hidden.min(), "min")),
                "hidden_fraction_mean": float(_over_ranks(trainer, hidden.mean(), "mean")),
                "hidden_fraction_max": float(_over_ranks(trainer, hidden.max(), "max")),
            }
        if not math.isfinite(self.latest["loss"]):
            raise ConfigError(
                f"The loss is {self.latest['loss']} at step {trainer.global_step}. Lower optimizer.base_lr (applied: "
                f"{self.latest['learning_rate']:.3g}), clip with trainer.gradient_clip=1, or look with debug=anomaly."
            )
        log_metrics(trainer, self.latest)

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        self._hidden: list[Tensor] = []
        self._count = self._samples = self._visible = 0
        self._busy = self._waited = 0.0
        self._grad_norm = float("nan")


def _over_ranks(trainer: L.Trainer, value: Tensor, how: str) -> Tensor:
    """One number of all ranks; they log at the same steps."""
    reduced = trainer.strategy.reduce(value.clone(), reduce_op=how)
    assert isinstance(reduced, Tensor)
    return reduced


@rank_zero_only
def log_metrics(trainer: L.Trainer, metrics: dict[str, float]) -> None:
    """Numbers to every logger, at the optimiser step that is done."""
    for logger in trainer.loggers:
        logger.log_metrics(metrics, trainer.global_step)


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """The best of a few square matrix products: what MFU is measured against."""
    size = 1024 if device.type == "cpu" else 8192
    square = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        product = square @ square
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def memory_gb(device: torch.device) -> float:
    """Peak memory so far, in GB: the device's, or this process's where it computes on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
