"""Multi-head self-attention, by whichever exact path is fastest on this device."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# On CPUs with bfloat16 matrix instructions the backward of the fused kernel was measured 2-3 times slower than two
# batched matrix products at 50-500 tokens; everywhere else (float32, CPUs without them, GPUs) the fused kernel wins.
MATMUL_MAX_TOKENS = 512


class Attention(nn.Module):
    """Self-attention with one fused projection.

    Args:
        width: D, token width.
        heads: attention heads; each is D / heads wide.
        key_bias: a bias on keys too, beside queries and values. (It cannot change the result, but published weights
            either have it or not.)
        dropout: share of attention weights that training drops.
    """

    def __init__(self, width: int, heads: int, key_bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=key_bias)
        if not key_bias:
            self.query_bias = nn.Parameter(torch.zeros(width))
            self.value_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, last: int | None = None, bias: Tensor | None = None) -> Tensor:
        """(B, N, D) to (B, N, D), or to (B, last, D): only the last tokens ask, all are looked at.

        Args:
            x: tokens.
            last: how many tokens ask; None for all.
            bias: added to the scores, or bool, true where a token may be looked at; broadcasts to (B, heads, N, N).
        """
        batch, tokens, width = x.shape
        weight, qkv_bias = self.qkv.weight, self._bias()
        if last is None or last == tokens:
            qkv = F.linear(x, weight, qkv_bias).view(batch, tokens, 3, self.heads, -1)
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            query = F.linear(x[:, -last:], weight[:width], qkv_bias[:width])
            query = query.view(batch, last, self.heads, -1).transpose(1, 2)
            key_value = F.linear(x, weight[width:], qkv_bias[width:]).view(batch, tokens, 2, self.heads, -1)
            key, value = key_value.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(query, key, value, bias, self.dropout if self.training else 0.0)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _bias(self) -> Tensor:
        if self.qkv.bias is not None:
            return self.qkv.bias
        return torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ / √d + bias) v over (B, heads, tokens, d)."""
    if prefer_matmul(query.device.type, query.dtype, key.shape[2]):
        return attend_matmul(query, key, value, bias, dropout)
    if bias is not None and bias.is_floating_point():
        bias = bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, bias, dropout)


def attend_matmul(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """The same by two batched matrix products, the softmax in float32."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias if bias.is_floating_point() else scores.masked_fill(~bias, float("-inf"))
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return F.dropout(weights, dropout) @ value if dropout else weights @ value


def prefer_matmul(device: str, dtype: torch.dtype, tokens: int) -> bool:
    """Whether two matrix products beat the fused kernel here."""
    return device == "cpu" and dtype == torch.bfloat16 and tokens <= MATMUL_MAX_TOKENS and cpu_has_bfloat16()


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (without, bfloat16 is several times slower)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
