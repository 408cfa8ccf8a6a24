"""Moving digits: real digits on eight paths, written to real video files once and decoded like any others."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.address import address
from unmask.data.digits import Digits
from unmask.data.drawn_clips import FRAMES, RATE, uniform, written_once
from unmask.data.folder import check_split
from unmask.data.video import VideoFolder

MOTIONS = ("right", "left", "down", "up", "clockwise", "anticlockwise", "growing", "shrinking")
SIDE = 32  # pixels
TRAVEL, TURN, GROWTH = 12.0, math.pi / 2, 2.0  # pixels, radians and times, over a whole clip
SIZES, OFFSET = (10, 14), 6  # pixels: of a digit, and how far off the middle it may be in the middle of a clip


class MovingDigits(VideoFolder):
    """Clips of 16 frames of 32 x 32 pixels; the label is the motion, and a single frame says nothing about it.

    In the middle of every clip a digit lies about the middle, turned and sized at random, whatever its motion is.
    Test clips show other digits than training clips.

    Args:
        cache: folder for the clips: 10 MB for 2,400.
        split: train or test.
        train_clips: clips to train on.
        test_clips: held-out clips.

    Raises:
        ConfigError: PyAV is missing, or the cache cannot be written.
    """

    def __init__(self, cache: str | Path, split: str = "train", train_clips: int = 2000, test_clips: int = 400) -> None:
        check_split(split)
        clips = train_clips if split == "train" else test_clips
        made_of = (split, clips, MOTIONS, FRAMES, RATE, SIDE, TRAVEL, TURN, GROWTH, SIZES, OFFSET)
        # One folder is one split here: none of it is held out.
        super().__init__(written_once(cache, "moving_digits", split, made_of, _clips(split, clips)), split)


def _clips(split: str, count: int) -> Iterator[tuple[str, Tensor]]:
    digits = Digits(split)
    for i in range(count):
        motion = MOTIONS[i % len(MOTIONS)]
        yield motion, draw(digits, split, i, motion)[:, None]


def draw(digits: Digits, split: str, index: int, motion: str) -> Tensor:
    """uint8 (frames, side, side): one clip, the same at every call."""
    purpose = f"moving digits {split}"
    picture = digits.images[address(0, purpose, index, 0) % len(digits)].float()
    angle, size = uniform(-math.pi, math.pi, purpose, index, 1), uniform(*SIZES, purpose, index, 2)
    centre = torch.tensor([uniform(-OFFSET, OFFSET, purpose, index, word) for word in (3, 4)])
    phase = torch.linspace(-0.5, 0.5, FRAMES)  # zero in the middle of the clip
    direction = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}.get(motion, (0, 0))
    x, y = (centre[axis] + direction[axis] * TRAVEL * phase for axis in (0, 1))
    turn = angle + phase * TURN * {"clockwise": 1, "anticlockwise": -1}.get(motion, 0)
    sizes = size * GROWTH ** (phase * {"growing": 1, "shrinking": -1}.get(motion, 0))

    # From a place on the canvas to one on the digit, both in -1..1: shift back, turn back, and size.
    scale = SIDE / sizes
    cos, sin = turn.cos() * scale, turn.sin() * scale
    shift_x, shift_y = -2 * x / SIDE, -2 * y / SIDE
    theta = torch.stack(
        [cos, sin, cos * shift_x + sin * shift_y, -sin, cos, -sin * shift_x + cos * shift_y], dim=1
    ).view(FRAMES, 2, 3)
    grid = F.affine_grid(theta, [FRAMES, 1, SIDE, SIDE], align_corners=False)
    canvas = F.grid_sample(picture.expand(FRAMES, 1, -1, -1), grid, align_corners=False)
    return canvas[:, 0].round().clamp(0, 255).to(torch.uint8)
