"""Training as Lightning sees it: what pretraining and fine-tuning share, and pretraining."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from unmask.address import address
from unmask.backbone import Learner
from unmask.masking.strategy import MaskStrategy
from unmask.nn.sharded import local
from unmask.objective.base import Objective
from unmask.schema import Batch, Mask, Output
from unmask.training.groups import parameter_groups
from unmask.training.sharding import Sharding


class Optimization(NamedTuple):
    """How parameters learn.

    Attributes:
        make_optimizer: from parameter groups to an optimiser.
        learning_rate: by optimiser step.
        weight_decay: for parameters that decay.
        layer_decay: a layer's learning rate over that of the layer above.
        decay_vectors: let vectors and biases decay too.
        decay_tokens: let class and mask tokens and mae_st's positions decay.
    """

    make_optimizer: Callable[[list[dict[str, Any]]], Optimizer]
    learning_rate: Callable[[int], float]
    weight_decay: float
    layer_decay: float
    decay_vectors: bool
    decay_tokens: bool = True


class TrainingModule(L.LightningModule, ABC):
    """Steps whose randomness and learning rate are functions of their number.

    Args:
        optimization: how parameters learn.
        seed: the run's.

    Attributes:
        output: what the model returned for the last micro-batch.
        mask: what was hidden from it; None where nothing is.
        hidden_fraction: scalar, what share of the real tokens that hid.
        batch_ended: when the last micro-batch was done with, by `time.perf_counter`.
    """

    output: Output
    mask: Mask | None = None
    hidden_fraction: Tensor
    batch_ended: float

    def __init__(self, optimization: Optimization, seed: int) -> None:
        super().__init__()
        self.optimization, self.seed = optimization, seed
        self._counted = self._lost = torch.zeros(())
        self._sharding: Sharding | None = None

    @property
    @abstractmethod
    def model(self) -> Learner:
        """What learns: it holds a backbone."""

    def configure_model(self) -> None:
        """Split the model over the devices where the strategy is to."""
        strategy = self.trainer.strategy
        if isinstance(strategy, ModelParallelStrategy) and self._sharding is None:
            self._sharding = Sharding(self.model, strategy.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Optimizer:
        """Parameter groups by decay and layer; the rate is set by `optimizer_step`."""
        how, depth = self.optimization, self.model.backbone.encoder.depth
        decays = how.weight_decay, how.layer_decay, depth, how.decay_vectors, how.decay_tokens
        return how.make_optimizer(parameter_groups(self.model, *decays))

    def share_of_step(self, loss: Tensor, count: Tensor | int) -> Tensor:
        """A micro-batch's mean over `count` things, weighted so that the step's loss is the mean over all of its own.

        Over all devices and accumulation, as published: a mean of means would favour micro-batches with little in
        them. Where a step is one micro-batch nothing is changed.
        """
        if self.trainer.accumulate_grad_batches * self.trainer.world_size == 1:
            self.step_loss = loss.detach()
            return loss
        # In thousands: a loss as large as all its tokens would leave the range of float16.
        count = torch.as_tensor(count, dtype=torch.float32, device=loss.device) / 1000
        loss = loss * count
        self._counted, self._lost = self._counted + count, self._lost + loss.detach()
        return loss

    def on_after_backward(self) -> None:
        """At the end of a step divide its gradients and its loss by what was counted."""
        parts, world = self.trainer.accumulate_grad_batches, self.trainer.world_size
        if parts * world == 1 or (self.trainer.fit_loop.batch_idx + 1) % parts:
            return
        counted = self.trainer.strategy.reduce(self._counted, reduce_op="sum").clamp(min=1e-3)
        self.step_loss = self._lost * world / counted  # its mean over the devices is the step's
        self._counted = self._lost = torch.zeros(())
        gradients = [local(p.grad) for p in self.model.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, parts * world / counted)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout and the like by address, so that no generator has to be saved."""
        accumulated = self.trainer.accumulate_grad_batches
        torch.manual_seed(address(self.seed, "step", self.global_step, batch_idx % accumulated, self.global_rank))

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Set this step's rate, step, then let the model follow."""
        for group in optimizer.param_groups:
            group["lr"] = self.optimization.learning_rate(self.global_step) * group["lr_scale"]
        done, scaler = self.global_step + 1, getattr(self.trainer.precision_plugin, "scaler", None)
        scale = scaler.get_scale() if scaler else 1.0
        optimizer.step(closure=optimizer_closure)
        if scaler is None or scaler.get_scale() >= scale:  # else float16 overflowed, and the step was skipped
            self.after_step(done)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """By the L2 norm. Lightning refuses this for fused optimisers under bfloat16, where nothing is scaled."""
        if gradient_clip_val is not None:
            torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], gradient_clip_val)

    def after_step(self, done: int) -> None:
        """Called after each optimiser step with the number of steps done, this one included."""

    @contextmanager
    def judged(self) -> Iterator[Any]:
        """The model to look at: in one piece, in eval mode, without gradients, and put back after.

        All ranks have to come, where only one of them looks too.
        """
        with nullcontext(self.model) if self._sharding is None else self._sharding.gathered() as model:
            model.eval()
            try:
                with torch.inference_mode():
                    yield model
            finally:
                model.train()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """The last hook of a micro-batch: what comes until the next one starts is waiting for data."""
        self.batch_ended = time.perf_counter()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checkpoints lie between optimiser steps, so a new accumulation window starts, whatever its size now is.

        Lightning finds the end of a window by counting micro-batches; its saved count of completed ones lags by one
        where it was saved in a batch's last hook, and is put right on loading.
        """
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        lag = progress["total"]["processed"] - progress["total"]["completed"]
        progress["current"] = {"ready": 0, "started": 0, "processed": 0, "completed": -lag}


class PretrainModule(TrainingModule):
    """Draw a mask, ask the objective for a loss. Knows no modality and no method.

    Args:
        objective: backbone, head and loss.
        masking: the strategy.
        optimization: how parameters learn.
        seed: the run's.
    """

    def __init__(self, objective: Objective, masking: MaskStrategy, optimization: Optimization, seed: int) -> None:
        super().__init__(optimization, seed)
        self.objective, self.masking = objective, masking

    @property
    def model(self) -> Objective:
        """The objective."""
        return self.objective

    def draw_mask(self, batch: Batch) -> Mask:
        """The masks of each sample, by its stream position."""
        modality, repeats = self.objective.backbone.modality, self.objective.masks_per_sample
        positions, counts, never_hidden = batch.positions, modality.counts(batch), modality.never_hidden(batch)
        if repeats > 1:
            clones = torch.arange(repeats, device=positions.device)
            positions = (positions[:, None] * repeats + clones).flatten()
            counts, never_hidden = (
                None if x is None else x.repeat_interleave(repeats, 0) for x in (counts, never_hidden)
            )
        return self.masking.draw(self.seed, positions, modality.grid_of(batch), counts, never_hidden)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one micro-batch."""
        self.mask = self.draw_mask(batch)
        counts = self.objective.backbone.modality.counts(batch)
        real = None if counts is None else counts.sum() * self.objective.masks_per_sample
        self.hidden_fraction = self.mask.fraction(real)
        self.output = self.objective(batch, self.mask)
        return self.share_of_step(self.output.loss, self.mask.count)

    def after_step(self, done: int) -> None:
        """A teacher moves."""
        self.objective.after_step(done)
