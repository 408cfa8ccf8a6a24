"""A decoder whose tokens look at their neighbourhood alone: Audio-MAE's (arXiv 2207.06405), of Swin's (2103.14030)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from unmask.errors import ConfigError
from unmask.masking.select import gather
from unmask.nn.block import LAYER_NORM_EPS, Block
from unmask.nn.encoder import check_heads
from unmask.nn.init import TOKEN_STD, init_transformer
from unmask.nn.position_bias import RelativeBias
from unmask.schema import Mask


class LocalDecoder(nn.Module):
    """Attention within windows of the grid; every other block shifts them by half, so that neighbours come to meet.

    All tokens stand on the grid, mask tokens where hidden, without prefix. Each block has its own table of relative
    positions, beside the fixed positions that tokens carry.

    Args:
        encoder_width: E, width of what comes in.
        width: D, the decoder's.
        position: gives the (N, D) position table.
        prefix: tokens before the grid tokens, which are left out.
        depth: blocks.
        heads: attention heads.
        head: makes, from the width, what predicts P values for each hidden token.
        grid: (rows, columns) of tokens.
        window: (rows, columns) of a window; divides the grid.
        shift: rows and columns that the windows of every second block are shifted by.

    Raises:
        ConfigError: the grid is no picture, the windows do not divide it, or the shift is not within them.
    """

    def __init__(
        self,
        encoder_width: int,
        width: int,
        position: nn.Module,
        prefix: int,
        depth: int,
        heads: int,
        head: Callable[[int], nn.Module],
        grid: tuple[int, ...],
        window: Sequence[int],
        shift: Sequence[int],
    ) -> None:
        super().__init__()
        check_heads("model.decoder", width, heads)
        if len(grid) != 2 or len(window) != 2 or any(g % w for g, w in zip(grid, window, strict=True)):
            raise ConfigError(
                f"objective.decoder_window={list(window)} does not divide the {'x'.join(map(str, grid))} tokens. "
                "Choose rows and columns that do, or null for a decoder that sees all."
            )
        if len(shift) != 2 or any(not 0 <= s < w for s, w in zip(shift, window, strict=True)):
            raise ConfigError(
                f"objective.decoder_shift={list(shift)} must be two numbers below those of "
                f"objective.decoder_window={list(window)}, such as half of them."
            )
        self.prefix, self.grid, self.window = prefix, grid, (window[0], window[1])
        self.shifts = [(0, 0) if i % 2 == 0 else (shift[0], shift[1]) for i in range(depth)]
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = position
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.biases = nn.ModuleList(RelativeBias(self.window, 0, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.predict = head(width)
        self.apply(init_transformer)
        nn.init.normal_(self.mask_token, std=TOKEN_STD)

    def forward(self, latent: Tensor, mask: Mask, real: Tensor | None = None) -> Tensor:
        """(B, prefix + V, E) to (B, H, P), one prediction for each hidden token in the mask's order."""
        visible = self.embed(latent[:, self.prefix :])
        position = self.position()
        x = self.mask_token.to(visible.dtype).expand(len(visible), len(position), -1)
        x = x.scatter(1, mask.visible[..., None].expand_as(visible), visible) + position
        for block, bias, shift in zip(self.blocks, self.biases, self.shifts, strict=True):
            windows = to_windows(x, self.grid, self.window, shift)
            allowed = bias(self.window[0] * self.window[1], None)
            if any(shift):
                same = same_region(self.grid, self.window, shift, x.device)[:, None]
                allowed = allowed.masked_fill(~same, float("-inf")).repeat(len(x), 1, 1, 1)
            windows, _ = block(windows, bias=allowed)
            x = from_windows(windows, self.grid, self.window, shift)
        return self.predict(self.norm(gather(x, mask.hidden)))


def to_windows(x: Tensor, grid: tuple[int, ...], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """(B, N, D) row-major tokens to (B windows, tokens of a window, D), the grid rolled back by the shift first."""
    (rows, columns), (height, width) = grid, window
    x = x.view(len(x), rows, columns, -1).roll((-shift[0], -shift[1]), dims=(1, 2))
    x = x.view(len(x), rows // height, height, columns // width, width, x.shape[-1])
    return x.transpose(2, 3).reshape(-1, height * width, x.shape[-1])


def from_windows(x: Tensor, grid: tuple[int, ...], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """The inverse of `to_windows`."""
    (rows, columns), (height, width) = grid, window
    x = x.view(-1, rows // height, columns // width, height, width, x.shape[-1]).transpose(2, 3)
    return x.reshape(len(x), rows, columns, x.shape[-1]).roll(shift, dims=(1, 2)).flatten(1, 2)


def same_region(grid: tuple[int, ...], window: tuple[int, int], shift: tuple[int, int], device: torch.device) -> Tensor:
    """(windows, T, T) bool: which tokens of a window are neighbours on the grid, and not only since it was rolled."""
    parts = []
    for size, side, by in zip(grid, window, shift, strict=True):
        index = torch.arange(size, device=device)
        parts.append((index >= size - side).long() + (index >= size - by) if by else torch.zeros_like(index))
    region = (3 * parts[0][:, None] + parts[1])[None, :, :, None]
    flat = to_windows(region.flatten(1, 2), grid, window, (0, 0))[..., 0]
    return flat[:, :, None] == flat[:, None, :]
