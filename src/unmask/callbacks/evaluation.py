"""How good is it on labels that were held out, and which checkpoint was best?"""

from pathlib import Path
from typing import Any

import lightning.pytorch as L

from unmask.callbacks.metrics import log_metrics
from unmask.task.base import Task
from unmask.training.finetune import FinetuneModule, Views, judge

FOLDER = "model"  # of the run folder: the best task, to be used


class Evaluation(L.Callback):
    """Score held-out samples every so many steps and at the end; keep the best task in `model/`.

    Where nothing is held out, the last task is kept.

    Args:
        every: optimiser steps.
        batch_size: samples predicted at once.
    """

    def __init__(self, every: int, batch_size: int = 64) -> None:
        self.every, self.batch_size = every, batch_size
        self.best: float | None = None
        self.best_step = 0
        self._seen = -1

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Between optimiser steps, when it is time."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and trainer.global_step % self.every == 0:
            self._look(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Once more."""
        self._look(trainer, pl_module)

    def _look(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FinetuneModule)
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        with module.judged() as task:
            if trainer.is_global_zero:
                self._judge(trainer, module, task)

    def _judge(self, trainer: L.Trainer, module: FinetuneModule, task: Task) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        folder = Path(trainer.default_root_dir) / FOLDER
        if not len(data.validation):
            if trainer.global_step >= trainer.max_steps or trainer.should_stop:
                self.best_step = trainer.global_step
                task.save(folder)
            return
        views = Views(data.validation, [data.still])
        context = trainer.precision_plugin.forward_context
        records = judge(task, views, module.device, self.batch_size, 0, context)
        scores = task.score(records)
        log_metrics(trainer, {f"validation/{name}": value for name, value in scores.items()})
        score = scores[task.decides]
        better = self.best is None or (score > self.best if task.larger_is_better else score < self.best)
        if better:
            self.best, self.best_step = score, trainer.global_step
            task.save(folder)
