"""Images: uint8 (C, H, W) in, square patches as tokens."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from unmask.errors import ConfigError
from unmask.masking.select import gather
from unmask.modality.base import Modality, Transform
from unmask.modality.contact_sheet import contact_sheet
from unmask.nn.hog import hog, hog_size
from unmask.nn.init import init_transformer
from unmask.nn.patch import patchify, unpatchify
from unmask.nn.position import sincos_2d
from unmask.schema import Batch, Mask, Sample

TARGET_EPS = 1e-6  # inside the root, on the unbiased variance (MAE's released code)


class Image(Modality):
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

    Raises:
        ConfigError: the patch does not divide the image, or mean and std do not fit the channels.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    table: Tensor

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
    ) -> None:
        super().__init__()
        height_width = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        for side in height_width:
            if side % patch_size:
                divisors = [p for p in range(1, side + 1) if side % p == 0]
                raise ConfigError(
                    f"modality.patch_size={patch_size} does not divide data.image_size={side}. "
                    f"Choose {min(divisors, key=lambda p: abs(p - patch_size))}, or another image size."
                )
        if not len(mean) == len(std) == channels:
            raise ConfigError(
                f"data.mean has {len(mean)} and data.std {len(std)} numbers for data.channels={channels}. "
                "Give one of each for every channel."
            )
        self.settings = {
            "width": width, "image_size": list(height_width), "patch_size": patch_size, "channels": channels,
            "mean": list(mean), "std": list(std), "crop_scale": crop_scale, "flip": flip,
            "absolute_positions": absolute_positions,
        }  # fmt: skip
        self.image_size, self.patch_size, self.crop_scale, self.flip = (
            height_width,
            patch_size,
            crop_scale,
            flip,
        )
        self.grid = (height_width[0] // patch_size, height_width[1] // patch_size)
        self.target_size = patch_size**2 * channels
        self.hog_size = hog_size(patch_size, channels)
        # A convolution whose stride is its kernel, as one matrix product over the patches that are wanted.
        self.projection = nn.Linear(self.target_size, width)
        init_transformer(self.projection)
        table = self.position(width) if absolute_positions else torch.zeros(math.prod(self.grid), width)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def transform(self, train: bool) -> Transform:
        """Random resized crop and flip for training, resize and centre crop otherwise; bicubic, uint8 throughout."""
        return ImageTransform(self.image_size, self.crop_scale if train else 1.0, self.flip and train)

    def embed(self, batch: Batch, visible: Tensor | None = None) -> Tensor:
        """Project the wanted patches only."""
        patches = patchify(self._normalize(batch.inputs), self.patch_size)
        return self.projection(patches if visible is None else gather(patches, visible))

    def add_position(self, tokens: Tensor, visible: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """Add the fixed table; images are not padded."""
        if visible is None:
            return tokens + self.table
        return tokens + gather(self.table.expand(len(tokens), -1, -1), visible)

    def position(self, width: int) -> Tensor:
        """(N, width) sine-cosine table."""
        rows, columns = self.grid
        own = width == self.settings["width"]
        return sincos_2d(width, (rows, columns), "model.width" if own else "model.decoder.width")

    def target(self, batch: Batch, mask: Mask, normalize: bool) -> Tensor:
        """Pixels of the hidden patches, optionally each patch by its own mean and unbiased deviation."""
        patches = gather(patchify(self._normalize(batch.inputs), self.patch_size), mask.hidden)
        if not normalize:
            return patches
        mean, deviation = _moments(patches)
        return (patches - mean) / deviation

    def hog_target(self, batch: Batch, mask: Mask) -> Tensor:
        """(B, H, hog_size) float32: gradient histograms of the hidden patches; gradients see across their borders.

        Of pixels in 0..1: normalised ones, whose channels have another mean and scale, would have the same.
        """
        return hog(batch.inputs.float() / 255, self.patch_size, mask.hidden)

    def raw_features(self, batch: Batch) -> Tensor:
        """All normalised pixels in a row."""
        return self._normalize(batch.inputs).flatten(1)

    def picture(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> np.ndarray:
        """Input, visible patches on grey, reconstruction: a row each."""
        patches = patchify(self._normalize(batch.inputs), self.patch_size)
        seen = patches.masked_fill(mask.is_hidden(patches.shape[1])[..., None], 0.0)
        captions = ["input", f"visible ({mask.fraction():.0%} hidden)"]
        if prediction is None:
            return contact_sheet([self._pixels(x) for x in (patches, seen)], captions)
        if normalized:
            # The model never predicted brightness and contrast: they are the input's, and the sheet says so.
            mean, deviation = _moments(gather(patches, mask.hidden))
            prediction = prediction * deviation + mean
        index = mask.hidden[:, :, None].expand_as(prediction)
        filled = patches.scatter(1, index, prediction.to(patches.dtype))
        note = ", brightness and contrast of each hidden patch taken from the input" if normalized else ""
        return contact_sheet([self._pixels(x) for x in (patches, seen, filled)], [*captions, f"reconstruction{note}"])

    def _normalize(self, inputs: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to centred float32."""
        return (inputs.float() / 255 - self.pixel_mean) / self.pixel_std

    def _pixels(self, patches: Tensor) -> Tensor:
        """Centred patches (B, N, P) to uint8 images (B, C, H, W)."""
        rows, columns = self.grid
        images = unpatchify(patches, self.patch_size, (rows, columns))
        return ((images * self.pixel_std + self.pixel_mean) * 255).round().clamp(0, 255).to(torch.uint8)


class ImageTransform:
    """From a source's image to a fixed size; random draws come from torch's global generator, seeded by the stream."""

    def __init__(self, size: tuple[int, ...], crop_scale: float, flip: bool) -> None:
        self.size = tuple(size)
        self.crop = v2.RandomResizedCrop(self.size, scale=(crop_scale, 1.0)) if crop_scale < 1 else None
        self.flip = flip

    def __call__(self, sample: Sample) -> Tensor:
        """uint8 (C, h, w) to uint8 (C, H, W)."""
        image = sample.value
        if self.crop is not None:
            box = self.crop.make_params([image])
            image = image[:, box["top"] : box["top"] + box["height"], box["left"] : box["left"] + box["width"]]
            image = v2.functional.resize(image, list(self.size), InterpolationMode.BICUBIC)
        elif image.shape[1:] != self.size:
            zoom = max(wanted / side for wanted, side in zip(self.size, image.shape[1:], strict=True))
            covering = [
                max(round(side * zoom), wanted) for side, wanted in zip(image.shape[1:], self.size, strict=True)
            ]
            image = v2.functional.resize(image, covering, InterpolationMode.BICUBIC)
            image = v2.functional.center_crop(image, list(self.size))
        return image.flip(-1) if self.flip and torch.rand(()) < 0.5 else image


def _moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch over all its values."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + TARGET_EPS).sqrt()
