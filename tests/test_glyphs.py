import os
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from tests.conftest import fetch
from unmask.data.glyphs import Glyphs
from unmask.errors import ConfigError

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
TRAIN = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "STIXGeneral.ttf")
TEST = ("cmr10.ttf", "cmss10.ttf", "cmti10.ttf")
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fonts")
    for name in (*TRAIN, *TEST):
        shutil.copy(FONTS / name, folder)
    return folder


def plain(font: Path, character: str) -> np.ndarray:
    """The character's ink from Pillow's own mask, stretched to 24 x 24."""
    mask = ImageFont.truetype(font, 200).getmask(character)
    ink = Image.frombytes("L", mask.size, bytes(mask))
    return np.asarray(ink.crop(ink.getbbox()).resize((24, 24), Image.Resampling.BOX), np.float64)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_is_the_character_that_is_drawn(root, tmp_path, split):
    source = Glyphs(root, tmp_path, split, CAPITALS)
    assert source.classes == tuple(CAPITALS)
    assert len(source) == 26 * len(TRAIN if split == "train" else TEST)
    for name in set(source.fonts):
        known = np.stack([plain(root / name, character).ravel() for character in CAPITALS])
        for i, font in enumerate(source.fonts):
            if font == name:
                ink = Image.fromarray(source[i].value[0].numpy())
                seen = np.asarray(ink.crop(ink.getbbox()).resize((24, 24), Image.Resampling.BOX), np.float64).ravel()
                assert np.abs(known - seen).sum(1).argmin() == source[i].label


def test_no_font_and_no_variant_of_one_is_in_both_splits(root, tmp_path):
    assert set(Glyphs(root, tmp_path).fonts) == set(TRAIN)
    assert set(Glyphs(root, tmp_path, "test").fonts) == set(TEST)


def test_glyphs_are_light_on_dark_as_large_as_fits_and_in_the_middle(root, tmp_path):
    source = Glyphs(root, tmp_path, side=32)
    assert (source.images.shape[1:], source.images.dtype) == ((1, 32, 32), torch.uint8)
    for image in source.images[:, 0]:
        rows, columns = (image.amax(axis).nonzero().flatten() for axis in (1, 0))
        sides = [int(places[-1] - places[0]) + 1 for places in (rows, columns)]
        assert max(sides) == 28
        assert image.max() > 200
        for places in (rows, columns):
            assert abs(int(places[0]) - (31 - int(places[-1]))) <= 1


def test_what_is_empty_missing_or_like_another_is_left_out(root, tmp_path):
    source = Glyphs(root, tmp_path, characters="BA\N{GREEK CAPITAL LETTER ALPHA} \N{CJK UNIFIED IDEOGRAPH-4E00}")
    kept = [(font, sample.label) for sample, font in zip(source, source.fonts, strict=True) if "DejaVu" in font]
    assert kept == [(font, 0) for font in sorted(TRAIN[:3])]


def test_a_broken_font_is_passed_over(root, tmp_path):
    shutil.copytree(root, tmp_path / "fonts")
    (tmp_path / "fonts" / "broken.ttf").write_text("no font")
    source = Glyphs(tmp_path / "fonts", tmp_path)
    assert torch.equal(source.images, Glyphs(root, tmp_path).images)


def test_fonts_are_drawn_once_for_each_choice_of_characters(root, tmp_path, capsys):
    Glyphs(root, tmp_path, characters="AB")
    assert "Drawing the glyphs of 7 fonts" in capsys.readouterr().err
    Glyphs(root, tmp_path, "test", characters="AB")
    assert capsys.readouterr().err == ""
    assert len(Glyphs(root, tmp_path, characters="ABC")) == 3 * len(TRAIN)
    assert len(list(tmp_path.iterdir())) == 2


def test_missing_fonts_name_the_command_that_fetches_them(tmp_path):
    way_out = "Run `make data-glyphs`, or set data.root to a folder of fonts."
    with pytest.raises(ConfigError) as caught:
        Glyphs(tmp_path / "nowhere", tmp_path)
    assert str(caught.value) == f"data.root={tmp_path}/nowhere cannot be read: no such file or directory. {way_out}"
    shutil.copy(FONTS / TRAIN[0], tmp_path)
    with pytest.raises(ConfigError) as caught:
        Glyphs(tmp_path, tmp_path, "test")
    assert str(caught.value) == f"data.root={tmp_path} holds 1 fonts, but no glyphs to test on. {way_out}"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [("characters", "ABA", "each once"), ("characters", "", "each once"), ("side", 4, "one number above 4")],
)
def test_impossible_settings_are_refused(root, tmp_path, key, value, reason):
    with pytest.raises(ConfigError, match=reason):
        Glyphs(root, tmp_path, **{key: value})


def package(tmp_path: Path, *fonts: str) -> None:
    for name in (*(f"fonts/truetype/aenigma/{font}" for font in fonts), "doc/fonts-aenigma/copyright"):
        (tmp_path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / name).write_text("text")


def test_the_script_lays_the_fonts_down_once_and_names_their_author(tmp_path):
    package(tmp_path, "a.ttf", "b.ttf")
    assert "Brian Kent" in fetch("fetch_fonts.sh", tmp_path).stdout
    assert os.listdir(tmp_path / "a cache") == ["set"]
    assert sorted(os.listdir(tmp_path / "a cache" / "set")) == ["LICENSE", "a.ttf", "b.ttf"]
    again = fetch("fetch_fonts.sh", tmp_path, apt_cache="exit 1", apt_get="exit 1")
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.parametrize(
    ("apt", "reason"),
    [
        ({"apt_cache": "exit 100"}, "apt does not know fonts-aenigma. Run 'apt-get update' as root"),
        ({"apt_get": "exit 100"}, "the download failed."),
        ({}, "does not hold its fonts"),
    ],
)
def test_the_script_leaves_nothing_behind_when_it_fails_and_says_why(tmp_path, apt, reason):
    package(tmp_path)
    result = fetch("fetch_fonts.sh", tmp_path, **apt)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert reason in result.stderr
    assert not list(tmp_path.glob("a cache/*"))
