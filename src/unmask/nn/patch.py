"""Images as rows of patches, and back."""

from torch import Tensor


def patchify(images: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) to (B, N, P): row-major patches of P = patch² · C values in the order row, column, channel."""
    batch, channels, height, width = images.shape
    grid = images.view(batch, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of `patchify` for a (rows, columns) grid: (B, N, P) to (B, C, H, W)."""
    rows, columns = grid
    image = patches.view(len(patches), rows, columns, patch, patch, -1)
    return image.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * patch, columns * patch)
