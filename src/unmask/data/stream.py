"""Training data as an endless stream of positions: which sample, in which order, seen how."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset, Sampler, default_collate

from unmask.address import Permutation, address, shuffled_index
from unmask.data.source import Source, label_of
from unmask.errors import BrokenSample, ConfigError
from unmask.schema import Batch, Label, Sample

REPLACEMENTS = 100  # tries in a row for one broken sample before the whole source is taken for broken


class Item(NamedTuple):
    """One transformed sample of the stream."""

    value: Tensor
    position: int
    label: int | float | Tensor | None
    broken: tuple[str, ...]


class Transform(Protocol):
    """What the stream asks of a modality's; its docstring says more."""

    def read(self, sample: Sample) -> Sample: ...

    def __call__(self, sample: Sample) -> Tensor: ...


def classes_only(label: Any) -> int | None:
    """Pretraining looks at classes, for probes; other labels mean nothing to it."""
    return label if isinstance(label, int) else None


class Stream(Dataset[Item]):
    """Position to transformed sample; the same at every visit, from any worker.

    Args:
        source: the samples.
        transform: random through torch's global generator only, which is seeded for each position, and, for `read`,
            for each group of positions.
        seed: the run's.
        repeats: neighbouring positions that see the same sample, read once (repeated augmentation, arXiv 1901.09335).
        encode: from a source's label to what a batch holds; picklable.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform,
        seed: int,
        repeats: int = 1,
        encode: Callable[[Any], int | float | Tensor | None] = classes_only,
    ) -> None:
        self.source, self.transform, self.seed, self.repeats = source, transform, seed, repeats
        self.encode = encode
        self._read: tuple[int, Sample, tuple[str, ...]] | None = None  # the last group: its positions come in a row

    def __getitem__(self, position: int) -> Item:
        """The sample at a stream position; a broken one is replaced by another, drawn by address.

        Raises:
            ConfigError: a hundred replacements in a row are broken too.
        """
        group = position // self.repeats
        if self._read is None or self._read[0] != group:
            self._read = (group, *self._sample(group))
        _, sample, broken = self._read
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(address(self.seed, "augment", position))
            value = self.transform(sample)
        if self.repeats == 1:
            self._read = None  # nobody asks again
        return Item(value, position, self.encode(sample.label), broken)

    def _sample(self, group: int) -> tuple[Sample, tuple[str, ...]]:
        """What a group of positions sees, and what was found broken before."""
        index = shuffled_index(self.seed, group, len(self.source))
        broken: list[str] = []
        while True:
            try:
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(address(self.seed, "read", group))
                    return self.transform.read(self.source[index]), tuple(broken)
            except BrokenSample as error:
                broken.append(str(error))
            if len(broken) >= REPLACEMENTS:
                raise ConfigError(f"{REPLACEMENTS} samples in a row cannot be read; the last is {broken[-1]}.")
            index = address(self.seed, "replacement", group, len(broken)) % len(self.source)


class StreamSampler(Sampler[list[int]]):
    """Lists of positions, one a micro-batch, without end: optimiser step s covers positions [s G, (s + 1) G).

    Args:
        start_step: optimiser steps already done.
        global_batch: G, samples an optimiser step over all devices and accumulation.
        micro_batch: samples a device holds at once.
        rank: this device.
        world: devices.
    """

    def __init__(self, start_step: int, global_batch: int, micro_batch: int, rank: int = 0, world: int = 1) -> None:
        assert global_batch % (micro_batch * world) == 0
        self.start = start_step * global_batch + rank * micro_batch
        self.stride, self.micro_batch = micro_batch * world, micro_batch

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start
        while True:
            yield list(range(first, first + self.micro_batch))
            first += self.stride


def collate(items: Sequence[Item], seed: int = 0) -> Batch:
    """Items to a batch, zeros after what is shorter than the longest; labels are kept if every item has one."""
    labels = [torch.as_tensor(item.label) for item in items if item.label is not None]
    values, lengths = _padded([item.value for item in items])
    targets, label_lengths = _padded(labels) if len(labels) == len(items) else (None, None)
    return Batch(
        inputs=default_collate(values),  # straight into shared memory in a worker
        positions=torch.tensor([item.position for item in items]),
        labels=None if targets is None else torch.stack(targets),
        broken=tuple(line for item in items for line in item.broken),
        lengths=lengths,
        label_lengths=label_lengths,
        seed=seed,
    )


def _padded(values: list[Tensor]) -> tuple[list[Tensor], Tensor | None]:
    """All as long as the longest, and how long they were; None for that where they are anyway."""
    if values[0].ndim == 0:
        return values, None
    lengths = torch.tensor([len(value) for value in values])
    if bool((lengths == lengths[0]).all()):
        return values, None
    return [pad(value, (0, int(lengths.max()) - len(value))) for value in values], lengths


class Subset:
    """Some samples of a source, picked by the seed: the first ones of a folder are of one class."""

    def __init__(self, source: Source, count: int, seed: int) -> None:
        self.source, self.count = source, min(count, len(source))
        self.order = Permutation(len(source), address(seed, "subset"))
        self.classes = source.classes
        if hasattr(source, "lengths"):
            self.lengths = [source.lengths[self.order[index]] for index in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.order[index]]

    def label(self, index: int) -> Label | None:
        """A sample's label, without reading it where the source can tell."""
        return label_of(self.source, self.order[index])
