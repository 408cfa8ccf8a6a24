"""The trunk that every objective and modality shares."""

from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from unmask.errors import ConfigError
from unmask.nn.block import Block, Style
from unmask.nn.init import init_blocks
from unmask.nn.window import Windows


class Encoder(nn.Module):
    """A stack of blocks with one more norm: after them where they are pre-norm, before them where they are post-norm.

    Args:
        width: D, token width.
        depth: blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the feed-forward over D.
        style: how the blocks are built.

    Raises:
        ConfigError: the heads do not divide the width.
    """

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float = 4.0, style: Style | None = None) -> None:
        super().__init__()
        check_heads("model", width, heads)
        self.width, self.depth, self.heads, self.mlp_ratio, self.style = (
            width,
            depth,
            heads,
            mlp_ratio,
            style or Style(),
        )
        paths = [self.style.drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, self.style, path) for path in paths)
        self.norm = nn.LayerNorm(width, eps=self.style.norm_eps)
        self.dropout = nn.Dropout(self.style.dropout) if self.style.dropout else nn.Identity()
        init_blocks(self.blocks, self.style.init)

    def forward(
        self, x: Tensor, bias: Tensor | None = None, last_norm: bool = True, windows: Windows | None = None
    ) -> Tensor:
        """(B, N, D) to (B, N, D).

        Args:
            x: tokens.
            bias: the attention's.
            last_norm: False leaves out the norm after pre-norm blocks.
            windows: which blocks look at what; None for all at all.
        """
        tokens, _ = deque(self.layers(x, bias, windows), maxlen=1).pop()  # the last; earlier ones are let go
        return self.norm(tokens) if self.style.norm_first and last_norm else tokens

    def layers(
        self, x: Tensor, bias: Tensor | None = None, windows: Windows | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """After each block: its tokens, and its feed-forward output before the residual."""
        x = self.dropout(x if self.style.norm_first else self.norm(x))
        for index, block in enumerate(self.blocks):
            before = x
            if windows is None or index in windows.whole:
                x, feed_forward = block(x, bias=bias)
            else:
                x, feed_forward = windows.inside(block, x, bias)
            if self.training and self.style.layer_drop:
                # A dropped block is computed all the same, with weight zero: on several devices, each of which drops
                # others, every parameter has to have a gradient.
                kept = float(torch.rand(()) >= self.style.layer_drop)
                x, feed_forward = before + (x - before) * kept, feed_forward * kept
            yield x, feed_forward


def check_heads(key: str, width: int, heads: int) -> None:
    """Say which number to change when the heads do not divide the width."""
    if width % heads:
        raise ConfigError(
            f"{key}.heads={heads} does not divide {key}.width={width}. "
            f"Choose a divisor, such as {max(h for h in range(1, heads) if width % h == 0)}."
        )
