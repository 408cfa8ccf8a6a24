"""Video: clips of frames in, patches through neighbouring frames as tokens (arXiv 2203.12602, 2205.09113)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from unmask.errors import ConfigError, nearest
from unmask.media import Film, Media
from unmask.modality.base import Transform
from unmask.modality.contact_sheet import contact_sheet
from unmask.modality.image import fit
from unmask.modality.patches import TARGET_EPS, PatchModality, check_patch
from unmask.nn.patch import centre_pixels, tubelets, untubelets
from unmask.nn.position import SeparablePosition, resize_table, sincos_3d, sincos_interleaved
from unmask.schema import Batch, Clip, Mask, Sample

POSITIONS = ("sincos", "interleaved", "separable")
NORMS = ("patch", "channel")
RAW_VALUES = 50_000  # of a clip: thousands of clips have to fit into memory
SHOWN = 8  # frames of a clip on a picture


class Video(PatchModality):
    """Patches of `tubelet` frames and `patch_size`² pixels, in the order time, row, column.

    Args:
        width: D, token width.
        frames: of a clip; the tubelet divides them.
        fps: frames a second that are looked at, whatever the file has; clips of 16 at 7.5 are the papers' 16 x 4 of 30.
        image_size: pixels, one number or (height, width).
        patch_size: pixels; divides both sides.
        tubelet: frames of a token.
        channels: C: 3, or 1 for grey.
        mean: C means that pixels in 0..1 are centred by.
        std: C deviations that they are divided by.
        crop_scale: random crops for training cover at least this share of the area; 1 crops nothing.
        flip: mirror half of the training clips.
        positions: `sincos` in three axes; `interleaved`, VideoMAE's along all tokens in a row; or `separable`,
            mae_st's, learned for space and time apart.
        target_frames: frames that are predicted, spread evenly over the clip (mae_st predicts 8 of 16); None for all.
        target_norm: of each patch, where targets are normalised: over all its values (`patch`), or over those of each
            channel (`channel`, VideoMAE's).
        position_grid: (times, rows, columns) that fixed positions are of, where clips were of another size in
            pretraining.

    Raises:
        ConfigError: patch or tubelet do not divide, mean and std do not fit, or there is no such option.
    """

    kind = "videos"
    adaptable = ("frames", "fps", "image_size", "crop_scale", "flip", "mean", "std")
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        width: int,
        frames: int,
        fps: float,
        image_size: int | Sequence[int],
        patch_size: int,
        tubelet: int,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        crop_scale: float = 0.5,
        flip: bool = True,
        positions: str = "sincos",
        target_frames: int | None = None,
        target_norm: str = "patch",
        position_grid: Sequence[int] | None = None,
    ) -> None:
        height_width = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        for side in height_width:
            check_patch("modality.patch_size", patch_size, "data.image_size", side)
        check_patch("modality.tubelet", tubelet, "data.frames", frames)
        for key, value, options in (("positions", positions, POSITIONS), ("target_norm", target_norm, NORMS)):
            if value not in options:
                raise ConfigError(
                    f"modality.{key}={value}: there is no such option.{nearest(value, options)} "
                    f"Choose one of {', '.join(options)}."
                )
        if not len(mean or ()) == len(std or ()) == channels:
            raise ConfigError(
                f"data.mean has {len(mean or ())} and data.std {len(std or ())} numbers for data.channels={channels}. "
                "Give one of each for every channel."
            )
        self._positions = positions
        times = frames // tubelet
        grid = (times, height_width[0] // patch_size, height_width[1] // patch_size)
        self.class_position = positions == "separable"
        if self.class_position:
            position_grid = None  # learned tables are of the grid that they are trained on
        super().__init__(width, grid, tubelet * patch_size**2 * channels, position_grid=position_grid)
        if target_frames is not None and (target_frames % times or not 0 < target_frames <= frames):
            raise ConfigError(
                f"modality.target_frames={target_frames} does not give each of the {times} tokens along time as many. "
                f"Choose {times}, or null for all {frames}."
            )
        self.settings = {
            "width": width, "frames": frames, "fps": fps, "image_size": list(height_width), "patch_size": patch_size,
            "tubelet": tubelet, "channels": channels, "mean": list(mean), "std": list(std), "crop_scale": crop_scale,
            "flip": flip, "positions": positions, "target_frames": target_frames, "target_norm": target_norm,
            "position_grid": list(self.position_grid),
        }  # fmt: skip
        self.patch_size, self.tubelet, self.target_norm = patch_size, tubelet, target_norm
        # Truncated, as mae_st does: of 16 frames 0, 2, 4, 6, 8, 10, 12 and 15.
        count = target_frames or frames
        self.predicted = [(frames - 1) * i // max(1, count - 1) for i in range(count)]
        self.target_size = len(self.predicted) // times * patch_size**2 * channels
        self.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def transform(self, train: bool) -> Transform:
        """Random place in time, resized crop and flip for training; else the middle. Bicubic, uint8 throughout."""
        size = tuple(self.settings["image_size"])
        crop_scale = self.settings["crop_scale"] if train else 1.0
        flip = train and self.settings["flip"]
        return VideoTransform(
            self.settings["frames"], self.settings["fps"], size, self.settings["channels"], train, crop_scale, flip
        )

    def test_views(self, time: int, space: int) -> list[Transform]:
        """Clips from evenly spread places, each cut to squares along its longer side: as the papers test."""
        settings = self.settings
        return [
            VideoTransform(
                settings["frames"], settings["fps"], tuple(settings["image_size"]), settings["channels"],
                random=False, crop_scale=1.0, flip=False, place=(_spread(i, time), _spread(j, space)),
            )
            for i in range(time)
            for j in range(space)
        ]  # fmt: skip

    def values(self, batch: Batch) -> Tensor:
        """(B, C, T, H, W) pixels in 0..1."""
        return batch.inputs.float().transpose(1, 2) / 255

    def cut(self, batch: Batch) -> Tensor:
        """(B, N, P) uint8 pixels."""
        return tubelets(batch.inputs, self.tubelet, self.patch_size)

    def cut_target(self, batch: Batch) -> Tensor:
        """(B, N, P) uint8 pixels of the predicted frames alone."""
        return tubelets(batch.inputs[:, self.predicted], len(self.predicted) // self.grid[0], self.patch_size)

    def centre(self, patches: Tensor) -> Tensor:
        """Normalise pixels, each channel by its own mean and deviation."""
        return centre_pixels(patches, self.pixel_mean, self.pixel_std)

    def position(self, width: int) -> nn.Module:
        """Gives the (N, width) table, which learns where positions are separable."""
        times, rows, columns = self.grid
        return SeparablePosition(width, (times, rows, columns)) if self.class_position else super().position(width)

    def fitted(self, weights: dict[str, Tensor], grid: tuple[int, ...]) -> dict[str, Tensor]:
        """Learned positions interpolated from `grid`, in time linearly and in space bicubically."""
        if not isinstance(self.positions, SeparablePosition):
            return weights
        resized = {}
        for name, axes in (("time_position", slice(0, 1)), ("space_position", slice(1, 3))):
            key = f"positions.{name}"
            resized[key] = resize_table(weights[key][0], grid[axes], self.grid[axes])[None]
        return weights | resized

    def sincos(self, width: int, grid: tuple[int, ...], key: str) -> Tensor:
        """(N, width) table of times, rows and columns, or along all tokens."""
        times, rows, columns = grid
        if self._positions == "interleaved":
            return sincos_interleaved(width, times * rows * columns, key)
        return sincos_3d(width, (times, rows, columns), key)

    def raw_features(self, batch: Batch) -> Tensor:
        """All normalised pixels in a row; of large clips the mean of each channel over each patch of each frame."""
        times, rows, columns = self.grid
        video = untubelets(self.patches(batch), self.tubelet, self.patch_size, (times, rows, columns))
        if video[0].numel() > RAW_VALUES:
            video = F.avg_pool2d(video.flatten(0, 1), self.patch_size).view(len(video), -1)
        return video.flatten(1)

    def picture(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> np.ndarray:
        """Some frames of each clip from left to right, clips below each other: input, visible, reconstruction."""
        views, captions = self.views(batch, mask, prediction, normalized)
        shown = torch.linspace(0, views[0].shape[1] - 1, min(SHOWN, views[0].shape[1])).round().long()
        strips = [torch.cat(list(view[:, shown].unbind(1)), dim=-1) for view in views]
        columns = [torch.cat(list(strip), dim=-2)[None] for strip in strips]
        return contact_sheet(columns, captions)

    def media(self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool) -> dict[str, Media]:
        """The clips side by side; below each what was visible of it, and the reconstruction."""
        views, _ = self.views(batch, mask, prediction, normalized)
        rows = [torch.cat(list(view), dim=-1) for view in views]
        fps = self.settings["fps"] * len(self.predicted) / self.settings["frames"]
        return {"clips": Film(torch.cat(rows, dim=-2), fps)}

    def views(
        self, batch: Batch, mask: Mask, prediction: Tensor | None, normalized: bool
    ) -> tuple[list[Tensor], list[str]]:
        """uint8 (B, T', C, H, W) clips of the predicted frames, each with a caption: as `picture`."""
        patches = self.centre(self.cut_target(batch))
        seen = patches.masked_fill(mask.is_hidden(patches.shape[1])[..., None], 0.0)
        views, captions = [patches, seen], ["input", f"visible ({mask.fraction():.0%} hidden)"]
        if prediction is not None:
            views.append(self.filled(batch, mask, prediction, normalized))
            note = ", brightness and contrast of each hidden patch taken from the input" if normalized else ""
            captions.append(f"reconstruction{note}")
        return [self._pixels(view) for view in views], captions

    def moments(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each patch, over all its values or over those of each channel."""
        if self.target_norm == "patch":
            return super().moments(patches)
        channels = self.settings["channels"]
        split = patches.view(*patches.shape[:-1], -1, channels)
        # VideoMAE normalises pixels in 0..1 by deviation + eps; ours are those over std, so eps is too.
        eps = TARGET_EPS / self.pixel_std.flatten()
        mean, deviation = split.mean(-2, keepdim=True), split.std(-2, keepdim=True) + eps
        return mean.expand_as(split).flatten(-2), deviation.expand_as(split).flatten(-2)

    def _pixels(self, patches: Tensor) -> Tensor:
        """Centred patches (B, N, P) to uint8 (B, T', C, H, W)."""
        times, rows, columns = self.grid
        video = untubelets(patches, len(self.predicted) // times, self.patch_size, (times, rows, columns))
        return ((video * self.pixel_std + self.pixel_mean) * 255).round().clamp(0, 255).to(torch.uint8)


class VideoTransform(Transform):
    """From an open video to frames of a fixed size; the frames are read once, and cropped at each call.

    Where nothing is random, `place` says which part of the time and of the longer side is seen, from 0 to 1.
    """

    def __init__(
        self,
        frames: int,
        fps: float,
        size: tuple[int, ...],
        channels: int,
        random: bool,
        crop_scale: float,
        flip: bool,
        place: tuple[float, float] = (0.5, 0.5),
    ) -> None:
        self.place = place
        self.frames, self.fps, self.size, self.channels = frames, fps, tuple(size), channels
        self.random, self.flip = random, flip
        self.crop = v2.RandomResizedCrop(self.size, scale=(crop_scale, 1.0)) if crop_scale < 1 else None

    def read(self, sample: Sample) -> Sample:
        """The clip's frames, uint8 (T, 3, h, w); where the video is over its last frame goes on."""
        clip: Clip = sample.value
        surplus = max(0.0, clip.seconds - self.frames / self.fps)
        start = surplus * (float(torch.rand(())) if self.random else self.place[0])
        try:
            return Sample(clip.frames([start + i / self.fps for i in range(self.frames)]), sample.label)
        finally:
            clip.close()

    def __call__(self, sample: Sample) -> Tensor:
        """uint8 (T, C, H, W); all frames are cropped alike."""
        video = fit(sample.value, self.size, self.crop, self.place[1])
        if self.flip and torch.rand(()) < 0.5:
            video = video.flip(-1)
        return video if self.channels == 3 else v2.functional.rgb_to_grayscale(video)


def _spread(index: int, count: int) -> float:
    """The middle for one, else evenly from 0 to 1."""
    return 0.5 if count == 1 else index / (count - 1)
