"""Save as training goes, and end politely on a signal."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as L

from unmask.training.checkpoint import FOLDER, SUFFIX


class Checkpointing(L.Callback):
    """Save every so many optimiser steps and at the end; keep the newest `keep`.

    SIGINT and SIGTERM let the step finish, save, and end the training: `stopped_by` then holds the signal.

    Args:
        every: optimiser steps.
        keep: files kept.
    """

    def __init__(self, every: int, keep: int = 2) -> None:
        self.every, self.keep = every, keep
        self.stopped_by: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}
        self._saved = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen for signals, in place of Lightning, whose own handler leaves without a checkpoint."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stopped_by is not None:  # asked twice: stop now
            raise KeyboardInterrupt
        self.stopped_by = signal.Signals(number)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Between optimiser steps only: in the middle of an accumulation window there is nothing to save."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        # Every rank stops if one was told to: else the others wait for it for ever.
        stop = trainer.strategy.reduce_boolean_decision(self.stopped_by is not None, all=False)
        trainer.should_stop = trainer.should_stop or stop
        if trainer.global_step % self.every == 0 or trainer.should_stop:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last step is always kept."""
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give signals back; Lightning tears nothing down after an error."""
        self._give_back()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.global_step == self._saved:
            return
        self._saved = trainer.global_step
        folder = Path(trainer.default_root_dir) / FOLDER
        trainer.save_checkpoint(folder / f"step={trainer.global_step:09d}{SUFFIX}")
        if trainer.is_global_zero:
            for old in sorted(folder.glob(f"step=*{SUFFIX}"))[: -self.keep]:
                old.unlink()
