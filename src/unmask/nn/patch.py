"""Images and videos as rows of patches, and back."""

from torch import Tensor


def patchify(images: Tensor, patch: int | tuple[int, int]) -> Tensor:
    """(B, C, H, W) to (B, N, P): row-major patches of P = height · width · C values in the order row, column, channel.

    Args:
        images: (B, C, H, W).
        patch: height and width of a patch; one number for both.
    """
    batch, channels, rows, columns = images.shape
    height, width = (patch, patch) if isinstance(patch, int) else patch
    grid = images.view(batch, channels, rows // height, height, columns // width, width)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, height * width * channels)


def centre_pixels(patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(..., P) uint8 values, channels last, to float32: in 0..1 less the channel's mean, over its deviation."""
    pixels = patches.shape[-1] // mean.numel()
    return (patches.float() / 255 - mean.flatten().repeat(pixels)) / std.flatten().repeat(pixels)


def unpatchify(patches: Tensor, patch: int | tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The inverse of `patchify` for a (rows, columns) grid: (B, N, P) to (B, C, H, W)."""
    rows, columns = grid
    height, width = (patch, patch) if isinstance(patch, int) else patch
    image = patches.view(len(patches), rows, columns, height, width, -1)
    return image.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * height, columns * width)


def tubelets(video: Tensor, frames: int, patch: int) -> Tensor:
    """(B, T, C, H, W) to (B, N, P): patches through `frames` frames; tokens and values by time, row, column."""
    batch, time, channels, height, width = video.shape
    grid = video.view(batch, time // frames, frames, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 1, 4, 6, 2, 5, 7, 3).reshape(batch, -1, frames * patch * patch * channels)


def untubelets(patches: Tensor, frames: int, patch: int, grid: tuple[int, int, int]) -> Tensor:
    """The inverse of `tubelets` for a (time, rows, columns) grid: (B, N, P) to (B, T, C, H, W)."""
    times, rows, columns = grid
    video = patches.view(len(patches), times, rows, columns, frames, patch, patch, -1)
    return video.permute(0, 1, 4, 7, 2, 5, 3, 6).reshape(
        len(patches), times * frames, -1, rows * patch, columns * patch
    )
