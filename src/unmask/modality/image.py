"""Images: uint8 (C, H, W) in, square patches as tokens."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from unmask.errors import ConfigError
from unmask.modality.base import Transform
from unmask.modality.contact_sheet import contact_sheet
from unmask.modality.patches import PatchModality, check_patch
from unmask.nn.hog import hog, hog_size
from unmask.nn.patch import centre_pixels, patchify, unpatchify
from unmask.nn.position import sincos_2d
from unmask.schema import Batch, Mask, Sample


class Image(PatchModality):
    """Patches of `patch_size`² pixels with fixed sine-cosine positions (MAE, arXiv 2111.06377).

    Args:
        width: D, token width.
        image_size: pixels, one number or (height, width).
        patch_size: pixels; divides both sides.
        channels: C.
        mean: C means that pixels in 0..1 are centred by.
        std: C deviations that they are divided by.
        crop_scale: random crops for training cover at least this share of the area; 1 crops nothing.
        flip: mirror half of the training images.
        absolute_positions: add a fixed sine-cosine table to the tokens (BEiT and data2vec have relative ones alone).
        position_grid: (rows, columns) that the table is of, where the pictures were of another size in pretraining.

    Raises:
        ConfigError: the patch does not divide the image, or mean and std do not fit the channels.
    """

    kind = "images"
    adaptable = ("image_size", "crop_scale", "flip", "mean", "std")
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        width: int,
        image_size: int | Sequence[int],
        patch_size: int,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        crop_scale: float = 0.2,
        flip: bool = True,
        absolute_positions: bool = True,
        position_grid: Sequence[int] | None = None,
    ) -> None:
        height_width = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        for side in height_width:
            check_patch("modality.patch_size", patch_size, "data.image_size", side)
        if not len(mean or ()) == len(std or ()) == channels:
            raise ConfigError(
                f"data.mean has {len(mean or ())} and data.std {len(std or ())} numbers for data.channels={channels}. "
                "Give one of each for every channel."
            )
        grid = (height_width[0] // patch_size, height_width[1] // patch_size)
        super().__init__(width, grid, patch_size**2 * channels, absolute_positions, position_grid)
        self.settings = {
            "width": width, "image_size": list(height_width), "patch_size": patch_size, "channels": channels,
            "mean": list(mean), "std": list(std), "crop_scale": crop_scale, "flip": flip,
            "absolute_positions": absolute_positions, "position_grid": list(self.position_grid),
        }  # fmt: skip
        self.image_size, self.patch_size, self.crop_scale, self.flip = height_width, patch_size, crop_scale, flip
        self.hog_size = hog_size(patch_size, channels)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def transform(self, train: bool) -> Transform:
        """Random resized crop and flip for training, resize and centre crop otherwise; bicubic, uint8 throughout."""
        return ImageTransform(self.image_size, self.crop_scale if train else 1.0, self.flip and train)

    def values(self, batch: Batch) -> Tensor:
        """(B, C, H, W) pixels in 0..1."""
        return batch.inputs.float() / 255

    def cut(self, batch: Batch) -> Tensor:
        """(B, N, P) uint8 pixels."""
        return patchify(batch.inputs, self.patch_size)

    def centre(self, patches: Tensor) -> Tensor:
        """Normalise pixels, each channel by its own mean and deviation."""
        return centre_pixels(patches, self.pixel_mean, self.pixel_std)

    def sincos(self, width: int, grid: tuple[int, ...], key: str) -> Tensor:
        """(N, width) table of rows and columns."""
        rows, columns = grid
        return sincos_2d(width, (rows, columns), key)

    def hog_target(self, batch: Batch, mask: Mask) -> Tensor:
        """(B, H, hog_size) float32: gradient histograms of the hidden patches; gradients see across their borders.

        Of pixels in 0..1: normalised ones, whose channels have another mean and scale, would have the same.
        """
        return hog(self.values(batch), self.patch_size, mask.hidden)

    def raw_features(self, batch: Batch) -> Tensor:
        """All normalised pixels in a row."""
        return self._joined(self.patches(batch)).flatten(1)

    def picture(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> np.ndarray:
        """Input, visible patches on grey, reconstruction: a row each."""
        patches = self.patches(batch)
        seen = patches.masked_fill(mask.is_hidden(patches.shape[1])[..., None], 0.0)
        views, captions = [patches, seen], ["input", f"visible ({mask.fraction():.0%} hidden)"]
        if prediction is not None:
            note = ", brightness and contrast of each hidden patch taken from the input" if normalized else ""
            views.append(self.filled(batch, mask, prediction, normalized))
            captions.append(f"reconstruction{note}")
        return contact_sheet([self._pixels(x) for x in views], captions)

    def _joined(self, patches: Tensor) -> Tensor:
        """(B, N, P) to (B, C, H, W)."""
        rows, columns = self.grid
        return unpatchify(patches, self.patch_size, (rows, columns))

    def _pixels(self, patches: Tensor) -> Tensor:
        """Centred patches (B, N, P) to uint8 images (B, C, H, W)."""
        images = self._joined(patches)
        return ((images * self.pixel_std + self.pixel_mean) * 255).round().clamp(0, 255).to(torch.uint8)


class ImageTransform(Transform):
    """From a source's image to a fixed size; random draws come from torch's global generator, seeded by the stream."""

    def __init__(self, size: tuple[int, ...], crop_scale: float, flip: bool) -> None:
        self.size = tuple(size)
        self.crop = v2.RandomResizedCrop(self.size, scale=(crop_scale, 1.0)) if crop_scale < 1 else None
        self.flip = flip

    def __call__(self, sample: Sample) -> Tensor:
        """uint8 (C, h, w) to uint8 (C, H, W)."""
        image = fit(sample.value, self.size, self.crop)
        return image.flip(-1) if self.flip and torch.rand(()) < 0.5 else image


def fit(pixels: Tensor, size: tuple[int, ...], crop: v2.RandomResizedCrop | None, place: float = 0.5) -> Tensor:
    """uint8 (..., h, w) to (..., H, W): a random crop, resized; without one resized to cover, and cut off.

    Of what is cut off, the share `place` lies left or above.
    """
    if crop is not None:
        box = crop.make_params([pixels])
        pixels = pixels[..., box["top"] : box["top"] + box["height"], box["left"] : box["left"] + box["width"]]
        return v2.functional.resize(pixels, list(size), InterpolationMode.BICUBIC)
    if pixels.shape[-2:] == size:
        return pixels
    zoom = max(wanted / side for wanted, side in zip(size, pixels.shape[-2:], strict=True))
    covering = [max(round(side * zoom), wanted) for side, wanted in zip(pixels.shape[-2:], size, strict=True)]
    pixels = v2.functional.resize(pixels, covering, InterpolationMode.BICUBIC)
    top, left = (round((side - wanted) * place) for side, wanted in zip(pixels.shape[-2:], size, strict=True))
    return pixels[..., top : top + size[0], left : left + size[1]]
