"""Is there still something to learn from? Features of held-out samples, watched for collapse."""

import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.address import address
from unmask.callbacks.metrics import Metrics, log_metrics
from unmask.errors import ConfigError
from unmask.files import written_whole
from unmask.objective.base import Objective
from unmask.schema import Batch
from unmask.task.collapse import STATES, Look, Verdict, judge, measure
from unmask.training.data import TrainingData
from unmask.training.module import PretrainModule

FILE = "collapse.json"
CHUNK = 16  # samples encoded at once
PLACES = 64  # tokens of a sample that are looked at, at most


class Collapse(L.Callback):
    """Look at the features every so many steps, before the first and after the last; keep all looks in `collapse.json`.

    Before `Checkpointing` among the callbacks: where it stops the training, that step is saved.

    Args:
        every: optimiser steps.
        samples: held-out samples to look at.
        grace: optimiser steps in which nothing is judged.
        action: when features look bad: `warn` prints a line, `stop` also ends the training once they have collapsed,
            `none` only writes.

    Attributes:
        verdict: the last, on every rank; None where there are no samples to look at.
        stopped_at: the step at which it ended the training, or None.
    """

    def __init__(self, every: int, samples: int, grace: int, action: str) -> None:
        self.every, self.samples, self.grace, self.action = every, samples, grace, action
        self.verdict: Verdict | None = None
        self.stopped_at: int | None = None
        self._history: list[tuple[Look, Verdict]] = []  # on rank 0
        self._samples: Batch | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on from what the file says, or take the look that later ones are compared with."""
        path = Path(trainer.default_root_dir) / FILE
        if trainer.is_global_zero and trainer.global_step and path.exists():
            # Looks at steps that are run again are taken again.
            self._history = [entry for entry in read_history(path) if entry[0].step <= trainer.global_step]
        self.verdict = trainer.strategy.broadcast(self._history[-1][1] if self._history else None)
        if self.verdict is None:
            self._look(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Look when it is time."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and trainer.global_step % self.every == 0:
            self._look(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Once more, if the last step was none of those."""
        if trainer.global_step == trainer.max_steps and trainer.max_steps % self.every:
            self._look(trainer, pl_module)

    def check(self, folder: Path) -> None:
        """To be called when the training has ended and all is saved.

        Raises:
            ConfigError: it was ended from here.
        """
        if self.stopped_at is not None and self.verdict is not None:
            raise ConfigError(
                f"callbacks.collapse.action=stop at step {self.stopped_at}: {'; '.join(self.verdict.reasons)}. "
                "Start anew with a lower optimizer.base_lr or a longer scheduler.warmup, or, where there is a teacher, "
                "with objective.layer_norm=layer or instance or a higher objective.tau_start and objective.tau_end; "
                f"or go on all the same with resume={folder} callbacks.collapse.action=warn."
            )

    def _look(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        before = self.verdict
        assert isinstance(pl_module, PretrainModule)
        with pl_module.judged() as objective:
            if trainer.is_global_zero:
                if self._samples is None:
                    data: TrainingData = trainer.datamodule  # type: ignore[attr-defined]
                    self._samples = data.samples("test", self.samples)
                if self._samples is not None:
                    self._take(trainer, objective, self._samples.to(pl_module.device), pl_module.seed)
        self.verdict = trainer.strategy.broadcast(self.verdict)
        if self.verdict is None:
            return
        if trainer.is_global_zero and self.action != "none" and _severity(self.verdict) > _severity(before):
            print(f"step {trainer.global_step}: {self.verdict}", flush=True)
        if self.action == "stop" and self.verdict.state == "collapsed":
            trainer.should_stop, self.stopped_at = True, trainer.global_step

    def _take(self, trainer: L.Trainer, objective: Objective, samples: Batch, seed: int) -> None:
        """Measure, judge, log, write."""
        metrics = next(c for c in trainer.callbacks if isinstance(c, Metrics)).latest  # type: ignore[attr-defined]
        with torch.random.fork_rng(devices=[]):  # a view may draw noise: each time the same, and none of training's
            torch.manual_seed(address(seed, "collapse"))
            numbers = measure(*_views(objective, samples))
        said = {name: value for name, value in metrics.items() if name in ("target_std", "prediction_std")}
        look = Look(trainer.global_step, said | numbers)
        self.verdict = judge([*(look for look, _ in self._history), look], self.grace)
        self._history.append((look, self.verdict))
        shown = {f"collapse/{name}": value for name, value in numbers.items()}
        log_metrics(trainer, {**shown, "collapse/severity": _severity(self.verdict)})
        write_history(Path(trainer.default_root_dir) / FILE, self._history)


def _views(objective: Objective, samples: Batch) -> tuple[dict[str, Tensor], Tensor | None]:
    """Some tokens of each sample, the same ones each time: (B, N, D) by name, and which are real (B, N)."""
    modality = objective.backbone.modality
    tokens, real = math.prod(modality.grid_of(samples)), modality.real(samples)
    # At random: a stride might keep to one column of the grid.
    places = torch.randperm(tokens, generator=torch.Generator().manual_seed(0))[:PLACES].to(samples.positions.device)

    def pick(features: Tensor) -> Tensor:
        # Rows by themselves come without padding that only the others need: that back first.
        return F.pad(features, (0, 0, 0, tokens - features.shape[1]))[:, places].float().cpu()

    parts = [
        {name: pick(x) for name, x in objective.views(samples.rows(i, i + CHUNK)).items()}
        for i in range(0, len(samples), CHUNK)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, (
        None if real is None else real[:, places]
    )


def _severity(verdict: Verdict | None) -> int:
    return 0 if verdict is None else STATES.index(verdict.state)


def write_history(path: Path, history: list[tuple[Look, Verdict]]) -> None:
    """The last verdict, then every look with its own. Numbers that are not finite are null."""
    rows = [
        {
            "step": look.step,
            **verdict._asdict(),
            "numbers": {name: x if math.isfinite(x) else None for name, x in look.numbers.items()},
        }
        for look, verdict in history
    ]
    with written_whole(path) as aside:
        aside.write_text(json.dumps({**history[-1][1]._asdict(), "looks": rows}, indent=2) + "\n")


def read_history(path: Path) -> list[tuple[Look, Verdict]]:
    """What `write_history` wrote."""
    return [
        (
            Look(row["step"], {name: math.nan if x is None else x for name, x in row["numbers"].items()}),
            Verdict(row["state"], tuple(row["reasons"])),
        )
        for row in json.loads(path.read_text())["looks"]
    ]
