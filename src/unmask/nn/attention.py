"""Multi-head self-attention, by whichever exact path is fastest on this device."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# On CPUs with bfloat16 matrix instructions the backward of the fused kernel was measured 2-3 times slower than two
# batched matrix products at 50-500 tokens; everywhere else (float32, CPUs without them, GPUs) the fused kernel wins.
MATMUL_MAX_TOKENS = 512


class Attention(nn.Module):
    """Self-attention with one fused projection and biases on query, key and value.

    Args:
        width: D, token width.
        heads: attention heads; each is D / heads wide.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, last: int | None = None) -> Tensor:
        """(B, N, D) to (B, N, D), or to (B, last, D): only the last tokens ask, all are looked at."""
        batch, tokens, width = x.shape
        if last is None or last == tokens:
            qkv = self.qkv(x).view(batch, tokens, 3, self.heads, -1)
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            query = F.linear(x[:, -last:], weight[:width], bias[:width])
            query = query.view(batch, last, self.heads, -1).transpose(1, 2)
            key_value = F.linear(x, weight[width:], bias[width:]).view(batch, tokens, 2, self.heads, -1)
            key, value = key_value.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(attend(query, key, value).transpose(1, 2).flatten(2))


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v over (B, heads, tokens, d)."""
    if prefer_matmul(query.device.type, query.dtype, key.shape[2]):
        return attend_matmul(query, key, value)
    return F.scaled_dot_product_attention(query, key, value)


def attend_matmul(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by two batched matrix products, the softmax in float32."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def prefer_matmul(device: str, dtype: torch.dtype, tokens: int) -> bool:
    """Whether two matrix products beat the fused kernel here."""
    return device == "cpu" and dtype == torch.bfloat16 and tokens <= MATMUL_MAX_TOKENS and cpu_has_bfloat16()


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (without, bfloat16 is several times slower)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
