import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from unmask.data.images import ImageFolder
from unmask.errors import BrokenSample, ConfigError

TURN = Image.Transpose
# How a camera's file lies, for EXIF orientations 2 to 8.
STORED = [TURN.FLIP_LEFT_RIGHT, TURN.ROTATE_180, TURN.FLIP_TOP_BOTTOM, TURN.TRANSPOSE, TURN.ROTATE_90]
STORED += [TURN.TRANSVERSE, TURN.ROTATE_270]
WAY_OUT = "Give a folder of images or of class folders."


def picture(width: int = 48, height: int = 32) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 5 % 256, y * 7 % 256, (x + y) * 3 % 256], -1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


JPEG, PROGRESSIVE = (encoded(picture(200, 100), "JPEG", progressive=progressive) for progressive in (0, 1))
PNG = encoded(Image.effect_noise((200, 100), 90), "PNG")
WEBP, BMP = encoded(picture(), "WEBP"), encoded(picture(), "BMP")


def loaded(folder: Path, data: bytes, name: str = "a.jpg", channels: int = 3) -> np.ndarray:
    """What the source makes of a file's bytes: (H, W, C) integers."""
    (folder / name).write_bytes(data)
    value, label = ImageFolder(folder, channels=channels)[0]
    assert (value.dtype, len(value), label) == (torch.uint8, channels, None)
    return value.permute(1, 2, 0).numpy().astype(int)


def fill(root: Path, *names: str) -> Path:
    """Empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(root: Path, split: str = "train") -> list[str]:
    """What a split lists, learnt from the complaints about its empty files."""
    source, found = ImageFolder(root, split), []
    for i in range(len(source)):
        with pytest.raises(BrokenSample, match="the file is empty") as caught:
            source[i]
        found.append(os.path.relpath(caught.value.name, root))
    return found


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_colours_come_back_exactly_whatever_the_suffix(tmp_path, kind):
    assert (loaded(tmp_path, encoded(picture(), kind)) == np.asarray(picture())).all()


@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE, encoded(picture(200, 100).convert("CMYK"), "JPEG")])
def test_a_jpeg_looks_as_pillow_shows_it_in_colour_and_in_grey(tmp_path, data):
    shown = Image.open(io.BytesIO(data)).convert("RGB")
    assert abs(loaded(tmp_path, data) - np.asarray(shown)).mean() < 2
    assert abs(loaded(tmp_path, data, channels=1)[..., 0] - np.asarray(shown.convert("L"))).mean() < 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_grey_image_is_the_same_in_each_channel(tmp_path, kind):
    grey = picture().convert("L")
    one, three = (loaded(tmp_path, encoded(grey, kind), channels=channels) for channels in (1, 3))
    assert (one == three).all()
    assert abs(one[..., 0] - np.asarray(grey)).mean() < 2


def test_a_palette_is_looked_up(tmp_path):
    palette = picture().quantize(16)
    assert (loaded(tmp_path, encoded(palette, "PNG")) == np.asarray(palette.convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_lie_on_white(tmp_path, mode, kind):
    image = Image.new(mode, (3, 2), (0,) * (len(mode) - 1) + (255,))
    image.putpixel((1, 0), (0,) * (len(mode) - 1) + (0,))
    image.putpixel((2, 0), (0,) * (len(mode) - 1) + (128,))
    lossless = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert loaded(tmp_path, encoded(image, kind, **lossless))[0].tolist() == [[0] * 3, [255] * 3, [127] * 3]


def test_a_transparent_palette_entry_lies_on_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 1, 2, 3])
    image.putpixel((1, 0), 1)
    assert loaded(tmp_path, encoded(image, "PNG", transparency=1))[0].tolist() == [[9, 8, 7], [255] * 3]


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_to_eight_and_not_clipped(tmp_path, channels):
    data = encoded(Image.fromarray(np.array([[0, 300, 0x80FF, 0xFFFF]], np.uint16)), "PNG")
    assert (loaded(tmp_path, data, channels=channels)[0, :, 0] == [0, 1, 128, 255]).all()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_turned_upright_as_its_exif_tag_says(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    data = encoded(picture().transpose(STORED[orientation - 2]), kind, exif=exif)
    upright = loaded(tmp_path, data)
    assert upright.shape == (32, 48, 3)
    assert abs(upright - np.asarray(picture())).mean() < 12


@pytest.mark.parametrize("kind", ["WEBP", "GIF"])
def test_an_animation_gives_its_first_frame(tmp_path, kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    shown = loaded(tmp_path, encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert abs(shown - [255, 0, 0]).max() < 3


@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE, PNG])
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("tail", [b"", bytes(3000), b"\xff" * 3000])
def test_a_truncated_file_is_broken_even_where_padding_follows(tmp_path, data, keep, tail):
    with pytest.raises(BrokenSample, match=r"a\.jpg: "):
        loaded(tmp_path, data[: int(len(data) * keep)] + tail)


def test_bytes_after_a_whole_jpeg_do_no_harm(tmp_path):
    assert (loaded(tmp_path, JPEG) == loaded(tmp_path, JPEG + b"a camera's notes" * 99)).all()


# The first ends the process in torchvision 0.29's PNG reader.
DAMAGED = [PNG[:9000] + bytes(9) + PNG[9009:], WEBP[:-99], b"", b"text\n", b"\xff\xd8\xff"]


@pytest.mark.parametrize("data", DAMAGED)
def test_a_damaged_file_is_a_broken_sample_and_not_a_crash(tmp_path, data):
    with pytest.raises(BrokenSample):
        loaded(tmp_path, data)


def exif(tag: int, kind: int, value: bytes) -> bytes:
    """An EXIF block that turns the picture and has one more entry, of up to 4 bytes."""
    entries = struct.pack("<HHHIHH", 2, 0x112, 3, 1, 6, 0) + struct.pack("<HHI4s", tag, kind, len(value), value)
    return b"Exif\0\0II*\0\x08\0\0\0" + entries + bytes(4)


ODD = {  # by what Pillow 13 raises
    "SyntaxError": encoded(picture(), "PNG", exif=b"Exif\0\0nonsense"),
    "TypeError": encoded(picture(), "PNG", exif=exif(0x11A, 2, b"abc\0")),
    "struct.error": encoded(picture(), "PNG", exif=exif(0x100, 2, b"abc\0")),
    "ValueError": PNG[:8] + struct.pack(">I4s5sI", 5, b"IHDR", bytes(5), zlib.crc32(b"IHDR" + bytes(5))),
    "DecompressionBombError": BMP[:18] + struct.pack("<ii", 99999, 99999) + BMP[26:],
}


@pytest.mark.parametrize("error", ODD)
def test_each_kind_of_error_that_pillow_raises_is_a_broken_sample(tmp_path, error):
    with pytest.raises(BrokenSample) as caught:
        loaded(tmp_path, ODD[error])
    assert not caught.value.reason.endswith(".")


class Caught(Dataset[BrokenSample]):
    """Each file's BrokenSample, as a value."""

    def __init__(self, source: ImageFolder) -> None:
        self.source = source

    def __getitem__(self, index: int) -> BrokenSample:
        with pytest.raises(BrokenSample) as caught:
            self.source[index]
        return caught.value

    def __len__(self) -> int:
        return len(self.source)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_broken_sample_survives_the_way_back_from_a_worker(tmp_path, start):
    (tmp_path / "a.jpg").write_text("text")
    source = Caught(ImageFolder(tmp_path))
    [error] = DataLoader(source, batch_size=None, num_workers=1, multiprocessing_context=start)
    assert (error.name, error.reason) == (str(tmp_path / "a.jpg"), "not an image")


