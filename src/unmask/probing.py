"""Frozen features, judged by a classifier that is fitted to few labels."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmask.address import address
from unmask.errors import ConfigError
from unmask.files import written_whole
from unmask.finetuning import finish, write_predictions
from unmask.recorded import recorded
from unmask.schema import Batch
from unmask.task.probe import encode_all, linear_classifier, nearest_neighbours
from unmask.training.data import TrainingData

CLASSIFIERS = {"linear_probe": linear_classifier, "knn": nearest_neighbours}
RESAMPLES = 1000


@dataclass
class Probing:
    """Encode, fit, tell.

    Attributes:
        name: `linear_probe` or `knn`.
        encoders: from a batch to (B, D), by what they are called; the first one's predictions are written.
        data: labelled samples.
        most: test samples, at most; None for all.
        folder: the run folder.
    """

    name: str
    encoders: dict[str, Callable[[Batch], Tensor]]
    data: TrainingData
    most: int | None
    folder: Path

    def run(self) -> None:
        """Print the table, write predictions and results.

        Raises:
            ConfigError: there is nothing to learn from, or nothing to test on.
        """
        with recorded(self.folder):
            rows = self._judge()
            with written_whole(self.folder / "results.json") as aside:
                aside.write_text(json.dumps(next(iter(rows.values())), indent=2) + "\n")
        finish(self.folder, rows)

    def _judge(self) -> dict[str, dict[str, Any]]:
        data = self.data
        train = data.samples("train", len(data.train))
        test = data.samples("test", len(data.test) if self.most is None else self.most)
        if train is None or train.labels is None or len(set(train.labels.tolist())) < 2:
            raise ConfigError(f"task={self.name} needs labels of two classes or more. Raise data.labels.")
        if test is None or test.labels is None:
            raise ConfigError(f"task={self.name}: the test samples have no labels to compare with. Give others.")
        print(f"{self.name}: {len(train)} labelled samples, {len(test)} to test on", flush=True)
        rows: dict[str, dict[str, Any]] = {}
        for start, encode in self.encoders.items():
            features, unseen = (encode_all(encode, batch, torch.device("cpu")) for batch in (train, test))
            said = CLASSIFIERS[self.name](features, train.labels.numpy(), unseen)
            right = said == test.labels.numpy()
            rows[start] = {
                "decides": "accuracy", "scores": {"accuracy": float(right.mean())},
                "interval": self._interval(right), "samples": len(test),
            }  # fmt: skip
            if len(rows) == 1:
                classes = data.test.classes
                pairs = zip(test.positions.tolist(), test.labels.tolist(), said.tolist(), strict=True)
                records = [{"index": i, "label": classes[t], "prediction": classes[s]} for i, t, s in pairs]
                write_predictions(self.folder, records)
        return rows

    def _interval(self, right: np.ndarray) -> list[float]:
        """Of the share that is right, 95 %, by bootstrap over test samples."""
        generator = np.random.default_rng(address(self.data.seed, "bootstrap"))
        shares = right[generator.integers(len(right), size=(RESAMPLES, len(right)))].mean(1)
        return [float(x) for x in np.quantile(shares, [0.025, 0.975])]
