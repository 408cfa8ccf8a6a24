"""The trunk that every objective and modality shares."""

from torch import Tensor, nn

from unmask.errors import ConfigError
from unmask.nn.block import LAYER_NORM_EPS, Block
from unmask.nn.init import init_transformer


class Encoder(nn.Module):
    """A stack of pre-norm blocks and a final norm.

    Args:
        width: D, token width.
        depth: blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the feed-forward over D.

    Raises:
        ConfigError: the heads do not divide the width.
    """

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        check_heads("model", width, heads)
        self.width, self.depth, self.heads, self.mlp_ratio = width, depth, heads, mlp_ratio
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.apply(init_transformer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D), normed."""
        for block in self.blocks:
            x, _ = block(x)
        return self.norm(x)


def check_heads(key: str, width: int, heads: int) -> None:
    """Say which number to change when the heads do not divide the width."""
    if width % heads:
        raise ConfigError(
            f"{key}.heads={heads} does not divide {key}.width={width}. "
            f"Choose a divisor, such as {max(h for h in range(1, heads) if width % h == 0)}."
        )