def test_class_folders_give_sorted_labels_and_their_nested_images(tmp_path):
    fill(
        tmp_path,
        "dog/b.JPG",
        "cat/deep/er/c.webp",
        "cat/a.Png",
        "cat/note.txt",
        "cat/.hidden.jpg",
        ".git/x.jpg",
    )
    assert names(tmp_path) == ["cat/deep/er/c.webp", "dog/b.JPG"]
    assert names(tmp_path, "test") == ["cat/a.Png"]


def test_labels_follow_the_class_folders(tmp_path):
    for i, (name, colour) in enumerate({"c/1.png": "white", "a/2.png": "black", "b/3.png": "grey"}.items()):
        fill(tmp_path, name).joinpath(name).write_bytes(encoded(Image.new("RGB", (2, 2 + i), colour), "PNG"))
    source = ImageFolder(tmp_path)
    assert source.classes == ("a", "b", "c")
    assert [(sample.value.shape[1], sample.label) for sample in source] == [(3, 0), (4, 1), (2, 2)]


def test_the_order_does_not_depend_on_the_disk(tmp_path):
    files = [f"{i:03}.jpg" for i in range(19)]
    assert names(fill(tmp_path, *random.Random(0).sample(files, 19))) == files


@pytest.mark.parametrize(("count", "held_out", "shared"), [(1, 1, 1), (19, 2, 2), (20, 2, 0), (35, 4, 0)])
def test_a_flat_folder_lends_or_gives_every_tenth_image_to_the_test(tmp_path, count, held_out, shared):
    files = [f"{i:03}.jpg" for i in range(count)]
    train, test = names(fill(tmp_path, *files)), names(tmp_path, "test")
    assert ImageFolder(tmp_path).classes == ()
    assert test == files[::10]
    assert (len(test), len(set(train) & set(test))) == (held_out, shared)
    assert sorted({*train, *test}) == files


def test_each_class_of_two_or_more_holds_out_a_tenth_and_at_least_one(tmp_path):
    files = [f"{name}/{i:03}.jpg" for name, count in (("a", 1), ("b", 2), ("c", 31)) for i in range(count)]
    train, test = names(fill(tmp_path, *files)), names(tmp_path, "test")
    assert test == ["b/000.jpg", "c/000.jpg", "c/010.jpg", "c/020.jpg", "c/030.jpg"]
    assert train == [name for name in files if name not in test]


