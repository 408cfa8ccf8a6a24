"""From visible tokens to a prediction at every hidden one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unmask.masking.select import gather
from unmask.nn.block import LAYER_NORM_EPS, Block
from unmask.nn.encoder import check_heads
from unmask.nn.init import TOKEN_STD, init_transformer
from unmask.schema import Mask


class TransformerDecoder(nn.Module):
    """MAE's light decoder (arXiv 2111.06377): mask tokens stand in for hidden ones, attention fills them in.

    Tokens carry their position, so their order in the sequence is free: visible first, hidden last. Nothing has to be
    un-shuffled, and the last block and the prediction run on the hidden tokens alone, the only ones with a loss.

    Args:
        encoder_width: E, width of what comes in.
        position: (N, D) fixed position table; its width is the decoder's.
        prefix: tokens before the grid tokens, such as the class token; their position is zero.
        depth: blocks.
        heads: attention heads.
        head: makes, from the width, what predicts P values for each hidden token.
    """

    position: Tensor

    def __init__(
        self,
        encoder_width: int,
        position: Tensor,
        prefix: int,
        depth: int,
        heads: int,
        head: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        width = position.shape[1]
        check_heads("model.decoder", width, heads)
        self.prefix = prefix
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("position", position, persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.predict = head(width)
        self.apply(init_transformer)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, latent: Tensor, mask: Mask, real: Tensor | None = None) -> Tensor:
        """(B, prefix + V, E) to (B, H, P), one prediction for each hidden token in the mask's order.

        `real` is (B, N) bool, false at padding, which is not looked at.
        """
        x = self.embed(latent)
        position = self.position.expand(len(x), -1, -1)
        visible = x[:, self.prefix :] + gather(position, mask.visible)
        hidden = self.mask_token + gather(position, mask.hidden)
        x = torch.cat([x[:, : self.prefix], visible, hidden], dim=1)
        bias = None
        if real is not None:
            seen = real.gather(1, torch.cat([mask.visible, mask.hidden], dim=1))
            bias = nn.functional.pad(seen, (self.prefix, 0), value=True)[:, None, None]
        *early, final = self.blocks
        for block in early:
            x, _ = block(x, bias=bias)
        x, _ = final(x, last=mask.hidden.shape[1], bias=bias)
        prediction: Tensor = self.predict(self.norm(x))
        return prediction
