"""Videos from files: opened when asked for, and decoded only where they are looked at."""

import csv
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unmask.data.folder import FileTree, Listing, Strings, check_split, share
from unmask.errors import BrokenSample, ConfigError
from unmask.schema import Sample

try:
    import av
except ImportError:  # it is an extra
    av = None  # type: ignore[assignment]

SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".ogv", ".gif")  # MPEG-PS has no reliable times
COLUMNS = ("path", "label", "split")
BACK = (0.0, 2.0, 10.0)  # seconds before what is wanted that are sought in turn, and then the beginning
EARLY = 1e-3  # seconds: times are rounded in files, so a frame may begin a little after it is said to


class VideoFile:
    """An open video: how long it lasts, and its frames at given times.

    Args:
        path: of the file.

    Attributes:
        seconds: from its first frame on.

    Raises:
        BrokenSample: there is no such file, or no video in it.
    """

    def __init__(self, path: str | Path) -> None:
        need_av()
        self._path = str(path)
        try:
            self._container = av.open(self._path, metadata_errors="ignore")
        except (av.error.FFmpegError, ValueError) as error:
            raise BrokenSample(self._path, _reason(error)) from error
        if not self._container.streams.video or self._container.streams.video[0].codec_context is None:
            reason = "there is no decoder for it" if self._container.streams.video else "there is no video in it"
            self._container.close()
            raise BrokenSample(self._path, reason)
        stream = self._stream = self._container.streams.video[0]
        self._moved = False
        stream.codec_context.thread_count = 1  # loader processes are the parallelism
        self._colours = av.video.reformatter.VideoReformatter()  # kept: making one costs more than small frames
        self._tick = float(stream.time_base or 1)
        self._start = stream.start_time or 0
        if stream.duration is not None:
            self.seconds = stream.duration * self._tick
        else:
            self.seconds = (self._container.duration or 0) / av.time_base

    def frames(self, times: Sequence[float]) -> Tensor:
        """What is shown at each of these seconds, uint8 (T, 3, height, width), upright.

        Decodes from a key frame before the first time to the last time. Where the video is over, or a time lies before
        its first frame, the nearest frame stands in.

        Args:
            times: ascending.

        Raises:
            BrokenSample: there is no frame to decode, or decoding fails.
        """
        try:
            for seconds in (*(times[0] - back for back in BACK if back < times[0]), 0.0):
                shown = self._decode(times, seconds)
                if shown:
                    return torch.stack(shown)
        except (av.error.FFmpegError, ValueError, RuntimeError) as error:  # the last where frames change their size
            raise BrokenSample(self._path, _reason(error)) from error
        raise BrokenSample(self._path, "there is no frame in it")

    def _decode(self, times: Sequence[float], seconds: float) -> list[Tensor]:
        """The frames from a seek to so many seconds on; none where that led behind the first time, or to the end."""
        if seconds > 0 or self._moved:
            self._container.seek(self._start + int(seconds / self._tick), stream=self._stream)
        self._moved = True
        shown: list[Tensor] = []
        latest, pixels = None, torch.empty(0)
        for frame in self._container.decode(self._stream):
            if frame.pts is None:
                raise BrokenSample(self._path, "its frames have no times")
            now = (frame.pts - self._start) * self._tick
            if latest is None and now > times[0] + EARLY and seconds > 0:
                return []  # some formats seek to the next key frame, or near it
            if latest is not None and now > times[len(shown)] + EARLY:
                pixels = self._upright(latest)
                while len(shown) < len(times) and now > times[len(shown)] + EARLY:
                    shown.append(pixels)
            latest = frame
            if len(shown) == len(times):
                break
        if latest is not None and len(shown) < len(times):
            shown += [self._upright(latest)] * (len(times) - len(shown))
        return shown

    def _upright(self, frame: "av.VideoFrame") -> Tensor:
        """uint8 (3, height, width), turned as the file says."""
        rgb = self._colours.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return torch.from_numpy(np.ascontiguousarray(np.rot90(rgb, k=round(frame.rotation / 90)).transpose(2, 0, 1)))

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()


class VideoFolder:
    """Videos in class folders, or directly in one folder (labels are None), or listed in a .csv file.

    `FileTree` says which layouts there are and what is held out of them. A .csv file names its columns in its first
    line: path (from the file on, or absolute), and, if wanted, label and split (train or test).

    Args:
        root: folder or .csv file.
        split: train or test.

    Raises:
        ConfigError: the folder or list is missing, unreadable, without videos, or of two layouts at once.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        check_split(split)
        need_av()
        self._root = Path(root).expanduser().absolute()
        if self._root.suffix == ".csv":
            listing = _read_list(self._root, split)
            self._root = self._root.parent
        else:
            listing = FileTree(self._root, "videos", SUFFIXES).split(split)
        self.classes, self._paths, self._labels = listing

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Sample:
        """The open video, and its label. Raises BrokenSample if it cannot be opened."""
        video = VideoFile(self._root / self._paths[index])
        return Sample(video, self.label(index))

    def label(self, index: int) -> int | None:
        """The label, without opening the video."""
        return self._labels[index] if self.classes else None


def need_av() -> None:
    """Raise ConfigError where PyAV is missing."""
    if av is None:
        raise ConfigError("data: videos are decoded by PyAV, which is missing. Run `pip install 'unmask[video]'`.")


def _read_list(path: Path, split: str) -> Listing:
    """What a .csv file lists; paths from its folder on."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows, header = list(reader), reader.fieldnames or []
    except OSError as error:
        reason = f"cannot be read: {error.strerror}".lower()
        raise ConfigError(f"data.root={path} {reason}. Give a folder or a .csv file.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"data.root={path} is no CSV file in UTF-8. Save it as one.") from error
    if "path" not in header or not set(header) <= set(COLUMNS):
        raise ConfigError(
            f"data.root={path} has the columns {', '.join(header) or '(none)'} in its first line. "
            f"Name path there, and, if wanted, label and split; nothing else."
        )
    classes = tuple(sorted({row["label"] for row in rows if row.get("label")}))
    number = {name: label for label, name in enumerate(classes)}
    for line, row in enumerate(rows, 2):
        if None in row.values() or None in row or not all(row.values()):
            raise ConfigError(f"data.root={path} has an empty or missing column in line {line}. Fill it.")
        if row.get("split", split) not in ("train", "test"):
            raise ConfigError(f"data.root={path} has the split {row['split']} in line {line}. Write train or test.")
        if not (path.parent / row["path"]).is_file():
            raise ConfigError(f"data.root={path} names {row['path']} in line {line}, which is no file. Mend the path.")
    if "split" in header:
        chosen = [row for row in rows if row["split"] == split]
    else:
        groups: dict[str, list[dict[str, str]]] = {name: [] for name in classes or ("",)}
        for row in rows:
            groups[row.get("label", "")].append(row)
        chosen = [row for group in groups.values() for row in share(group, split, flat=not classes)]
    if not chosen:
        raise ConfigError(f"data.root={path} lists nothing to {split} on. Add lines.")
    paths = Strings()
    for row in chosen:
        paths.append(row["path"])
    return Listing(classes, paths, array("i", [number.get(row.get("label", ""), 0) for row in chosen]))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".").lower()
