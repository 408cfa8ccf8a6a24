"""Speech and other sound from files: lengths from the headers, every file decoded when asked for."""

import contextlib
import hashlib
import math
import os
import re
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchaudio.functional import resample

from unmask.data.folder import SPLITS, FileTree, Strings, check_split, share
from unmask.errors import BrokenSample, ConfigError, nearest
from unmask.schema import Sample

RATE = 16_000  # samples a second, of everything that a source gives
SHORTEST = 400  # samples: what the convolutions of wav2vec 2.0 need for one frame
LARGEST = 2**29  # numbers, 3 hours at 48 kHz: a broken header may claim days, and memory is taken before reading
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
COLUMNS = ("path", "seconds", "label", "text", "split")
CACHED_FROM = 2000  # files: up to here reading the headers takes a second

_SUBSET = re.compile(r"(train|dev|test)-(clean|other)(-\d+)?")


def read_audio(path: str | Path, rate: int = RATE) -> Tensor:
    """A whole WAV, FLAC, Ogg or MP3 file of any subtype as float32 (samples,) in [-1, 1].

    Channels are averaged, another rate is resampled, and the overshoot of both is clipped. A WAV file cut short
    cannot be told from a whole one, since many programs never correct its header; it is read as far as it goes.

    Args:
        path: the file.
        rate: samples a second of the result.

    Raises:
        BrokenSample: the file is no audio, stops early, has less than 400 samples (resampled) or more than 2**29,
            or holds numbers that are not finite or far outside [-1, 1], or one value throughout (silence).
    """
    try:
        with soundfile.SoundFile(path) as file:
            ratio, frames = _ratio(path, file, rate), file.frames
            value = torch.from_numpy(file.read(dtype="float32", always_2d=True)).mean(1)
    except (soundfile.LibsndfileError, ValueError) as error:  # the latter where the format cannot seek
        raise BrokenSample(str(path), _reason(path, error)) from error
    samples = math.ceil(frames * ratio)
    if len(value) < frames:
        raise BrokenSample(str(path), f"stops early: {len(value)} of {frames} samples")
    if samples < SHORTEST:
        raise BrokenSample(str(path), f"has {samples} samples at {rate} Hz, fewer than {SHORTEST}")
    if not value.isfinite().all():
        raise BrokenSample(str(path), "holds samples that are not finite")
    if value.min() == value.max():
        raise BrokenSample(str(path), "is silent: every sample has the same value")
    if value.abs().max() > 4:  # clipping would make it a square wave
        raise BrokenSample(str(path), f"its loudest sample is {value.abs().max():.4g}, and 1 is full scale")
    if ratio != 1:
        value = resample(value, ratio.denominator, ratio.numerator)
        value = pad(value, (0, samples - len(value)))  # its length is reckoned in float32: wrong beyond 2**24
    return value.clamp_(-1, 1)


def audio_length(path: str | Path, rate: int = RATE) -> int:
    """How many samples `read_audio` gives, by the header alone; 0 where that cannot be read."""
    try:
        with soundfile.SoundFile(path) as file:
            return math.ceil(file.frames * _ratio(path, file, rate))
    except (soundfile.LibsndfileError, BrokenSample):
        return 0


