"""data2vec: predict what a teacher that sees everything makes of what is hidden (arXiv 2202.03555)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.backbone import Backbone
from unmask.errors import ConfigError, nearest
from unmask.masking.select import gather
from unmask.modality.base import spread
from unmask.nn.ema import EMA, linear_tau
from unmask.nn.init import init_normal
from unmask.nn.normalize import NORMS, normalize
from unmask.objective.base import Objective
from unmask.schema import Batch, Mask, Output

TARGETS = ("ffn", "block")
REDUCTIONS = ("mean", "root", "sum")


class SelfDistillation(Objective):
    """What data2vec and data2vec 2.0 share: a teacher that is the student's running average, and what it teaches.

    Args:
        backbone: the student.
        top_k: K, blocks that make the target, counted from the last; None for all.
        target: `ffn`, a block's feed-forward output before its residual, or `block`, its output.
        layer_norm: of each layer before averaging: instance, layer or none.
        target_norm: after averaging.
        beta: smooth-L1's β in the target's units; 0 for squared error (without the half).
        reduction: over the D values of a token: `mean`, `sum`, or `root` for sum / √D.
        tau_start: τ, the share of itself that the teacher keeps at a step, at first.
        tau_end: τ at the end; at 1 the teacher stands still.
        tau_steps: optimiser steps from the one to the other.
        copied: prefixes of backbone parameters that the teacher takes over; None for what the modality says.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(
        self,
        backbone: Backbone,
        top_k: int | None,
        target: str,
        layer_norm: str,
        target_norm: str,
        beta: float,
        reduction: str,
        tau_start: float,
        tau_end: float,
        tau_steps: int,
        copied: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        depth, width = backbone.encoder.depth, backbone.encoder.width
        if top_k is not None and not 1 <= top_k <= depth:
            raise ConfigError(
                f"objective.top_k={top_k} of model.depth={depth} blocks is not possible. Choose 1 to {depth}, or null."
            )
        for key, value, options in (
            ("target", target, TARGETS),
            ("layer_norm", layer_norm, NORMS),
            ("target_norm", target_norm, NORMS),
            ("reduction", reduction, REDUCTIONS),
        ):
            if value not in options:
                raise ConfigError(
                    f"objective.{key}={value}: there is no such option.{nearest(value, options)} "
                    f"Choose one of {', '.join(options)}."
                )
        self.backbone = backbone
        self.top_k, self.target = top_k or depth, target
        self.layer_norm, self.target_norm = layer_norm, target_norm
        self.beta, self.scale = beta, {"mean": 1.0, "root": width**0.5, "sum": float(width)}[reduction]
        self.tau_start, self.tau_end, self.tau_steps = tau_start, tau_end, tau_steps
        copied = tuple(backbone.modality.copied if copied is None else copied)
        for name in copied:
            if not any(f"{parameter}.".startswith(f"{name}.") for parameter, _ in backbone.named_parameters()):
                parts = ", ".join(part for part, _ in backbone.named_children())
                raise ConfigError(f"objective.copied={list(copied)}: the backbone has no {name}. It has {parts}.")
        prefixes = tuple(f"{name}." for name in copied)
        # Then what the student embeds is what the teacher would.
        self.shares_local = all(f"{name}.".startswith(prefixes) for name in backbone.modality.embedders)
        self.teacher = EMA(backbone, copied)

    def regress(self, prediction: Tensor, target: Tensor, mask: Mask) -> Output:
        """The loss, in float32, of (B, H, D) predictions at the hidden tokens."""
        prediction = prediction.float()
        loss = mask.mean(regression(prediction, target, self.beta)) * self.scale
        return Output(loss, {"target_std": spread(target, mask), "prediction_std": spread(prediction, mask)})

    @torch.no_grad()
    def targets(self, batch: Batch, local: Tensor | None = None) -> Tensor:
        """(B, N, D) float32: the teacher's normalised, averaged layers at every grid token of the whole sample."""
        teacher: Backbone = self.teacher.model  # type: ignore[assignment]
        real = teacher.modality.real(batch)
        total = torch.zeros(())
        first = teacher.encoder.depth - self.top_k
        for layer, (tokens, feed_forward) in enumerate(teacher.encoder.layers(*teacher.prepare(batch, local=local))):
            if layer >= first:
                features = (feed_forward if self.target == "ffn" else tokens)[:, teacher.prefix :].float()
                total = total.to(features.device) + normalize(features, self.layer_norm, real)
        return normalize(total / self.top_k, self.target_norm, real)

    def after_step(self, step: int) -> None:
        """Move the teacher."""
        self.teacher.update(self.backbone, linear_tau(self.tau_start, self.tau_end, self.tau_steps, step))

    def views(self, batch: Batch) -> dict[str, Tensor]:
        """The teacher's targets too."""
        return {**super().views(batch), "teacher": self.targets(batch)}


class Data2Vec(SelfDistillation):
    """Predict the teacher's features at hidden tokens from what the student makes of all places.

    Args:
        backbone: the student; sees all places, with a mask token where hidden.
        head_layers: linear layers of the regression head; more than one have 2 D values and a GELU in between.
        teaching: the arguments of `SelfDistillation`.
    """

    def __init__(self, backbone: Backbone, head_layers: int, **teaching: Any) -> None:
        super().__init__(backbone, **teaching)
        width = backbone.encoder.width
        self.mask_token = backbone.modality.new_mask_token()
        self.head = linear_head(width, width, head_layers).apply(init_normal)

    def forward(self, batch: Batch, mask: Mask) -> Output:
        """Loss in float32."""
        local = self.backbone.modality.embed(batch)
        fill = self.backbone.modality.filling(batch, mask, self.mask_token)
        encoded = self.backbone.encode(batch, mask, fill, keep_hidden=True, local=local)
        prediction = self.head(gather(encoded[:, self.backbone.prefix :], mask.hidden))
        target = gather(self.targets(batch, local.detach() if self.shares_local else None), mask.hidden)
        return self.regress(prediction, target, mask)


def regression(prediction: Tensor, target: Tensor, beta: float) -> Tensor:
    """Element by element: smooth-L1 with β > 0, else the squared error."""
    if beta == 0:
        return (prediction - target).square()
    return F.smooth_l1_loss(prediction, target, beta=beta, reduction="none")


def linear_head(width: int, output: int, layers: int) -> nn.Sequential:
    """Linear layers from `width` to `output`, 2 x `width` values and a GELU between them."""
    sizes = [width, *[2 * width] * (layers - 1), output]
    parts: list[nn.Module] = []
    for before, after in pairwise(sizes):
        parts += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*parts[:-1])
