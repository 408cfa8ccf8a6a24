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
        width: D, the decoder's.
        position: gives the (N, D) position table.
        prefix: tokens before the grid tokens, such as the class token.
        depth: blocks.
        heads: attention heads.
        head: makes, from the width, what predicts P values for each hidden token.
        own_prefix: put learned tokens where the encoder's prefix was, which is not looked at (mae_st).
        prefix_position: learn positions of the prefix; else they are zero.
    """

    class_token: nn.Parameter | None
    class_position: nn.Parameter | None

    def __init__(
        self,
        encoder_width: int,
        width: int,
        position: nn.Module,
        prefix: int,
        depth: int,
        heads: int,
        head: Callable[[int], nn.Module],
        own_prefix: bool = False,
        prefix_position: bool = False,
    ) -> None:
        super().__init__()
        check_heads("model.decoder", width, heads)
        self.prefix = prefix
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = position
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.predict = head(width)
        self.apply(init_transformer)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)
        for name, wanted in (("class_token", own_prefix), ("class_position", prefix_position)):
            token = nn.Parameter(torch.randn(1, prefix, width) * TOKEN_STD) if wanted and prefix else None
            self.register_parameter(name, token)

    def forward(self, latent: Tensor, mask: Mask, real: Tensor | None = None) -> Tensor:
        """(B, prefix + V, E) to (B, H, P), one prediction for each hidden token in the mask's order.

        `real` is (B, N) bool, false at padding, which is not looked at.
        """
        x = self.embed(latent)
        position = self.position().expand(len(x), -1, -1)
        prefix, visible = x[:, : self.prefix], x[:, self.prefix :] + gather(position, mask.visible)
        if self.class_token is not None:
            prefix = self.class_token.expand_as(prefix)
        if self.class_position is not None:
            prefix = prefix + self.class_position
        hidden = self.mask_token + gather(position, mask.hidden[:, mask.kept :])
        x = torch.cat([prefix, visible, hidden], dim=1)
        bias = None
        if real is not None:
            seen = real.gather(1, torch.cat([mask.visible, mask.hidden[:, mask.kept :]], dim=1))
            bias = nn.functional.pad(seen, (self.prefix, 0), value=True)[:, None, None]
        *early, final = self.blocks
        for block in early:
            x, _ = block(x, bias=bias)
        x, _ = final(x, last=mask.hidden.shape[1], bias=bias)
        prediction: Tensor = self.predict(self.norm(x))
        return prediction