class AudioFolder:
    """Audio files with or without classes and transcripts, in a fixed order.

    Layouts, beside those of `FileTree` (flat, class folders, `train` beside `val`, `validation`, `dev` or `test`):

    * LibriSpeech's `train-clean-100/speaker/chapter/*.flac`: the class is the speaker. Subsets named `train-*` are
      for training, `dev-*` and `test-*` for testing; their speakers are others, and have no label. Without them
      every tenth clip of a speaker is held out.
    * a manifest: `root` is a .tsv file, or holds a `manifest.tsv`. Its first line names its tab-separated columns:
      `path` (relative to the manifest, or absolute), and any of `seconds` (taken at its word, so that no header is
      read), `label`, `text` and `split` (train or test; without it every tenth clip of a label is held out). All
      but `label` must be filled. Where a label of the list is several, as in `dog|rain`, every clip's label is a
      tuple of classes, and without `split` every tenth clip of all is held out.

    Transcripts are read from LibriSpeech's `*.trans.txt`, from `clip.txt` beside `clip.wav`, and from a manifest.
    A file whose header cannot be read is kept, with length 0, so that it is reported when its turn comes.

    Args:
        root: folder or .tsv file.
        split: train or test.
        min_seconds: shorter clips are left out.
        max_seconds: longer clips are left out; None for no limit.
        cache: folder that keeps the lengths of more than 2,000 files, until a name, size or time of one changes.

    Attributes:
        classes: names of the labels 0, 1, ...; empty without labels.
        lengths: samples at 16 kHz of every clip.

    Raises:
        ConfigError: no clips, layouts mixed, a manifest that is wrong, or a transcript that is empty or not UTF-8.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        min_seconds: float = 0.1,
        max_seconds: float | None = None,
        cache: str | Path | None = None,
    ) -> None:
        check_split(split)
        if max_seconds is not None and max_seconds <= min_seconds:
            reason = f"is not above data.min_seconds={min_seconds}"
            raise ConfigError(f"data.max_seconds={max_seconds} {reason}. Give a higher one, or null for no limit.")
        root = Path(root).expanduser().absolute()
        manifest = root if root.suffix == ".tsv" else root / "manifest.tsv"
        if root == manifest or manifest.is_file():
            self._root = manifest.parent
            self.classes, clips, self._several = _read_manifest(manifest, split)
        else:
            self._root = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
            self.classes, clips = _read_folder(self._root, split)
            self._several = False

        if any(clip.samples is None for clip in clips):  # the manifest has no seconds
            found: Sequence[int] = _lengths([str(self._root / clip.path) for clip in clips], cache)
        else:
            found = [clip.samples or 0 for clip in clips]
        least, most = min_seconds * RATE, math.inf if max_seconds is None else max_seconds * RATE
        self._paths, self._texts, self.lengths = Strings(), Strings(), array("q")
        self._labels, self._ends = array("i"), array("q", [0])
        for clip, samples in zip(clips, found, strict=True):
            if samples == 0 or least <= samples <= most:
                self._paths.append(clip.path)
                self._texts.append(clip.text)
                self._labels.extend(clip.labels)
                self._ends.append(len(self._labels))
                self.lengths.append(samples)
        if not self.lengths:
            limits = f"data.min_seconds={min_seconds} or more, data.max_seconds={max_seconds} or less"
            reason = f"has no {split} clip of {limits}: they last {min(found) / RATE:.4g} to {max(found) / RATE:.4g} s"
            raise ConfigError(f"data.root={root} {reason}. Move the limits.")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        """float32 (samples,) at 16 kHz and its label. Raises BrokenSample, see `read_audio`."""
        return Sample(read_audio(str(self._root / self._paths[index])), self.label(index))

    def label(self, index: int) -> int | tuple[int, ...] | None:
        """The label, or several, without reading the clip."""
        i = range(len(self))[index]
        labels = tuple(self._labels[self._ends[i] : self._ends[i + 1]])
        return (labels if self._several else labels[0]) if labels else None

    def text(self, index: int) -> str | None:
        """What is said in a clip, if that is known."""
        return self._texts[index] or None


class _Clip(NamedTuple):
    """A line of the list: its path relative to the root, its labels, if any, "" without a transcript."""

    path: str
    labels: tuple[int, ...]
    text: str
    samples: int | None = None


def _read_folder(root: Path, split: str) -> tuple[tuple[str, ...], list[_Clip]]:
    """Classes and clips of a folder."""
    tree, transcripts = FileTree(root, "audio files", SUFFIXES), _Transcripts(root)
    subsets = [name for name in tree.folders() if _SUBSET.fullmatch(name)]
    if any(name.startswith("train-") for name in subsets):
        classes, labelled = _librispeech(tree, subsets, split)
    else:
        classes, paths, labels = tree.split(split)
        labelled = [(path, (label,) if classes else ()) for path, label in zip(paths, labels, strict=True)]
    return classes, [_Clip(path, label, transcripts.find(path)) for path, label in labelled]


def _librispeech(
    tree: FileTree, subsets: list[str], split: str
) -> tuple[tuple[str, ...], list[tuple[str, tuple[int, ...]]]]:
    """Speakers of the training subsets; each clip's path and label."""
    train = [name for name in subsets if name.startswith("train-")]
    held_out = [name for name in subsets if name not in train]
    speakers = tuple(sorted({speaker for name in train for speaker in tree.classes(tree.root / name)}))
    labels = {speaker: (label,) for label, speaker in enumerate(speakers)}
    clips: list[tuple[str, tuple[int, ...]]] = []
    for name in held_out if held_out and split == "test" else train:
        for speaker in tree.classes(tree.root / name):
            files: Sequence[str] = tree.files(tree.root / name / speaker)
            chosen = files if held_out else share(files, split, flat=False)
            clips += [(path, labels.get(speaker, ())) for path in chosen]
    if not clips:
        raise tree.error(tree.root, f"has no {split} clips in {', '.join(subsets)}", "Unpack the subsets whole.")
    return speakers, clips


