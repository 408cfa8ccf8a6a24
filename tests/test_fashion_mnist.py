import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import fetch
from unmask.data.fashion_mnist import FashionMNIST
from unmask.errors import ConfigError

SCRIPT = "fetch_fashion_mnist.sh"
WAY_OUT = "Run `make data-fashion`, or set data.root to the folder of the four Fashion-MNIST files."
PIXELS = np.random.default_rng(0).integers(256, size=(5, 28, 28), dtype=np.uint8)
LABELS = np.array([9, 0, 3, 3, 1], np.uint8)
NAMES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def idx(array: np.ndarray) -> bytes:
    """An IDX file as its format is described: 0, 0, 8 for bytes, how many sizes, the sizes, the data."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">i", n) for n in array.shape) + array.tobytes()


def write(root: Path, pixels: np.ndarray = PIXELS, labels: np.ndarray = LABELS, part: str = "train") -> Path:
    (root / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
    (root / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return root


def test_images_and_labels_come_back_from_plain_and_zipped_files(tmp_path):
    source = FashionMNIST(write(tmp_path))
    assert torch.equal(source.images, torch.from_numpy(PIXELS)[:, None])
    assert [sample.label for sample in source] == LABELS.tolist()
    assert torch.equal(source[3].value, torch.from_numpy(PIXELS[3])[None])
    assert (source[0].value.dtype, len(source)) == (torch.uint8, 5)
    assert (len(source.classes), source.classes[source[0].label]) == (10, "Ankle boot")


def test_the_test_split_reads_the_files_named_t10k(tmp_path):
    write(write(tmp_path), PIXELS[:2] // 2, LABELS[:2], "t10k")
    assert torch.equal(FashionMNIST(tmp_path, "test").images, torch.from_numpy(PIXELS[:2] // 2)[:, None])


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_missing_file_names_itself_and_the_command_that_fetches_it(tmp_path, name):
    write(tmp_path)
    for path in tmp_path.glob(f"{name}*"):
        path.unlink()
    with pytest.raises(ConfigError) as caught:
        FashionMNIST(tmp_path)
    assert str(caught.value) == f"data.root={tmp_path} holds no {name}, plain or .gz. {WAY_OUT}"


HEADER = "train-images-idx3-ubyte has not the IDX header of N x 28 x 28 bytes"
DAMAGE = {
    "another number of sizes": (idx(PIXELS[0]), HEADER),
    "another image size": (idx(PIXELS[:, 1:]), HEADER),
    "another type": (b"\0\0\r" + idx(PIXELS)[3:], HEADER),
    "a header cut short": (idx(PIXELS)[:10], HEADER),
    "an empty file": (b"", HEADER),
    "data cut short": (idx(PIXELS)[:-1], "has 3919 bytes of data, its header says 3920"),
    "data too long": (idx(PIXELS) + b"\0", "has 3921 bytes of data, its header says 3920"),
    "fewer images than labels": (idx(PIXELS[:4]), "4 train images do not go with 5 labels of 0 to 9"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_says_what_is_wrong_and_the_way_out(tmp_path, damage):
    data, reason = DAMAGE[damage]
    (write(tmp_path) / NAMES[0]).write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        FashionMNIST(tmp_path)
    assert str(caught.value).startswith(f"data.root={tmp_path}: ")
    assert str(caught.value).endswith(f"{reason}. {WAY_OUT}")


@pytest.mark.parametrize("labels", [LABELS + 1, LABELS[:0]])
def test_labels_that_do_not_fit_are_refused(tmp_path, labels):
    with pytest.raises(ConfigError, match=f"images do not go with {len(labels)} labels"):
        FashionMNIST(write(tmp_path, PIXELS[: len(labels)], labels))


ZIPPED = gzip.compress(idx(LABELS))


@pytest.mark.parametrize("data", [ZIPPED[:-9], ZIPPED[:10] + b"\xff" * 20, ZIPPED[20:], idx(LABELS)])
def test_a_damaged_gz_file_is_a_config_error(tmp_path, data):
    (write(tmp_path) / f"{NAMES[1]}.gz").write_bytes(data)
    with pytest.raises(ConfigError, match=rf"data.root=.*: {NAMES[1]}\.gz cannot be read: .*\. Run `make "):
        FashionMNIST(tmp_path)


def test_a_misspelt_split_names_the_right_one(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.split=tset is neither train nor test\. Did you mean test\?"):
        FashionMNIST(write(tmp_path), "tset")


def package(tmp_path: Path, names: list[str]) -> None:
    for path in [f"datasets/fashion-mnist/{name}.gz" for name in names] + ["doc/dataset-fashion-mnist/copyright"]:
        (tmp_path / "package" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "package" / path).write_text("text")


def test_the_script_lays_the_files_down_once_and_names_the_licence(tmp_path):
    package(tmp_path, NAMES)
    assert "MIT licence" in fetch(SCRIPT, tmp_path).stdout
    assert sorted(os.listdir(tmp_path / "a cache")) == ["set"]
    assert sorted(os.listdir(tmp_path / "a cache" / "set")) == sorted([*(f"{n}.gz" for n in NAMES), "LICENSE"])
    again = fetch(SCRIPT, tmp_path, apt_cache="exit 1", apt_get="exit 1")
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.parametrize(
    ("apt", "reason"),
    [
        ({"apt_cache": "exit 100"}, "apt does not know dataset-fashion-mnist. Run 'apt-get update' as root"),
        ({"apt_get": "exit 100"}, "the download failed."),
        ({}, "does not hold the four files"),
    ],
)
def test_the_script_leaves_nothing_behind_when_it_fails_and_says_why(tmp_path, apt, reason):
    package(tmp_path, NAMES[:3])
    result = fetch(SCRIPT, tmp_path, **apt)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert reason in result.stderr
    assert not list(tmp_path.glob("a cache/*"))
