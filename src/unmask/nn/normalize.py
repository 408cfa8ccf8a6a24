"""Normalisations without parameters, for targets."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.errors import ConfigError, nearest

EPS = 1e-5
NORMS = ("layer", "instance", "none")


def normalize(x: Tensor, how: str, real: Tensor | None = None) -> Tensor:
    """(B, N, D) float32 by its own mean and variance.

    Args:
        x: features.
        how: `layer` (each token over its D values), `instance` (each channel of each sample over its tokens) or `none`.
        real: (B, N) bool, false at padding, which `instance` leaves out; None for no padding.

    Raises:
        ConfigError: none of the three.
    """
    if how == "layer":
        return F.layer_norm(x, x.shape[-1:], eps=EPS)
    if how == "none":
        return x
    if how != "instance":
        raise ConfigError(f"{how} is no normalisation.{nearest(how, NORMS)} Choose layer, instance or none.")
    if real is None:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        return (x - mean) * (variance + EPS).rsqrt()
    weight = real[..., None] / real.sum(1).clamp(min=1)[:, None, None]
    mean = (x * weight).sum(1, keepdim=True)
    variance = ((x - mean).square() * weight).sum(1, keepdim=True)
    return (x - mean) * (variance + EPS).rsqrt()
