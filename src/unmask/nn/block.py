"""One transformer block, in both norm orders."""

from torch import Tensor, nn

from unmask.nn.attention import Attention

LAYER_NORM_EPS = 1e-6  # MAE's; timm's default is 1e-5 and transformers' 1e-12


class Block(nn.Module):
    """Attention and feed-forward, each with a residual (arXiv 2010.11929).

    Args:
        width: D, token width.
        heads: attention heads.
        mlp_ratio: hidden width of the feed-forward over D.
        norm_first: pre-norm (norm inside the branch) or post-norm (norm after the residual).
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, norm_first: bool = True) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, last: int | None = None) -> tuple[Tensor, Tensor]:
        """(B, N, D) to the block's tokens and the feed-forward output before its residual.

        With `last`, both are (B, last, D): the final block of a stack computes only the tokens that are read.
        """
        start = 0 if last is None else x.shape[1] - last
        if self.norm_first:
            x = x[:, start:] + self.attn(self.norm1(x), last)
            feed_forward = self.mlp(self.norm2(x))
            return x + feed_forward, feed_forward
        x = self.norm1(x[:, start:] + self.attn(x, last))
        feed_forward = self.mlp(x)
        return self.norm2(x + feed_forward), feed_forward
