"""Corpora: where documents of text come from, which are held out, and what they are about."""

import functools
import hashlib
import importlib
import importlib.util
import itertools
import json
import os
import re
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from unmask.data.folder import HELD_OUT, SPLITS, FileTree, check_split
from unmask.data.prose import docstrings, paragraphs
from unmask.errors import ConfigError, nearest

_EVERY = 10  # one document in so many is held out where a corpus has no test set of its own
_PACKAGES = ("python", "numpy", "scipy", "sklearn", "sympy", "networkx", "torch", "torchvision", "torchmetrics")
_EXTRA = 'Run `pip install "unmask[text]"`.'


class Document(NamedTuple):
    """A text that belongs together; the label is None throughout a corpus without classes."""

    text: str
    label: int | None


class Corpus(Protocol):
    """Documents of a train and a test split, which share none.

    Attributes:
        classes: names of the labels 0, 1, ...; empty without labels. May read the corpus.
    """

    @property
    def classes(self) -> tuple[str, ...]: ...

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of `train` or `test`, always in the same order, none of them empty.

        Raises:
            ConfigError: one cannot be read.
        """
        ...

    def fingerprint(self) -> str:
        """Says what the documents were made of: where it is equal they are. Quick, for it keys the caches."""
        ...


def cache_file(cache: str | Path, kind: str, suffix: str, *made_of: object) -> Path:
    """Where something made of certain things is kept."""
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    return Path(cache).expanduser() / "text" / f"{kind}-{key}{suffix}"


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path to write to; on leaving rename it to `path`, so that other processes see a whole file or none.

    Raises:
        ConfigError: it cannot be written.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # several ranks may write the same at once
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):  # the folder may be what is missing
            aside.unlink()
        reason = f"cannot be written: {error.strerror}".lower()
        raise ConfigError(f"paths.cache: {path} {reason}. Set UNMASK_CACHE to another folder.") from error


class InstalledDocs:
    """Prose of the documentation that is installed with Python and this project's dependencies: no download.

    Docstrings, read without importing anything, and `pydoc_data.topics`; a document is one module, labelled by its
    package. No paragraph occurs twice, but related functions are documented in similar words. About a tenth of the
    documents is held out by a hash of the name. The text is that of the installed versions.

    Args:
        packages: what to read; `python` is its standard library.
        cache: folder where the extracted text is kept, or None: extracting it takes half a minute.
    """

    _FORMAT = 1  # raise it when other text comes out of the same files

    def __init__(self, packages: Iterable[str] = _PACKAGES, cache: str | Path | None = None) -> None:
        self.classes = tuple(packages)
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise ConfigError(f"data.corpus.packages={list(self.classes)} must name packages, each once.")
        self._cache = cache

    def documents(self, split: str) -> Iterator[Document]:
        """The modules of a split, one paragraph a line."""
        check_split(split)
        for name, package, text in self._modules():
            if (zlib.crc32(name.encode()) % _EVERY == 0) == (split == "test"):
                yield Document(text, self.classes.index(package))

    def fingerprint(self) -> str:
        """Names and sizes of the files: the same on every machine with the same versions."""
        files = ((package, name, size) for package in self.classes for name, size in _modules_of(package))
        return hashlib.sha256(repr((self._FORMAT, *files)).encode()).hexdigest()

    def _modules(self) -> Iterator[tuple[str, str, str]]:
        """(name, package, text) of each module with prose."""
        if self._cache is None:
            yield from self._extract()
            return
        path = cache_file(self._cache, "docs", ".jsonl", self.fingerprint())
        if not path.exists():
            print(f"extracting text from the documentation of {', '.join(self.classes)} (once)", flush=True)
            lines = "".join(json.dumps(module) + "\n" for module in self._extract())
            with written_aside(path) as aside:
                aside.write_text(lines)
        with path.open() as file:
            for line in file:
                name, package, text = json.loads(line)
                yield name, package, text

    def _extract(self) -> Iterator[tuple[str, str, str]]:
        seen: set[str] = set()
        for package in self.classes:
            for name, strings in self._strings(package):
                fresh = []
                for paragraph in (paragraph for string in strings for paragraph in paragraphs(string)):
                    if (key := paragraph.casefold()) not in seen:
                        seen.add(key)
                        fresh.append(paragraph)
                if fresh:
                    yield name, package, "\n".join(fresh)

    def _strings(self, package: str) -> Iterator[tuple[str, Iterable[str]]]:
        if package == "python":
            from pydoc_data.topics import topics  # a dictionary and nothing else; half a megabyte

            yield from ((f"python/topics/{name}", [text]) for name, text in sorted(topics.items()))
        folder = _folder_of(package)
        for name, _ in _modules_of(package):
            yield f"{package}/{name}", docstrings((folder / name).read_bytes())


def _folder_of(package: str) -> Path:
    if package == "python":
        return Path(sysconfig.get_path("stdlib"))
    spec = importlib.util.find_spec(package)  # of a name without dots: imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"data.corpus.packages: no package {package} is installed. Install it, or leave it out.")
    return Path(spec.submodule_search_locations[0])


@functools.cache
def _modules_of(package: str) -> tuple[tuple[str, int], ...]:
    """The (path, bytes) of a package's modules, without tests and what it has copied from elsewhere."""
    root, found = str(_folder_of(package)), []
    others = {"test", "tests", "site-packages", "dist-packages", "externals", "_vendor", "__pycache__"}
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in others:
                        folders.append(entry.path)
                elif entry.name.endswith(".py"):
                    found.append((os.path.relpath(entry.path, root).replace(os.sep, "/"), entry.stat().st_size))
    return tuple(sorted(found))