class _Transcripts:
    """Transcripts that lie beside audio files. One folder is known at a time: files come folder by folder."""

    def __init__(self, root: Path) -> None:
        self._root, self._folder = root, ""
        self._names: set[str] = set()
        self._lines: dict[str, str] = {}

    def find(self, path: str) -> str:
        """What is said in a file, "" if nothing says it. Raises ConfigError for an empty transcript."""
        folder, name = os.path.split(str(self._root / path))
        if folder != self._folder:
            self._folder = folder
            self._names = {name for name in os.listdir(folder) if name.endswith(".txt")}
            self._lines = {}
            for listed in sorted(name for name in self._names if name.endswith(".trans.txt")):
                self._lines |= self._listed(os.path.join(folder, listed))
        stem = os.path.splitext(name)[0]
        if stem in self._lines or f"{stem}.txt" not in self._names:
            return self._lines.get(stem, "")
        beside = os.path.join(folder, f"{stem}.txt")
        text = " ".join(self._read(beside).split())
        if not text:
            raise self._error(beside, "is empty", "Write into it what is said, or delete it.")
        return text

    def _listed(self, path: str) -> dict[str, str]:
        """LibriSpeech's file of a chapter: in each line a clip's name and what is said."""
        lines = {}
        for line in filter(str.strip, self._read(path).split("\n")):
            name, *words = line.split()
            if not words:
                raise self._error(path, f"says nothing for {name}", "Complete it, or delete it.")
            lines[name] = " ".join(words)
        return lines

    def _read(self, path: str) -> str:
        try:
            return Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise self._error(path, f"cannot be read: {error.strerror}".lower(), "Mend it, or delete it.") from error
        except UnicodeDecodeError as error:
            raise self._error(path, "is not UTF-8", "Save it as UTF-8.") from error

    def _error(self, path: str, reason: str, way_out: str) -> ConfigError:
        where = os.path.relpath(path, self._root)
        return ConfigError(f"data.root={self._root}: its transcript {where} {reason}. {way_out}")


