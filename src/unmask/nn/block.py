"""One transformer block, in both norm orders."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unmask.nn.attention import Attention

LAYER_NORM_EPS = 1e-6  # MAE's; timm's default is 1e-5 and transformers' 1e-12


@dataclass(frozen=True)
class Style:
    """How the blocks of a trunk are built; every size can be built in every style.

    Attributes:
        norm_first: pre-norm (norm inside the branch) or post-norm (norm after the residual).
        norm_eps: of every layer norm.
        key_bias: see `Attention`.
        layer_scale: initial value of a learned factor on each branch's channels (arXiv 2103.17239); None for none.
        position_bias: what is added to attention scores: none, alibi (by distance) or relative (learned, 2-D).
        dropout: share of a branch's values that training drops.
        attention_dropout: share of attention weights.
        drop_path: share of samples for which the last block's branches are dropped; it grows linearly from 0
            (arXiv 1603.09382).
        layer_drop: share of steps in which a block is left out (arXiv 1909.11556).
        init: xavier (MAE), normal (BERT: deviation .02) or scaled_normal (BEiT: the same, and the last linear layer
            of each branch of block l divided by √(2 l)).
    """

    norm_first: bool = True
    norm_eps: float = LAYER_NORM_EPS
    key_bias: bool = True
    layer_scale: float | None = None
    position_bias: str = "none"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    layer_drop: float = 0.0
    init: str = "xavier"


class Block(nn.Module):
    """Attention and feed-forward, each with a residual (arXiv 2010.11929).

    Args:
        width: D, token width.
        heads: attention heads.
        mlp_ratio: hidden width of the feed-forward over D.
        style: how it is built.
        drop_path: this block's own share of dropped branches.
    """

    scale1: nn.Parameter | None
    scale2: nn.Parameter | None

    def __init__(
        self, width: int, heads: int, mlp_ratio: float = 4.0, style: Style | None = None, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        style = style or Style()
        self.norm_first, self.drop_path = style.norm_first, drop_path
        self.norm1 = nn.LayerNorm(width, eps=style.norm_eps)
        self.attn = Attention(width, heads, style.key_bias, style.attention_dropout)
        self.norm2 = nn.LayerNorm(width, eps=style.norm_eps)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(style.dropout) if style.dropout else nn.Identity()
        for name in ("scale1", "scale2"):
            scale = None if style.layer_scale is None else nn.Parameter(torch.full((width,), style.layer_scale))
            self.register_parameter(name, scale)

    def forward(self, x: Tensor, last: int | None = None, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, N, D) to the block's tokens and the feed-forward output before its residual (data2vec's target).

        With `last`, both are (B, last, D): the final block of a stack computes only the tokens that are read.
        `bias` is the attention's.
        """
        start = 0 if last is None else x.shape[1] - last
        if self.norm_first:
            x = x[:, start:] + self._branch(self.attn(self.norm1(x), last, bias), self.scale1)
            feed_forward = self.mlp(self.norm2(x))
            return x + self._branch(feed_forward, self.scale2), feed_forward
        x = self.norm1(x[:, start:] + self._branch(self.attn(x, last, bias), self.scale1))
        feed_forward = self.mlp(x)
        return self.norm2(x + self._branch(feed_forward, self.scale2)), feed_forward

    def _branch(self, x: Tensor, scale: nn.Parameter | None) -> Tensor:
        """What a branch adds to its residual."""
        x = self.dropout(x)
        if scale is not None:
            x = x * scale
        if self.training and self.drop_path:
            kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
            x = x * (kept / (1 - self.drop_path)).to(x.dtype)
        return x