class _Row(NamedTuple):
    """A document as it was read."""

    text: str
    label: str | None
    where: str  # for complaints


class TextFiles:
    """Documents in files: .txt and .md hold one each, .jsonl one a line, .parquet one a row.

    In .jsonl and .parquet the text is `text`, and `label`, if all have it, the class: a name or a whole number.
    Three layouts: `train` beside one of `val`, `validation`, `dev` or `test`, as folders or as files whose names begin
    so; class folders; one flat folder or a single file. In the last two every tenth document (of each class) is for
    testing; of fewer than ten, the last tenth of each. Hidden names and other suffixes are ignored.

    Args:
        root: the folder or file.

    Raises:
        ConfigError: it is missing, or holds no such file. (What the files hold is read later.)
    """

    _SUFFIXES = (".txt", ".md", ".jsonl", ".parquet")

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root).expanduser().absolute()
        self._tree = FileTree(self._root, "texts", self._SUFFIXES)
        if self._root.is_file() and self._root.suffix.lower() not in self._SUFFIXES:
            raise self._error("", f"ends in none of {', '.join(self._SUFFIXES)}")
        self._files("train")

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The class folders, or else the labels in the training files."""
        groups, _ = self._files("train")
        if "" not in groups:
            return tuple(groups)
        tables = (path for path in groups[""] if not path.lower().endswith((".txt", ".md")))
        labels = {row.label for path in tables for row in self._read(path)}
        return sorted_names(label for label in labels if label is not None)

    def documents(self, split: str) -> Iterator[Document]:
        """The documents, in the order of their files' names."""
        check_split(split)
        groups, hold_out = self._files(split)
        for name, files in groups.items():
            rows = itertools.chain.from_iterable(map(self._read, files))
            for row in _share(rows, split) if hold_out else rows:
                yield Document(row.text, self._label(name or row.label, row.where))

    def fingerprint(self) -> str:
        """Names, sizes and times of the files."""
        state = []
        for split in SPLITS:
            groups, hold_out = self._files(split)
            for path in itertools.chain.from_iterable(groups.values()):
                stat = self._path(path).stat()
                state.append((split, hold_out, path, stat.st_size, stat.st_mtime_ns))
        return hashlib.sha256(repr(state).encode()).hexdigest()

    def _files(self, split: str) -> tuple[dict[str, list[str]], bool]:
        """The files of each class (of "" where no folder names one), and whether a share of them is held out."""
        if self._root.is_file():
            return {"": [self._root.name]}, True
        folders = self._tree.folders()
        parts: dict[str, list[str]] = {}
        for path in sorted(self._root.iterdir()):
            begins = re.match("(train|" + "|".join(HELD_OUT) + r")(?![a-z])", path.stem)
            if begins and path.is_file() and path.suffix.lower() in self._SUFFIXES:
                parts.setdefault(begins[1], []).append(path.name)
        held_out = next((name for name in HELD_OUT if name in parts or name in folders), None)
        if held_out is None or not ("train" in parts or "train" in folders):
            return self._classes_below(self._root / "train" if folders == ["train"] else self._root), True
        part = "train" if split == "train" else held_out
        return {"": parts[part]} if part in parts else self._classes_below(self._root / part), False

    def _classes_below(self, folder: Path) -> dict[str, list[str]]:
        return {name: self._tree.files(folder / name) for name in self._tree.classes(folder) or ("",)}

    def _label(self, name: str | None, where: str) -> int | None:
        if name in self.classes:
            return self.classes.index(name)
        if name is None and not self.classes:
            return None
        reason = "has no label, others have one" if name is None else f"has the label {name}, which is none of train's"
        raise self._error(where, reason, "Label all documents or none.")

    def _read(self, path: str) -> Iterator[_Row]:
        """The documents of a file that are not empty."""
        rows = {".jsonl": self._lines, ".parquet": self._table}.get(Path(path).suffix.lower(), self._whole)
        try:
            for where, row in rows(path):
                text, label = (row.get("text"), row.get("label")) if isinstance(row, dict) else (None, None)
                if not isinstance(text, str):
                    raise self._error(where, "has no text under the key text")
                if not isinstance(label, str | int | None):
                    raise self._error(where, f"has the label {label}, neither a name nor a whole number")
                if text.strip():
                    yield _Row(text, None if label is None else str(label), where)
        except OSError as error:
            raise self._error(path, f"cannot be read: {error.strerror}".lower()) from error

    def _whole(self, path: str) -> Iterator[tuple[str, Any]]:
        yield path, {"text": self._decode(self._path(path).read_bytes(), path, 0)}

    def _lines(self, path: str) -> Iterator[tuple[str, Any]]:
        start = 0
        with self._path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                text, where = self._decode(line, path, start), f"{path} line {number}"
                start += len(line)
                if not text.strip():
                    continue
                try:
                    yield where, json.loads(text)
                except json.JSONDecodeError as error:
                    raise self._error(where, f"is not JSON: {error.msg} at character {error.colno}") from error

    def _table(self, path: str) -> Iterator[tuple[str, Any]]:
        try:
            parquet = importlib.import_module("pyarrow.parquet")  # no types, and only its users have it
        except ModuleNotFoundError as error:
            raise self._error(path, "needs pyarrow, which is not installed", _EXTRA) from error
        try:
            file = parquet.ParquetFile(self._path(path))
        except ValueError as error:  # pyarrow's own exceptions are ValueErrors
            raise self._error(path, f"is not Parquet: {str(error).splitlines()[0]}".rstrip(".")) from error
        names = file.schema_arrow.names
        if "text" not in names:
            raise self._error(path, f"has no column text, but {', '.join(names)}")
        number = 0
        for batch in file.iter_batches(columns=[name for name in ("text", "label") if name in names]):
            for row in batch.to_pylist():
                number += 1
                yield f"{path} row {number}", row

    def _decode(self, data: bytes, path: str, start: int) -> str:
        try:
            return data.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            reason = f"is not UTF-8: byte {start + error.start} is 0x{data[error.start]:02x}"
            raise self._error(path, reason, "Convert it, for example with iconv.") from error

    def _path(self, path: str) -> Path:
        return self._root if self._root.is_file() else self._root / path

    def _error(self, where: str, reason: str, way_out: str = "Mend it, or give other texts.") -> ConfigError:
        return ConfigError(f"data.root={self._root}{': ' * bool(where)}{where} {reason}. {way_out}")


