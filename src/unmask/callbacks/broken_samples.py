"""Samples that cannot be read: skipped, counted, named in a file, and only so many of them."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L

from unmask.errors import ConfigError
from unmask.schema import Batch
from unmask.training.data import TrainingData


class BrokenSamples(L.Callback):
    """Writes each broken sample once to `broken_samples.txt`.

    Args:
        most: stop once this share of all samples has turned out to be broken.
    """

    def __init__(self, most: float) -> None:
        self.most = most
        self.seen: set[str] = set()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Look at the batch.

        Raises:
            ConfigError: too many are broken.
        """
        new = [line for line in dict.fromkeys(batch.broken) if line not in self.seen]
        if not new:
            return
        data: TrainingData = trainer.datamodule  # type: ignore[attr-defined]
        path = Path(trainer.default_root_dir) / "broken_samples.txt"
        if not self.seen and path.exists():
            self.seen.update(path.read_text().splitlines())
            new = [line for line in new if line not in self.seen]
        self.seen.update(new)
        with path.open("a") as file:
            file.writelines(f"{line}\n" for line in new)
        if len(self.seen) > self.most * len(data.train):
            raise ConfigError(
                f"{len(self.seen)} of {len(data.train)} samples cannot be read, over callbacks.broken_samples.most="
                f"{self.most}. They are listed in {path}. Mend the files or raise the limit."
            )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say so."""
        if self.seen:
            path = Path(trainer.default_root_dir) / "broken_samples.txt"
            print(f"{len(self.seen)} samples could not be read and were replaced; they are listed in {path}")
