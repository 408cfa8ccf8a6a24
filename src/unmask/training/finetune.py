"""Fine-tuning as Lightning sees it, and how its predictions are judged."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unmask.address import address
from unmask.data.source import Source
from unmask.data.stream import Item, Transform, collate
from unmask.errors import BrokenSample
from unmask.masking.strategy import MaskStrategy
from unmask.schema import Batch, Mask
from unmask.task.base import Record, Task
from unmask.training.module import Optimization, TrainingModule

RESAMPLES = 200
LEVEL = 0.95


class FinetuneModule(TrainingModule):
    """Ask the task for a loss.

    Args:
        task: backbone, head and loss.
        masking: what training hides from the backbone; None for nothing.
        freeze_steps: optimiser steps in which only the head learns.
        optimization: how parameters learn.
        seed: the run's.
    """

    def __init__(
        self, task: Task, masking: MaskStrategy | None, freeze_steps: int, optimization: Optimization, seed: int
    ) -> None:
        super().__init__(optimization, seed)
        self.task, self.masking, self.freeze_steps = task, masking, freeze_steps

    @property
    def model(self) -> Task:
        """The task."""
        return self.task

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one micro-batch."""
        self.mask = self._draw_mask(batch)
        self.task.frozen = self.global_step < self.freeze_steps
        self.output = self.task(batch, self.mask)
        return self.share_of_step(self.output.loss, len(batch))

    def _draw_mask(self, batch: Batch) -> Mask | None:
        if self.masking is None:
            return None
        modality = self.task.backbone.modality
        counts, never_hidden = modality.counts(batch), modality.never_hidden(batch)
        mask = self.masking.draw(self.seed, batch.positions, modality.grid_of(batch), counts, never_hidden)
        self.hidden_fraction = mask.fraction(None if counts is None else counts.sum())
        return mask


class Views(Dataset[tuple[list[Item], Any] | None]):
    """Every sample of a source in order, seen in each of several ways, with its own label.

    Args:
        source: the samples; one that cannot be read is None.
        transforms: one a view.
    """

    def __init__(self, source: Source, transforms: Sequence[Transform]) -> None:
        self.source, self.transforms = source, transforms

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[list[Item], Any] | None:
        items, label = [], None
        try:
            for transform in self.transforms:
                sample = self.source[index]  # opened anew: a video is closed once its frames are read
                items.append(Item(transform(transform.read(sample)), index, None, ()))
                label = sample.label
        except BrokenSample:
            return None
        return items, label


def judge(
    task: Task,
    views: Views,
    device: torch.device,
    batch_size: int,
    num_workers: int = 0,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Record]:
    """A record of each sample that can be read: its index, its label where there is one, and what is predicted."""
    loader = DataLoader(views, batch_size, collate_fn=list, num_workers=num_workers)
    records: list[Record] = []
    task.eval()
    with torch.inference_mode(), context():
        for read in loader:
            seen = [pair for pair in read if pair is not None]
            if not seen:
                continue
            batch = collate([item for items, _ in seen for item in items]).to(device)
            predicted = task.predict(batch, len(views.transforms))
            for (items, label), record in zip(seen, predicted, strict=True):
                record = {"index": items[0].position, **record}
                records.append(record if label is None else task.compared({**record, "label": task.name_label(label)}))
    task.train()
    return records


def interval(task: Task, records: Sequence[Record], seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the score that decides, over samples of the test set (not over seeds)."""
    generator = np.random.default_rng(address(seed, "bootstrap"))
    scores = [
        task.score([records[i] for i in generator.integers(len(records), size=len(records))])[task.decides]
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