class HFDataset:
    """A data set of the Hugging Face hub, or one that its library loads from disk.

    Its `validation` (or `dev`, or `test`) split is for testing; where it has none, every tenth document of `train`.

    Args:
        name: the hub's, such as `Salesforce/wikitext`.
        config: which of its configurations, such as `wikitext-2-raw-v1`.
        text: the column of the text.
        label: the column of the class, or None.
        revision: a commit of the data set. Without one the newest is fetched once; what is cached is used from then on.
    """

    _keys = ("text_column", "label_column")  # what the config calls the columns

    def __init__(
        self,
        name: str,
        config: str | None = None,
        text: str = "text",
        label: str | None = None,
        revision: str | None = None,
    ) -> None:
        self._name, self._config, self._text, self._label, self._revision = name, config, text, label, revision

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The label column's names, or else its values."""
        if self._label is None:
            return ()
        return self._names or sorted_names(map(str, self._split("train").unique(self._label)))

    def documents(self, split: str) -> Iterator[Document]:
        """The rows that are not empty."""
        check_split(split)
        held_out = next((name for name in HELD_OUT if name in self._splits), None)
        rows = self._rows("train" if split == "train" or held_out is None else held_out)
        for row in _share(rows, split) if held_out is None else rows:
            if row.label is not None and row.label not in self.classes:
                raise self._error(f"{row.where} has the label {row.label}, which is none of train's")
            yield Document(row.text, None if row.label is None else self.classes.index(row.label))

    def fingerprint(self) -> str:
        """What was asked for: nothing is loaded, so that a second start needs neither network nor library."""
        return repr((self._name, self._config, self._text, self._label, self._revision))

    @functools.cached_property
    def _splits(self) -> Any:
        try:
            library = importlib.import_module("datasets")
        except ModuleNotFoundError as error:
            raise self._error("needs the library datasets, which is not installed", _EXTRA) from error
        try:
            splits = library.load_dataset(self._name, self._config, revision=self._revision)
        except (OSError, ValueError) as error:  # no network, no such set, no such configuration
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise self._error(f"cannot be loaded: {reason.rstrip('.')}") from error
        if "train" not in splits:
            raise self._error(f"has no split train, but {', '.join(splits)}")
        return splits

    def _split(self, name: str) -> Any:
        split = self._splits[name]
        for key, column in zip(self._keys, (self._text, self._label), strict=True):
            if column is not None and column not in split.column_names:
                reason = f"has no column {column} (data.{key}), but {', '.join(split.column_names)}"
                raise self._error(reason, f"Choose one of them.{nearest(column, split.column_names)}")
        return split

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(getattr(self._split("train").features[self._label], "names", None) or ())

    def _rows(self, split: str) -> Iterator[_Row]:
        names = self._names if self._label is not None else ()
        for number, row in enumerate(self._split(split), 1):
            text, label = row[self._text], row[self._label] if self._label is not None else None
            where = f"row {number} of {split}"
            if not isinstance(text, str):
                raise self._error(f"{where} has no text in the column {self._text}")
            if names and label is not None:
                label = names[label] if 0 <= label < len(names) else label
            if text.strip():
                yield _Row(text, None if label is None else str(label), where)

    def _error(self, reason: str, way_out: str = "Give another, or data=text with your own files.") -> ConfigError:
        return ConfigError(f"data.dataset={self._name} {reason}. {way_out}")


def sorted_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Numbers by their size, before names."""
    return tuple(sorted(set(labels), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)))


def _share(rows: Iterator[_Row], split: str) -> Iterator[_Row]:
    """What a split gets of documents without a test set: nine of ten or the tenth, or a part of each of a few."""
    first = list(itertools.islice(rows, _EVERY))
    if len(first) == _EVERY:
        for number, row in enumerate(itertools.chain(first, rows)):
            if (number % _EVERY == 0) == (split == "test"):
                yield row
        return
    for row in first:
        cut = row.text.rfind("\n", 0, len(row.text) * (_EVERY - 1) // _EVERY) + 1 or len(row.text)
        part = row.text[:cut] if split == "train" else row.text[cut:]
        if part.strip():
            yield row._replace(text=part)
