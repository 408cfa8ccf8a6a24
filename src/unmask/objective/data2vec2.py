"""data2vec 2.0: data2vec that encodes visible tokens only, under many masks a sample (arXiv 2212.07525)."""

from typing import Any

import torch
from torch import Tensor

from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.masking.select import gather
from unmask.nn.conv_decoder import ConvDecoder
from unmask.nn.init import init_normal
from unmask.objective.data2vec import SelfDistillation, linear_head, regression
from unmask.schema import Batch, Mask, Output


class Data2Vec2(SelfDistillation):
    """Predict a teacher's features at hidden tokens by a convolutional decoder over the student's visible ones.

    The teacher sees the whole sample once; its features are the target of all M masks.

    Args:
        backbone: the student; sees the visible tokens only.
        masks_per_sample: M.
        cls_weight: of the error between the student's class token and the mean of the target over all tokens, a mean
            over samples and masks. The released code sums over the M masks of each sample on a GPU, b samples, with
            its own weight w: the same as w b M here.
        mask_noise_std: deviation of what stands in hidden places, before positions and in the decoder.
        decoder_width: W, of the decoder's convolutions.
        decoder_kernel: their size along each axis, tokens.
        decoder_groups: of their channels.
        decoder_layers: how many there are.
        decoder_residual: whether a layer adds its input, where widths match.
        decoder_dropout: share of the student's output that training drops.
        head_layers: linear layers after the decoder; more than one have 2 W values and a GELU in between.
        teaching: the arguments of `SelfDistillation`.

    Raises:
        ConfigError: an argument is out of its range, or there is a weight for a class token but no class token.
    """

    def __init__(
        self,
        backbone: Backbone,
        masks_per_sample: int,
        cls_weight: float,
        mask_noise_std: float,
        decoder_width: int,
        decoder_kernel: int,
        decoder_groups: int,
        decoder_layers: int,
        decoder_residual: bool,
        decoder_dropout: float,
        head_layers: int,
        **teaching: Any,
    ) -> None:
        super().__init__(backbone, **teaching)
        if cls_weight and not backbone.prefix:
            raise ConfigError(
                f"objective.cls_weight={cls_weight} weighs a class token, and there is none. "
                "Set objective.cls_weight=0, or model.class_token=true."
            )
        self.masks_per_sample, self.cls_weight, self.mask_noise_std = masks_per_sample, cls_weight, mask_noise_std
        width = backbone.encoder.width
        self.decoder = ConvDecoder(
            width,
            decoder_width,
            axes=len(backbone.modality.grid),
            kernel=decoder_kernel,
            groups=decoder_groups,
            layers=decoder_layers,
            residual=decoder_residual,
            noise_std=mask_noise_std,
            dropout=decoder_dropout,
        )
        # First predictions near zero: noise there is undone by silencing its source, and speech's convolutions, whose
        # output the teacher shares, do not recover in short runs.
        self.head = linear_head(decoder_width, width, head_layers).apply(init_normal)

    def forward(self, batch: Batch, mask: Mask) -> Output:
        """Loss in float32; the mask has M rows for each sample."""
        modality, prefix = self.backbone.modality, self.backbone.prefix
        local = modality.embed(batch)
        target = self.targets(batch, local.detach() if self.shares_local else None)
        clones = batch.repeated(self.masks_per_sample)
        encoded = self._encode(clones, mask, local)
        decoded = self.decoder(encoded[:, prefix:], mask, modality.grid_of(batch), modality.real(clones))
        output = self.regress(self.head(decoded), gather(target, mask.hidden), mask)
        if not self.cls_weight:
            return output
        whole = _mean(target, modality.real(batch)).repeat_interleave(self.masks_per_sample, dim=0)
        error = regression(encoded[:, 0].float(), whole, self.beta).mean() * self.scale
        return Output(output.loss + self.cls_weight * error, {**output.metrics, "cls_loss": error.detach()})

    def _encode(self, clones: Batch, mask: Mask, local: Tensor) -> Tensor:
        """(B M, prefix + V, D): each sample's embedding, made once, under each of its masks."""
        if self.backbone.modality.pointwise:  # each mask takes its tokens, and what is hidden is not looked at
            return self.backbone.encode(clones, mask, local=local)
        local = local.repeat_interleave(self.masks_per_sample, dim=0)
        return self.backbone.encode(clones, mask, torch.randn_like(local) * self.mask_noise_std, local=local)


def _mean(tokens: Tensor, real: Tensor | None) -> Tensor:
    """(B, D) means of (B, N, D) over the real tokens."""
    if real is None:
        return tokens.mean(1)
    return (tokens * real[..., None]).sum(1) / real.sum(1, keepdim=True)
