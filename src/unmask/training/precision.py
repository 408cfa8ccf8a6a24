"""From a word in the config to Lightning's precision."""

import torch

from unmask.errors import ConfigError
from unmask.nn.attention import cpu_has_bfloat16


def resolve_precision(name: str, device: str) -> str:
    """Lightning's name for `auto`, `fp32`, `bf16` or `fp16` on a device (`cpu`, `cuda`, ...).

    `auto` is bf16 where the hardware multiplies it and fp32 elsewhere: emulated bfloat16 is several times slower.

    Raises:
        ConfigError: fp16 on a CPU, whose losses would underflow without a scaler for it.
    """
    if name == "auto":
        native = cpu_has_bfloat16() if device == "cpu" else device != "cuda" or torch.cuda.is_bf16_supported()
        name = "bf16" if native else "fp32"
    if name == "fp16" and device == "cpu":
        raise ConfigError("precision=fp16 needs a GPU. Use precision=bf16, fp32 or auto on a CPU.")
    return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[name]


def matmul_dtype(precision: str) -> torch.dtype:
    """What a precision multiplies in."""
    return {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}[precision]
