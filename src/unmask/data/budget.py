"""How many labels fine-tuning sees: subsets that lie inside each other, picked by the seed."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

from unmask.address import Permutation, address
from unmask.data.source import Source, label_of
from unmask.errors import ConfigError
from unmask.schema import Boxes, Label, Sample

RATE = 16_000  # samples a second, of every source of sounds
SECONDS = {"s": 1, "min": 60, "h": 3600}
_FORM = re.compile(r"(all)|(\d+)(?:/(class))?|(\d+(?:\.\d+)?) ?%|(\d+(?:\.\d+)?) ?(s|min|h)")


class Chosen:
    """Some samples of a source, by their indices."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices, self.classes = source, indices, source.classes
        if hasattr(source, "lengths"):
            self.lengths = [source.lengths[index] for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]


class Transcribed:
    """A source of sounds whose label is what is said; clips without a transcript are left out.

    Raises:
        ConfigError: the source knows no transcripts, or none of its clips has one.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, source: Source) -> None:
        text = getattr(source, "text", None)
        if text is None:
            raise ConfigError("task=ctc needs transcripts, and this data has none. Choose data=audio or spoken words.")
        self.texts, self.source = [text(index) for index in range(len(source))], source
        self.indices = [index for index, words in enumerate(self.texts) if words]
        if not self.indices:
            raise ConfigError(
                "task=ctc needs transcripts, and no clip has one. Put clip.txt beside clip.wav, LibriSpeech's "
                "*.trans.txt, or a column text into the manifest."
            )
        self.lengths = [source.lengths[index] for index in self.indices]  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.source[self.indices[index]].value, self.label(index))

    def label(self, index: int) -> str:
        """The transcript, without reading the clip."""
        return self.texts[self.indices[index]] or ""


class Balanced:
    """Every class as often as the largest: smaller ones repeat.

    A sample of several classes has its turn in each, so it is seen in proportion to the sum of 1 / (samples of a
    class) over its classes: Audio-MAE's weights (arXiv 2207.06405), without their chance.

    Args:
        source: the samples.
        labels: the class of each, or its classes; samples of none are never seen.
    """

    def __init__(self, source: Source, labels: Sequence[Label | None]) -> None:
        members: dict[Label | None, list[int]] = defaultdict(list)
        for index, label in enumerate(labels):
            for one in label if isinstance(label, tuple) else (label,):
                members[one].append(index)
        self.source, self.classes, self.members = source, source.classes, list(members.values())

    def __len__(self) -> int:
        return len(self.members) * max(map(len, self.members))

    def __getitem__(self, index: int) -> Sample:
        turn, which = divmod(index, len(self.members))
        group = self.members[which]
        return self.source[group[turn % len(group)]]


def choose(source: Source, budget: str | int, seed: int) -> list[int]:
    """Indices of the labelled samples: a larger budget of the same kind and seed holds all of a smaller one.

    Args:
        source: the samples; those without a label are never chosen.
        budget: `all`, `200`, `1%`, `10/class`, or for sounds `10min`, `1h`, `30s`.
        seed: picks.

    Raises:
        ConfigError: the budget has no meaning, or is more than there is.
    """
    form = _FORM.fullmatch(str(budget).strip())
    if not form:
        raise ConfigError(f"data.labels={budget} is no budget. Write all, 200, 1%, 10/class, 10min or 1h.")
    order = Permutation(len(source), address(seed, "labels"))
    labelled = (i for i in map(order.__getitem__, range(len(source))) if label_of(source, i) is not None)
    everything, count, each, share, time, unit = form.groups()
    if everything:
        return list(labelled)
    if each:
        return _of_each_class(source, labelled, int(count), budget)
    if unit:
        return _seconds(source, labelled, float(time) * SECONDS[unit], budget)
    wanted = int(count) if count else math.floor(float(share) / 100 * len(source) + 1e-6)
    chosen = list(islice(labelled, wanted))
    if not wanted or len(chosen) < wanted:
        raise ConfigError(
            f"data.labels={budget} is {wanted} samples, and there are {len(chosen) if wanted else len(source)} with "
            "labels. Choose another budget, or all."
        )
    return chosen


def _of_each_class(source: Source, order: Iterator[int], count: int, budget: str | int) -> list[int]:
    found: Counter[Label | None] = Counter()
    chosen: list[int] = []
    for index in order:
        label = label_of(source, index)
        if isinstance(label, tuple | Boxes):
            raise ConfigError(f"data.labels={budget}: samples are of several classes. Give a number of samples, or 1%.")
        if found[label] < count:
            found[label] += 1
            chosen.append(index)
        if len(chosen) == count * len(source.classes):
            return chosen
    fewest = min(range(len(source.classes)), key=lambda label: found[label], default=None)
    if fewest is None:
        raise ConfigError(f"data.labels={budget}: the labels of this data are no classes. Give a number of samples.")
    raise ConfigError(
        f"data.labels={budget} is more than there is: class {source.classes[fewest]} has {found[fewest]} samples. "
        f"Choose {found[fewest]}/class or fewer, or all."
    )


def _seconds(source: Source, order: Iterator[int], seconds: float, budget: str | int) -> list[int]:
    if not hasattr(source, "lengths"):
        raise ConfigError(f"data.labels={budget}: these samples have no length in seconds. Give a number of samples.")
    chosen: list[int] = []
    total = 0.0
    for index in order:
        if total >= seconds:
            return chosen
        chosen.append(index)
        total += source.lengths[index] / RATE
    if total < seconds:
        raise ConfigError(f"data.labels={budget} is more than there is: {total / 60:.1f} minutes. Choose less, or all.")
    return chosen


def hold_out(chosen: Sequence[int], share: float) -> tuple[list[int], list[int]]:
    """What is trained on and what the best checkpoint is chosen by: every so many is held out."""
    if share == 0:
        return list(chosen), []
    every = max(2, round(1 / share))
    return [x for i, x in enumerate(chosen) if i % every], list(chosen[::every])
