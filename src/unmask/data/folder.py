"""Files of one kind below a folder: which there are, of which class, and which are held out."""

import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from unmask.errors import ConfigError, nearest

SPLITS = ("train", "test")
HELD_OUT = ("val", "validation", "dev", "test")  # the first that stands beside `train` is the test set

T = TypeVar("T")


class Strings:
    """Many strings in two buffers, in the order they were appended.

    Not a list: that is 100 bytes a string more, and each worker process would come to copy it.
    """

    def __init__(self) -> None:
        self._bytes, self._ends = bytearray(), array("q", [0])

    def append(self, text: str) -> None:
        """Add one at the end; a file's name may hold bytes that are not UTF-8."""
        self._bytes += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> str:
        i = range(len(self))[index]
        return self._bytes[self._ends[i] : self._ends[i + 1]].decode("utf-8", "surrogateescape")


class Listing(NamedTuple):
    """What a split holds: paths relative to the root, and each one's class (0 throughout where there are none)."""

    classes: tuple[str, ...]
    paths: Strings
    labels: "array[int]"  # subscripted for the checker only


@dataclass(frozen=True)
class FileTree:
    """Files of one kind in class folders, or directly in one folder, in a fixed order.

    Three layouts: `root/train` beside one of `root/{val,validation,dev,test}`; class folders; one flat folder.
    In the last two (and in a lone `root/train`) every tenth file, of each class, is for testing; but a class of
    one file has none, and a flat folder of fewer than 20 is also trained on whole. Files below a class folder
    count as its own; folders linked there, hidden names and other suffixes are ignored.

    Args:
        root: the folder, absolute.
        noun: what the files are, in the plural.
        suffixes: how their names end, in lower case.
        remedy: what an error says to do, where it knows nothing better.
    """

    root: Path
    noun: str
    suffixes: tuple[str, ...]
    remedy: str = ""

    def split(self, split: str) -> Listing:
        """The files of `train` or `test`.

        Raises:
            ConfigError: a folder is missing, unreadable, without such files, or of two layouts at once.
        """
        folder, hold_out = self._layout(split)
        classes, paths, labels = self.classes(folder), Strings(), array("i")
        for label, name in enumerate(classes or (".",)):
            files = self.files(folder / name)
            for path in share(files, split, flat=not classes) if hold_out else files:
                paths.append(path)
                labels.append(label)
        if not labels:
            raise self.error(folder, f"has no class of two {self.noun} to hold out one", "Add root/val.")
        return Listing(classes, paths, labels)

    def folders(self) -> list[str]:
        """Names of the folders directly below the root."""
        return next(self._walk(self.root))[1]

    def classes(self, folder: Path) -> tuple[str, ...]:
        """Names of the class folders; empty for a flat folder."""
        _, folders, files, _ = next(self._walk(folder))
        if folders and files:
            reason = f"holds both {files[0]} and {folders[0]}"
            raise self.error(folder, reason, f"Move {self.noun} or folders away.")
        return tuple(folders)

    def files(self, folder: Path) -> list[str]:
        """The files in a folder and below it, relative to the root."""
        start, found, others = len(os.path.join(self.root, "")), list[str](), 0
        for parent, _, files, rest in self._walk(folder):
            found += [os.path.join(parent[start:], name) for name in files]
            others += rest
        if not found:
            count = f"{others} file{'s' * (others > 1)}, none" if others else "no file"
            suffixes = f"{', '.join(self.suffixes[:-1])} or {self.suffixes[-1]}"
            raise self.error(folder, f"holds no {self.noun}: {count} ending in {suffixes}")
        return found

    def error(self, folder: Path, reason: str, way_out: str | None = None) -> ConfigError:
        """One sentence about a folder at or below the root, and the way out."""
        where = "" if folder == self.root else f": its folder {folder.relative_to(self.root)}"
        way_out = way_out or self.remedy or f"Give a folder of {self.noun} or of class folders."
        return ConfigError(f"data.root={self.root}{where} {reason}. {way_out}")

    def _layout(self, split: str) -> tuple[Path, bool]:
        """The folder a split is read from, and whether the test set must be held out of it."""
        _, folders, files, _ = next(self._walk(self.root))
        held_out = next((name for name in HELD_OUT if name in folders), None)
        if "train" not in folders or held_out is None:
            return (self.root / "train" if folders == ["train"] and not files else self.root), True
        train, test = self.classes(self.root / "train"), self.classes(self.root / held_out)
        if train and train != test:
            reason = f"has not the classes of train: {min(set(train) ^ set(test))} is in one of the two"
            raise self.error(self.root / held_out, reason, "Give both the same class folders.")
        return self.root / ("train" if split == "train" else held_out), False

    def _walk(self, folder: Path) -> Iterator[tuple[str, list[str], list[str], int]]:
        """`os.walk`, sorted, without hidden names: (folder, its folders, its files of the kind, how many others)."""

        def stop(error: OSError) -> None:
            raise self.error(Path(error.filename), f"cannot be read: {error.strerror}".lower()) from error

        for parent, folders, names in os.walk(folder, onerror=stop):
            folders[:] = sorted(name for name in folders if name[0] != ".")
            seen = [name for name in names if name[0] != "."]
            files = sorted(name for name in seen if name.lower().endswith(self.suffixes))
            yield parent, folders, files, len(seen) - len(files)


def share(files: Sequence[T], split: str, flat: bool) -> Sequence[T]:
    """What a split gets of a class, or of a flat folder, that has no test set of its own."""
    if len(files) < (20 if flat else 2):  # too few to spare
        return files if split == "train" else files[::10] if flat else []
    return files[::10] if split == "test" else [file for i, file in enumerate(files) if i % 10]


def check_split(split: str) -> None:
    """Raise ConfigError for what is neither `train` nor `test`."""
    if split not in SPLITS:
        raise ConfigError(f"data.split={split} is neither train nor test.{nearest(split, SPLITS) or ' Choose one.'}")


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A folder of the same name to fill, which becomes `folder` on leaving, whole or not at all.

    Where another process was quicker its folder stays.

    Raises:
        ConfigError: the cache around it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder.parent) as part:
            aside = Path(part, folder.name)
            aside.mkdir()
            yield aside
            try:
                aside.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    except OSError as error:
        reason = f"cannot be written: {error.strerror}".lower()
        raise ConfigError(
            f"data.source.cache={folder.parent} {reason}. Set paths.cache to a folder that can."
        ) from error
