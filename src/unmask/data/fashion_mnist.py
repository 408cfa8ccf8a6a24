"""Fashion-MNIST: 70,000 grey pictures of clothes, 28 x 28 pixels, MIT licence (arXiv 1708.07747)."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from unmask.errors import ConfigError, nearest
from unmask.schema import Sample

_PREFIX = {"train": "train", "test": "t10k"}
_WAY_OUT = "Run `make data-fashion`, or set data.root to the folder of the four Fashion-MNIST files."


class FashionMNIST:
    """60,000 pictures to train on, 10,000 held out as `test`, all in memory (47 MB, 8 MB).

    `root` is the folder where the four IDX files lie, plain or .gz: `images` is uint8 (N, 1, 28, 28).
    Raises ConfigError for a file that is missing, damaged or of another set.
    """

    classes: tuple[str, ...] = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )

    def __init__(self, root: str | Path, split: str = "train") -> None:
        if split not in _PREFIX:
            raise ConfigError(f"data.split={split} is neither train nor test.{nearest(split, _PREFIX)}")
        folder = Path(root).expanduser().absolute()
        self.images = _read(folder, f"{_PREFIX[split]}-images-idx3-ubyte", (28, 28))[:, None]
        labels = _read(folder, f"{_PREFIX[split]}-labels-idx1-ubyte", ())
        if not 0 < len(labels) == len(self.images) or labels.max() >= len(self.classes):
            reason = f"{len(self.images)} {split} images do not go with {len(labels)} labels of 0 to 9"
            raise ConfigError(f"data.root={folder}: {reason}. {_WAY_OUT}")
        self._labels: list[int] = labels.tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """uint8 (1, 28, 28) and its class."""
        return Sample(self.images[index], self._labels[index])


def _read(folder: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """An IDX file as uint8 (N, *shape). Big-endian header: 0x0800 + how many sizes, then the sizes."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise ConfigError(f"data.root={folder} holds no {name}, plain or .gz. {_WAY_OUT}")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"data.root={folder}: {path.name} cannot be read: {error}. {_WAY_OUT}") from error
    count = int.from_bytes(data[4:8])
    header = struct.pack(f">{2 + len(shape)}I", 0x0801 + len(shape), count, *shape)
    if not data.startswith(header):
        reason = f"{path.name} has not the IDX header of {' x '.join(map(str, ('N', *shape)))} bytes"
        raise ConfigError(f"data.root={folder}: {reason}. {_WAY_OUT}")
    body = torch.frombuffer(bytearray(data), dtype=torch.uint8)[len(header) :]
    if len(body) != count * math.prod(shape):
        reason = f"{path.name} has {len(body)} bytes of data, its header says {count * math.prod(shape)}"
        raise ConfigError(f"data.root={folder}: {reason}. {_WAY_OUT}")
    return body.view(count, *shape)