@pytest.mark.parametrize("held_out", ["val", "validation", "test"])
def test_a_held_out_folder_is_the_test_set_and_train_keeps_every_image(tmp_path, held_out):
    train, test = ["train/a/1.jpg", "train/a/2.jpg", "train/b/3.jpg"], [f"{held_out}/{n}/4.jpg" for n in "ab"]
    fill(tmp_path, *train, *test)
    assert (names(tmp_path), names(tmp_path, "test")) == (train, test)
    assert ImageFolder(tmp_path, "test").classes == ("a", "b")


def test_val_goes_before_test(tmp_path):
    assert names(fill(tmp_path, "train/1.jpg", "test/2.jpg", "val/3.jpg"), "test") == ["val/3.jpg"]


def test_a_lone_train_folder_is_the_root(tmp_path):
    assert names(fill(tmp_path, "train/a/1.jpg", "train/b/2.jpg")) == ["train/a/1.jpg", "train/b/2.jpg"]
    assert ImageFolder(tmp_path).classes == ("a", "b")


def test_train_is_a_class_among_others(tmp_path):
    assert ImageFolder(fill(tmp_path, "train/1.jpg", "plane/2.jpg")).classes == ("plane", "train")


def test_a_relative_root_is_still_found_after_a_change_of_folder(tmp_path, monkeypatch):
    fill(tmp_path, "x/a.jpg", "x/\udcff.jpg").joinpath("x/a.jpg").write_bytes(JPEG)
    monkeypatch.chdir(tmp_path / "x")
    source = ImageFolder(".")
    monkeypatch.chdir("/")
    assert source[0].value.shape == (3, 100, 200)
    with pytest.raises(BrokenSample, match="the file is empty"):  # a name that is not UTF-8
        source[-1]
    with pytest.raises(IndexError):
        source[2]


def test_a_file_that_has_gone_is_broken(tmp_path):
    source = ImageFolder(fill(tmp_path, "a.jpg"))
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(BrokenSample, match="No such file"):
        source[0]


NO_IMAGE = "ending in .jpg, .jpeg, .png or .webp. " + WAY_OUT
COMPLAINTS = {
    "missing": ([], "/missing cannot be read: no such file or directory. " + WAY_OUT),
    "file.jpg": (["file.jpg"], "/file.jpg cannot be read: not a directory. " + WAY_OUT),
    "empty": (["empty/.hidden.jpg"], "/empty holds no images: no file " + NO_IMAGE),
    "text": (["text/1.txt"], "/text holds no images: 1 file, none " + NO_IMAGE),
    "class": (
        ["class/a/1.jpg", "class/b/2.txt", "class/b/x/1.txt"],
        "/class: its folder b holds no images: 2 files, none " + NO_IMAGE,
    ),
    "mixed": (
        ["mixed/1.jpg", "mixed/a/2.jpg"],
        "/mixed holds both 1.jpg and a. Move images or folders away.",
    ),
}


@pytest.mark.parametrize("case", COMPLAINTS)
def test_a_folder_without_images_says_what_was_found_and_the_way_out(tmp_path, case):
    files, complaint = COMPLAINTS[case]
    fill(tmp_path, *files)
    with pytest.raises(ConfigError) as caught:
        ImageFolder(tmp_path / case)
    assert str(caught.value) == f"data.root={tmp_path}{complaint}"


@pytest.mark.parametrize("test", [["val/a/3.jpg"], ["val/3.jpg"], ["val/a/3.jpg", "val/c/4.jpg"]])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_held_out_folder_of_other_classes_is_refused(tmp_path, test, split):
    fill(tmp_path, "train/a/1.jpg", "train/b/2.jpg", *test)
    with pytest.raises(ConfigError, match=r": its folder val has not the classes of train: [ab] is in one of "):
        ImageFolder(tmp_path, split)


def test_a_test_set_of_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no class of two images to hold out one\. Add root/val\."):
        ImageFolder(fill(tmp_path, "a/1.jpg", "b/1.jpg"), "test")


def test_a_folder_without_the_right_to_read_is_named(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.jpg", "b/2.jpg")
    scandir = os.scandir

    def guarded(path: str) -> object:
        if str(path).endswith("/b"):  # root may read everything, so the refusal is played
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(ConfigError, match=r": its folder b cannot be read: permission denied\. Give a folder"):
        ImageFolder(tmp_path)


@pytest.mark.parametrize("options", [{"split": "val"}, {"channels": 4}])
def test_an_unknown_choice_is_refused_by_its_key(tmp_path, options):
    [(key, value)] = options.items()
    with pytest.raises(ConfigError, match=f"data.{key}={value} is neither"):
        ImageFolder(fill(tmp_path, "a.jpg"), **options)
