"""The training stream, and a few labelled samples to judge features by."""

import functools
import signal
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from unmask.address import Permutation, address
from unmask.data.bucket import BucketSampler
from unmask.data.source import Source
from unmask.data.stream import Item, Stream, StreamSampler, Transform, classes_only, collate
from unmask.errors import BrokenSample
from unmask.modality.base import Modality
from unmask.schema import Batch, Sample
from unmask.task.base import Task


class Buckets(NamedTuple):
    """How samples are batched by length.

    Attributes:
        seconds: length of each training sample.
        window: optimiser steps whose samples are sorted together.
    """

    seconds: np.ndarray
    window: int


class Labels(NamedTuple):
    """What fine-tuning asks of its data.

    Attributes:
        encode: from a source's label to what a batch holds.
        validation: what the best checkpoint is chosen by; may be empty.
        augment: changes of a training sample, one after the other, after the modality's own.
    """

    encode: Callable[[Any], int | float | Tensor | None]
    validation: Source
    augment: Sequence[Callable[[Tensor], Tensor]] = ()


class Augmented:
    """A modality's transform, and changes after it.

    Args:
        transform: the modality's.
        changes: of what it gives; random through torch's global generator.
    """

    def __init__(self, transform: Transform, changes: Sequence[Callable[[Tensor], Tensor]]) -> None:
        self.read, self.transform, self.changes = transform.read, transform, changes

    def __call__(self, sample: Sample) -> Tensor:
        """The changed row."""
        value = self.transform(sample)
        for change in self.changes:
            value = change(value)
        return value


class TrainingData(L.LightningDataModule):
    """Batches of the stream from the step the trainer stands at.

    Args:
        train: what is trained on.
        test: held-out samples for probes and pictures.
        modality: makes the transforms; a task may have its own.
        seed: the run's.
        global_batch: samples an optimiser step over all devices and accumulation.
        num_workers: loader processes; the run is the same for any number.
        buckets: where samples are batched by their length.
        repeats: times that a sample is seen in a row, read once.
        labels: where labels are learned from.
    """

    def __init__(
        self,
        train: Source,
        test: Source,
        modality: Modality | Task,
        seed: int,
        global_batch: int,
        num_workers: int,
        buckets: Buckets | None = None,
        repeats: int = 1,
        labels: Labels | None = None,
    ) -> None:
        super().__init__()
        self.train, self.test, self.seed = train, test, seed
        self.global_batch, self.num_workers = global_batch, num_workers
        self.buckets = buckets
        transform: Transform = modality.transform(train=True)
        if labels is None:
            self.stream = Stream(train, transform, seed, repeats)
        else:
            self.stream = Stream(train, Augmented(transform, labels.augment), seed, repeats, labels.encode)
            self.validation = labels.validation
        self.still = modality.transform(train=False)

    def train_dataloader(self) -> DataLoader[Item]:
        """An endless loader; Lightning asks for it after a checkpoint is restored."""
        trainer = self.trainer
        assert trainer is not None
        step, rank, world = trainer.global_step, trainer.global_rank, trainer.world_size
        parts = trainer.accumulate_grad_batches * world
        sampler: StreamSampler | BucketSampler
        if self.buckets is None:
            sampler = StreamSampler(step, self.global_batch, self.global_batch // parts, rank, world)
        else:
            sampler = BucketSampler(*self.buckets, self.seed, step, self.global_batch, parts, rank, world)
        return DataLoader(
            self.stream,
            batch_sampler=sampler,
            collate_fn=functools.partial(collate, seed=self.seed),
            num_workers=self.num_workers,
            worker_init_fn=_leave_signals_to_the_trainer,
            pin_memory=torch.cuda.is_available(),
        )

    def samples(self, split: str, count: int) -> Batch | None:
        """Up to `count` unaugmented samples of `train` or `test`, picked by the seed; None if there are none."""
        source = self.train if split == "train" else self.test
        order = Permutation(len(source), address(self.seed, f"pick {split}"))
        items = []
        for position in range(len(source)):
            try:
                sample = self.still.read(source[order[position]])
            except BrokenSample:
                continue  # probes do with fewer; in training they are counted and named
            items.append(Item(self.still(sample), position, classes_only(sample.label), ()))
            if len(items) == count:
                break
        return collate(items) if items else None


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C reaches the whole process group: workers must go on until the trainer has saved and lets them go."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
