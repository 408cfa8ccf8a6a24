"""Does it learn? Features judged during training, and at its end beside what needed no training."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unmask.backbone import Backbone
from unmask.callbacks.metrics import log_metrics
from unmask.files import written_whole
from unmask.schema import Batch
from unmask.task.probe import effective_rank, encode_all, knn_accuracy, linear_accuracy
from unmask.training.data import TrainingData
from unmask.training.module import PretrainModule

Encode = Callable[[Batch], Tensor]


class Probes(L.Callback):
    """k-NN accuracy and effective rank while training; at the end a table with a linear probe and two baselines.

    Args:
        every: optimiser steps.
        labels: training samples whose labels are used.
        test: held-out samples that are judged by, at most.
        pool: of a sample's tokens: `mean`, or `tokens`, all in a row (see `Backbone.features`).
    """

    def __init__(self, every: int, labels: int, test: int, pool: str = "mean") -> None:
        self.every, self.labels, self.test, self.pool = every, labels, test, pool
        self._train: Batch | None = None
        self._test: Batch | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Judge the features as they are."""
        due = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and trainer.global_step % self.every == 0
        if not due:
            return
        assert isinstance(pl_module, PretrainModule)
        with pl_module.judged() as objective:
            if not trainer.is_global_zero:
                return
            self._read(trainer)
            features = self._encode(partial(objective.backbone.features, pool=self.pool), pl_module.device)
        metrics = {"effective_rank": effective_rank(features[0])}
        if self._labelled:
            metrics["knn_accuracy"] = self._score(knn_accuracy, features)
        log_metrics(trainer, metrics)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The table, once the training is whole."""
        if trainer.global_step < trainer.max_steps:
            return
        assert isinstance(pl_module, PretrainModule)
        with pl_module.judged() as objective:
            if trainer.is_global_zero:
                self._compare(trainer, pl_module, objective.backbone)

    def _compare(self, trainer: L.Trainer, pl_module: PretrainModule, trained: Backbone) -> None:
        self._read(trainer)
        if not self._labelled:
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(pl_module.seed)
            untrained = Backbone.from_settings(trained.settings()).to(pl_module.device).eval()
        encoders: dict[str, Encode] = {
            "pretrained": partial(trained.features, pool=self.pool),
            "random encoder": partial(untrained.features, pool=self.pool),
            "raw input": untrained.modality.raw_features,
        }
        rows = {}
        for name, encode in encoders.items():
            features = self._encode(encode, pl_module.device)
            rows[name] = {
                "knn_accuracy": self._score(knn_accuracy, features),
                "linear_accuracy": self._score(linear_accuracy, features),
            }
        counts = {"labels": len(self._train or ()), "test": len(self._test or ())}
        log_metrics(trainer, rows["pretrained"])
        with written_whole(Path(trainer.default_root_dir) / "probes.json") as aside:
            aside.write_text(json.dumps({**counts, **rows}, indent=2) + "\n")
        Console().print(_table(rows, **counts))

    def _read(self, trainer: L.Trainer) -> None:
        """The samples, once, when first needed: decoding thousands of pictures must not delay the first step."""
        if self._train is None:
            data: TrainingData = trainer.datamodule  # type: ignore[attr-defined]
            self._train, self._test = data.samples("train", self.labels), data.samples("test", self.test)

    @property
    def _labelled(self) -> bool:
        """Whether there is something to tell apart."""
        batches = (self._train, self._test)
        return all(b is not None and b.labels is not None and len(torch.unique(b.labels)) > 1 for b in batches)

    def _encode(self, encode: Encode, device: torch.device) -> list[np.ndarray]:
        return [encode_all(encode, batch, device) for batch in (self._train, self._test) if batch is not None]

    def _score(self, judge: Callable[..., float], features: list[np.ndarray]) -> float:
        labels = [batch.labels.numpy() for batch in (self._train, self._test) if batch and batch.labels is not None]
        return judge(features[0], labels[0], features[1], labels[1])


def _table(rows: dict[str, dict[str, float]], labels: int, test: int) -> Table:
    table = Table(title=f"Frozen features: {labels} labels, {test} held-out", title_justify="left")
    table.add_column("features")
    table.add_column("k-NN %", justify="right")
    table.add_column("linear probe %", justify="right")
    for name, row in rows.items():
        table.add_row(name, f"{row['knn_accuracy']:.1%}"[:-1], f"{row['linear_accuracy']:.1%}"[:-1])
    return table
