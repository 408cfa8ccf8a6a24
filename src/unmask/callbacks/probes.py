"""Does it learn? Features judged during training, and at its end beside what needed no training."""

import json
from collections.abc import Callable
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
from unmask.training.data import PretrainData
from unmask.training.module import PretrainModule

Encode = Callable[[Batch], Tensor]


class Probes(L.Callback):
    """k-NN accuracy and effective rank while training; at the end a table with a linear probe and two baselines.

    Args:
        every: optimiser steps.
        labels: training samples whose labels are used.
        test: held-out samples that are judged by, at most.

    """

    def __init__(self, every: int, labels: int, test: int) -> None:
        self.every, self.labels, self.test = every, labels, test

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the samples once."""
        data: PretrainData = trainer.datamodule  # type: ignore[attr-defined]
        self._train = data.samples("train", self.labels)
        self._test = data.samples("test", self.test)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Judge the features as they are."""
        due = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and trainer.global_step % self.every == 0
        if due and trainer.is_global_zero:
            assert isinstance(pl_module, PretrainModule)
            train, test = self._encode(pl_module.objective.backbone.features, pl_module.device)
            metrics = {"effective_rank": effective_rank(train)}
            if self._labelled:
                metrics["knn_accuracy"] = self._score(knn_accuracy, train, test)
            log_metrics(trainer, metrics)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The table, once the training is whole."""
        if trainer.global_step < trainer.max_steps or not trainer.is_global_zero or not self._labelled:
            return
        assert isinstance(pl_module, PretrainModule)
        trained = pl_module.objective.backbone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(pl_module.seed)
            untrained = Backbone.from_settings(trained.settings()).to(pl_module.device)
        encoders: dict[str, Encode] = {
            "pretrained": trained.features,
            "random encoder": untrained.features,
            "raw input": untrained.modality.raw_features,
        }
        rows = {}
        for name, encode in encoders.items():
            train, test = self._encode(encode, pl_module.device)
            rows[name] = {
                "knn_accuracy": self._score(knn_accuracy, train, test),
                "linear_accuracy": self._score(linear_accuracy, train, test),
            }
        log_metrics(trainer, rows["pretrained"])
        with written_whole(Path(trainer.default_root_dir) / "probes.json") as aside:
            aside.write_text(json.dumps({"labels": len(self._train), "test": len(self._test), **rows}, indent=2))
        Console().print(_table(rows, len(self._train), len(self._test)))

    @property
    def _labelled(self) -> bool:
        return self._train.labels is not None and self._test.labels is not None

    def _encode(self, encode: Encode, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        return encode_all(encode, self._train, device), encode_all(encode, self._test, device)

    def _score(self, judge: Callable[..., float], train: np.ndarray, test: np.ndarray) -> float:
        assert self._train.labels is not None
        assert self._test.labels is not None
        return judge(train, self._train.labels.numpy(), test, self._test.labels.numpy())


def _table(rows: dict[str, dict[str, float]], labels: int, test: int) -> Table:
    table = Table(title=f"Frozen features, {labels} labels, {test} held-out samples")
    table.add_column("features")
    table.add_column("k-NN %", justify="right")
    table.add_column("linear probe %", justify="right")
    for name, row in rows.items():
        table.add_row(name, f"{row['knn_accuracy']:.1%}"[:-1], f"{row['linear_accuracy']:.1%}"[:-1])
    return table