def _read_manifest(path: Path, split: str) -> tuple[tuple[str, ...], list[_Clip], bool]:
    """Classes and clips of a .tsv file, and whether clips are of several classes."""

    def refuse(reason: str, way_out: str) -> ConfigError:
        return ConfigError(f"data.root={path} {reason}. {way_out}")

    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [line.rstrip("\n") for line in file]
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}".lower(), "Give a folder or a .tsv file.") from error
    except UnicodeDecodeError as error:
        raise refuse("is not UTF-8", "Save it as UTF-8.") from error
    header = lines[0].split("\t") if lines else []
    names = f"Name its tab-separated columns there: {', '.join(COLUMNS)}; all but path may be left out."
    if "path" not in header:
        raise refuse("has no column path in its first line", names)
    if len(set(header)) < len(header):
        raise refuse("names a column twice in its first line", names)
    unknown = next((column for column in header if column not in COLUMNS), None)
    if unknown is not None:
        raise refuse(f"has an unknown column '{unknown}' in its first line", nearest(unknown, COLUMNS).strip() or names)

    rows: list[tuple[str, str, str, int | None]] = []
    known: set[str] = set()
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            reason = f"has {len(cells)} columns in line {number}, its first line names {len(header)}"
            raise refuse(reason, "Put one tab between two columns, and none into a text.")
        row = dict(zip(header, map(str.strip, cells), strict=True))
        empty = next((name for name in header if not row[name] and name != "label"), None)
        if empty:
            raise refuse(f"has an empty {empty} in line {number} ({row['path']})", "Fill it, or delete the line.")
        if row.get("split", split) not in SPLITS:
            reason = f"has the split {row['split']} in line {number}, which is neither train nor test"
            raise refuse(reason, nearest(row["split"], SPLITS).strip() or "Choose one of the two.")
        known.add(row.get("label", ""))
        if row.get("split", split) == split:
            if not os.path.isfile(path.parent / row["path"]):
                raise refuse(
                    f"names {row['path']} in line {number}, which is no file",
                    "Give its path from the manifest on, or the absolute one.",
                )
            samples = _samples(row["seconds"]) if "seconds" in row else None
            if samples == 0:
                raise refuse(f"has the seconds {row['seconds']} in line {number}", "Give a number above 0.")
            rows.append((row.get("label", ""), row["path"], row.get("text", ""), samples))

    several = any("|" in cell for cell in known)
    classes = tuple(sorted({name for cell in known for name in cell.split("|")} - {""}))
    index = {name: label for label, name in enumerate(classes)}
    labels = {cell: tuple(index[name] for name in cell.split("|") if name) for cell in known}
    rows.sort(key=itemgetter(0))
    clips = [_Clip(file, labels[cell], text, samples) for cell, file, text, samples in rows]
    if "split" not in header:
        sets = [clips] if several else [list(group) for _, group in groupby(clips, attrgetter("labels"))]
        clips = [clip for group in sets for clip in share(group, split, flat=several or not classes)]
    if not clips:
        marked = f", or mark some of them {split}" if "split" in header else ", or a column split"
        raise refuse(f"lists nothing to {split} on", f"Add lines{marked if known else ''}.")
    return classes, clips, several


def _samples(seconds: str) -> int:
    """At 16 kHz; 0 for what is no number of seconds."""
    try:
        number = float(seconds)
    except ValueError:
        return 0
    return max(0, round(number * RATE)) if math.isfinite(number) else 0


def _lengths(paths: list[str], cache: str | Path | None) -> Sequence[int]:
    """The length of each file, remembered in `cache` if they are many."""
    if cache is None or len(paths) <= CACHED_FROM:
        return [audio_length(path) for path in paths]
    state = hashlib.blake2b(digest_size=16)
    for path in paths:
        with contextlib.suppress(OSError):  # it has gone: its length will be 0
            seen = os.stat(path)
            state.update(os.fsencode(path) + b"\0%d %d\n" % (seen.st_size, seen.st_mtime_ns))
    kept = Path(cache).expanduser() / "audio_lengths" / f"{state.hexdigest()}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):  # not there or damaged: it is made anew
        lengths = np.load(kept, allow_pickle=False)
        if lengths.shape == (len(paths),) and lengths.dtype == np.int64:
            return lengths.tolist()
    found = array("q", map(audio_length, paths))
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, and nothing else
        kept.parent.mkdir(parents=True, exist_ok=True)
        with _beside(kept) as aside:
            np.save(aside, np.asarray(found))
    return found


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path of this process alone, renamed to `path` on leaving: processes that write at once do no harm."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
        yield Path(folder, path.name)
        os.replace(Path(folder, path.name), path)


def _ratio(path: str | Path, file: soundfile.SoundFile, rate: int) -> Fraction:
    """New samples for one old. Rates in no simple ratio are taken for the nearest: the filters would fill gigabytes."""
    if not 2000 <= file.samplerate <= 400_000:
        raise BrokenSample(str(path), f"its header says {file.samplerate} samples a second")
    if not 0 <= file.frames * file.channels <= LARGEST:
        raise BrokenSample(str(path), f"its header says {file.frames} samples in {file.channels} channels")
    return Fraction(rate, file.samplerate).limit_denominator(1000)


def _reason(path: str | Path, error: Exception) -> str:
    """Why a file was not read: libsndfile names some reasons by others."""
    if not os.path.isfile(path):
        return "No such file"
    if not os.path.getsize(path):
        return "the file is empty"
    words = str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
    return "not audio" if words.startswith(("Format not", "File does not exist")) else words
