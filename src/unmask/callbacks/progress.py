"""One live line on a terminal, one line an interval in a log file."""

import time
from typing import Any

import lightning.pytorch as L
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from unmask.callbacks.metrics import Metrics


class ProgressLine(L.Callback):
    """Loss, samples a second, time left.

    Args:
        interval: seconds between two lines where there is no terminal.
    """

    def __init__(self, interval: float = 10.0) -> None:
        self.interval = interval
        self.console = Console()
        self._bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the metrics, draw the line."""
        self._metrics = next(c for c in trainer.callbacks if isinstance(c, Metrics))  # type: ignore[attr-defined]
        self._began = self._printed = time.monotonic()
        self._first = trainer.global_step
        if not trainer.is_global_zero or not self.console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._task = self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step)
        self._bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Move the line, or print one if it is time."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, description=self._words())
        elif trainer.is_global_zero and now - self._printed > self.interval:
            self._printed = now
            done = trainer.global_step - self._first
            left = (now - self._began) / max(done, 1) * (trainer.max_steps - trainer.global_step)
            print(
                f"step {trainer.global_step}/{trainer.max_steps}  {self._words()}  {left:.0f} s left",
                flush=True,
            )

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let go of the terminal."""
        self._stop()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let others print."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _words(self) -> str:
        row = self._metrics.latest
        return f"loss {row['loss']:.4f}  {row['samples_per_second']:.0f} samples/s" if row else "starting"
