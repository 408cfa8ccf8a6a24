"""Camera motion: a camera moves in eight ways over photographs, in real video files that are written once."""

import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import resize

from unmask.address import address
from unmask.data.drawn_clips import FRAMES, RATE, uniform, written_once
from unmask.data.folder import FileTree, check_split
from unmask.data.images import SUFFIXES, read_image
from unmask.data.video import VideoFolder
from unmask.errors import BrokenSample, ConfigError

MOTIONS = ("pan left", "pan right", "pan up", "pan down", "zoom in", "zoom out", "rotate left", "rotate right")
PAN, ZOOM, TURN = 0.5, 2.0, math.pi / 3  # of the view's side, times, and radians, over a whole clip
SHORT, VIEW = 256, (0.15, 0.35)  # pixels of a photo's shorter side, and the part of them that a view's side takes
FINE = 2  # samples along either side of a pixel, averaged
TRIES = 4  # places that are looked for contrast: no motion can be seen on a clear sky
HELD_OUT = 5  # every so many photos

_REMEDY = "Run `make data-photos`, or set data.root to a folder of photos."


class CameraMotion(VideoFolder):
    """Clips of 16 square frames in colour; the label is what the camera does, and a single frame says nothing about it.

    What is seen moves the other way: to the right while the camera pans left. In the middle of a clip the camera looks
    anywhere but at the plainest places, turned and zoomed at random, whatever its motion is. Test clips show other
    photos than training clips.

    Args:
        root: folder of photos; every fifth, in the order of a hash of their names, is for testing.
        cache: folder for the clips: 12 MB for 2,400 of 32 x 32 pixels.
        split: train or test.
        train_clips: clips to train on.
        test_clips: held-out clips.
        side: pixels of a frame, an even number.

    Raises:
        ConfigError: there are no two photos, one is broken, PyAV is missing, or the cache cannot be written.
    """

    def __init__(
        self,
        root: str | Path,
        cache: str | Path,
        split: str = "train",
        train_clips: int = 2000,
        test_clips: int = 400,
        side: int = 32,
    ) -> None:
        check_split(split)
        if not isinstance(side, int) or side < 2 or side % 2:
            raise ConfigError(f"data.image_size={side}: clips are square, of even sides. Choose one even number.")
        paths = split_photos(Path(root).expanduser().absolute(), split)
        count = train_clips if split == "train" else test_clips
        photos = [(path.name, path.stat().st_size) for path in paths]
        made_of = (photos, count, side, MOTIONS, FRAMES, RATE, PAN, ZOOM, TURN, SHORT, VIEW, FINE, TRIES)
        # One folder is one split here: none of it is held out.
        super().__init__(written_once(cache, "camera_motion", split, made_of, _clips(paths, split, count, side)), split)


def split_photos(root: Path, split: str) -> list[Path]:
    """The photos of a split. Raises ConfigError where there are no two photos."""
    tree = FileTree(root, "photos", SUFFIXES, _REMEDY)
    names = sorted(tree.files(root), key=lambda name: zlib.crc32(os.fsencode(name)))
    if len(names) < 2:
        raise tree.error(root, "holds one photo, and the test set needs another")
    return [root / name for i, name in enumerate(names) if (i % HELD_OUT == 0) == (split == "test")]


def _clips(paths: list[Path], split: str, count: int, side: int) -> Iterator[tuple[str, Tensor]]:
    try:
        photos = [resize(read_image(path, 3), [SHORT], antialias=True).float() for path in paths]
    except BrokenSample as error:
        raise ConfigError(f"data.root: {error}. Take this file away.") from error
    for i in range(count):
        motion = MOTIONS[i % len(MOTIONS)]
        photo = photos[address(0, f"camera motion {split}", i, 0) % len(photos)]
        yield motion, draw(photo, split, i, motion, side)


def draw(photo: Tensor, split: str, index: int, motion: str, side: int) -> Tensor:
    """uint8 (frames, 3, side, side): one clip over a float photo (3, H, W), the same at every call."""
    purpose, (height, width) = f"camera motion {split}", photo.shape[1:]
    view = min(height, width) * uniform(*VIEW, purpose, index, 1)  # pixels; no motion leads farther off than so many
    x, y = _place(photo, view, purpose, index)
    phase = torch.linspace(-0.5, 0.5, FRAMES)  # zero in the middle of the clip
    views = view * ZOOM ** (phase * {"zoom in": -1, "zoom out": 1}.get(motion, 0))
    turn = uniform(-math.pi, math.pi, purpose, index, 4)
    turns = turn + phase * TURN * {"rotate left": -1, "rotate right": 1}.get(motion, 0)
    cos, sin = turns.cos(), turns.sin()  # the camera's right is (cos, sin) on the photo, its down (-sin, cos)
    pans = {"pan left": (-1, 0), "pan right": (1, 0), "pan up": (0, -1), "pan down": (0, 1)}
    right, down = (phase * PAN * view * sign for sign in pans.get(motion, (0, 0)))

    # From a place on the frame to one on the photo, both in -1..1: size, turn and shift.
    to_x = torch.stack([views * cos, -views * sin, 2 * (x + right * cos - down * sin) - width], dim=1) / width
    to_y = torch.stack([views * sin, views * cos, 2 * (y + right * sin + down * cos) - height], dim=1) / height
    fine = [FRAMES, 3, FINE * side, FINE * side]
    grid = F.affine_grid(torch.stack([to_x, to_y], dim=1), fine, align_corners=False)
    frames = F.avg_pool2d(F.grid_sample(photo.expand(FRAMES, -1, -1, -1), grid, align_corners=False), FINE)
    return frames.round().clamp(0, 255).to(torch.uint8)


def _place(photo: Tensor, view: float, purpose: str, index: int) -> tuple[float, float]:
    """Where the camera is in the middle of the clip: of a few places the one around which pixels deviate most."""

    def contrast(place: tuple[float, float]) -> float:
        left, top = (round(middle - view / 2) for middle in place)
        return float(photo[:, top : top + round(view), left : left + round(view)].mean(0).std())

    height, width = photo.shape[1:]
    places = [
        (uniform(view, width - view, purpose, index, 2, i), uniform(view, height - view, purpose, index, 3, i))
        for i in range(TRIES)
    ]
    return max(places, key=contrast)
