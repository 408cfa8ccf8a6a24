import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.functional import InterpolationMode, rotate

from tests.conftest import fetch
from unmask.data.camera_motion import MOTIONS, CameraMotion, draw, split_photos
from unmask.data.drawn_clips import FRAMES, RATE
from unmask.errors import ConfigError

BACK = {"pan left": "pan right", "pan up": "pan down", "zoom in": "zoom out", "rotate left": "rotate right"}
SIDE = 32


def scenery(seed: int) -> torch.Tensor:
    """A float photo (3, 256, 340) of soft spots."""
    coarse = torch.rand(1, 3, 22, 28, generator=torch.Generator().manual_seed(seed)) * 255
    return F.interpolate(coarse, (256, 340), mode="bicubic").clamp(0, 255)[0]


def write(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.fromarray(scenery(i).permute(1, 2, 0).numpy().astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def ends(motion: str, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    clip = draw(scenery(0), "train", index, motion, SIDE).float()
    return clip[0], clip[-1]


@pytest.mark.parametrize("index", range(4))
def test_the_camera_does_what_the_label_says(index):
    half, quarter = SIDE // 2, SIDE // 4
    first, last = ends("pan right", index)  # by half a view: what was on the right is on the left
    assert (last[:, :, :half] - first[:, :, half:]).abs().max() <= 1
    first, last = ends("pan down", index)
    assert (last[:, :half] - first[:, half:]).abs().max() <= 1
    first, last = ends("zoom in", index)  # twice: the middle fills the frame
    middle = first[:, quarter:-quarter, quarter:-quarter]
    assert (F.avg_pool2d(last, 2) - middle).abs().mean() < 3
    first, last = ends("rotate right", index)  # by 60 degrees: what is seen turns anticlockwise
    turned = rotate(first, 60, InterpolationMode.BILINEAR)
    y, x = torch.meshgrid(*[torch.arange(SIDE) - (SIDE - 1) / 2] * 2, indexing="ij")
    assert (turned - last)[:, x**2 + y**2 < 14**2].abs().mean() < 3
    assert (first - last).abs().mean() > 10


@pytest.mark.parametrize("motion", BACK)
def test_the_other_half_of_the_motions_is_the_first_half_backwards(motion):
    photo = scenery(1)
    there, back = (draw(photo, "train", 5, name, SIDE).flip(0) for name in (motion, BACK[motion]))
    assert (there.flip(0).float() - back.float()).abs().max() <= 1
    assert (there.float() - back.float()).abs().max() > 20


def test_the_camera_never_looks_beyond_the_photo():
    white = torch.full((3, 256, 256), 255.0)
    for index in range(100):
        for motion in MOTIONS:
            assert draw(white, "test", index, motion, 8).min() == 255


def test_the_camera_looks_where_something_is_to_be_seen():
    photo = torch.zeros(3, 256, 512)
    photo[:, :, 256:] = scenery(2)[:, :, :256]
    plain = sum(draw(photo, "train", i, "pan left", SIDE).float().std() < 5 for i in range(100))
    assert plain < 10  # of four places all in the plain half: about one in sixteen; at random it would be two in five


def test_clips_are_the_drawn_ones_through_a_file(tmp_path, capsys):
    source = CameraMotion(write(tmp_path / "photos", 2), tmp_path, "test", test_clips=16)
    photo = scenery(int(split_photos(tmp_path / "photos", "test")[0].stem)).to(torch.uint8).float()
    assert (len(source), source.classes) == (16, tuple(sorted(MOTIONS)))
    drawn = torch.stack([draw(photo, "test", i, MOTIONS[i % 8], SIDE) for i in range(16)]).float().mean(2)
    for i in range(16):
        sample = source[i]
        assert source.classes[sample.label] == MOTIONS[i % 8]
        decoded = sample.value.frames([k / RATE for k in range(FRAMES)]).float().mean(1)
        sample.value.close()
        off = (drawn - decoded).abs().mean((1, 2, 3))
        assert (off.argmin(), off[i] < 6) == (i, True)
    assert "Drawing clips of camera motion" in capsys.readouterr().err
    again = CameraMotion(tmp_path / "photos", tmp_path, "test", test_clips=16)
    assert (again._root, capsys.readouterr().err) == (source._root, "")


def test_no_photo_is_in_both_splits_and_a_fifth_is_held_out(tmp_path):
    train, test = (split_photos(write(tmp_path, 11), split) for split in ("train", "test"))
    assert (len(train), len(test)) == (8, 3)
    assert sorted(train + test) == sorted(tmp_path.glob("*.png"))


def test_other_photos_make_other_clips(tmp_path):
    folders = {CameraMotion(write(tmp_path / "photos", n), tmp_path, train_clips=1)._root for n in (2, 3)}
    assert len(folders) == 2


def test_missing_photos_name_the_command_that_fetches_them(tmp_path):
    way_out = "Run `make data-photos`, or set data.root to a folder of photos."
    for count, reason in ((0, "holds no photos"), (1, "holds one photo, and the test set needs another")):
        with pytest.raises(ConfigError) as caught:
            CameraMotion(write(tmp_path / "photos", count), tmp_path)
        assert str(caught.value).startswith(f"data.root={tmp_path}/photos {reason}")
        assert str(caught.value).endswith(way_out)


def test_a_broken_photo_is_named_and_leaves_no_clips_behind(tmp_path):
    path = split_photos(write(tmp_path / "photos", 3), "train")[0]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ConfigError, match=rf"data\.root: {path}: .*\. Take this file away\."):
        CameraMotion(tmp_path / "photos", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("side", [33, 0, [32, 64]])
def test_a_side_that_cannot_be_is_refused(tmp_path, side):
    with pytest.raises(ConfigError, match="Choose one even number"):
        CameraMotion(tmp_path, tmp_path, side=side)


PACKAGES = ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "mate-backgrounds")


def package(tmp_path: Path, *photos: str) -> None:
    for name in (*(f"backgrounds/{photo}" for photo in photos), *(f"doc/{p}/copyright" for p in PACKAGES)):
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / name).write_text("text")


def test_the_script_lays_the_photos_down_once_and_names_the_licences(tmp_path):
    package(tmp_path, "Bridge_by_a.jpg", "umang_by_b.jpg", "mate/nature/Dune.jpg", "mate/abstract/Flow.png")
    assert "CC BY-SA 3.0 and 4.0" in fetch("fetch_photos.sh", tmp_path).stdout
    assert os.listdir(tmp_path / "a cache") == ["set"]
    licences = [f"LICENSE-{name}" for name in PACKAGES]
    assert sorted(os.listdir(tmp_path / "a cache" / "set")) == ["Bridge_by_a.jpg", "Dune.jpg", *licences]
    again = fetch("fetch_photos.sh", tmp_path, apt_cache="exit 1", apt_get="exit 1")
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.parametrize(
    ("apt", "reason"),
    [
        ({"apt_cache": "exit 100"}, "apt does not know lomiri-wallpapers-16.04. Run 'apt-get update' as root"),
        ({"apt_get": "exit 100"}, "the download failed."),
        ({}, "do not hold their photos"),
    ],
)
def test_the_script_leaves_nothing_behind_when_it_fails_and_says_why(tmp_path, apt, reason):
    package(tmp_path, "Bridge_by_a.jpg")
    result = fetch("fetch_photos.sh", tmp_path, **apt)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert reason in result.stderr
    assert not list(tmp_path.glob("a cache/*"))
