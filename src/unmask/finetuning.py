"""A fine-tuning from its first line to its table."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from PIL import Image as PILImage
from rich.console import Console
from rich.table import Table

from unmask.callbacks.checkpointing import Checkpointing
from unmask.callbacks.evaluation import FOLDER, Evaluation
from unmask.data.stream import Transform
from unmask.errors import ConfigError
from unmask.files import written_whole
from unmask.recorded import recorded
from unmask.report import FILE as REPORT
from unmask.report import write_or_say
from unmask.task.base import Record, Task
from unmask.training.checkpoint import step_of
from unmask.training.data import TrainingData
from unmask.training.finetune import FinetuneModule, Views, interval, judge
from unmask.training.folder import mark_done


@dataclass
class FineTuning:
    """Everything a fine-tuning needs, built.

    Attributes:
        trainer: Lightning's.
        module: the task.
        data: labelled samples.
        views: how test samples are looked at.
        callbacks: by name; one of them is an `Evaluation`.
        folder: where this is written to.
        whole: the run folder: the same, or that of two which are compared.
        checkpoint: where to go on from, or None.
        description: lines printed first.
    """

    trainer: L.Trainer
    module: FinetuneModule
    data: TrainingData
    views: Sequence[Transform]
    callbacks: dict[str, L.Callback]
    folder: Path
    whole: Path
    checkpoint: Path | None
    description: tuple[str, ...]

    def run(self) -> dict[str, Any]:
        """Train, test the best checkpoint, write predictions, pictures and results; these.

        Raises:
            SystemExit: a signal ended the training; the code is 128 + its number.
            ConfigError: no test sample can be read.
        """
        done = self.folder / "results.json"
        if self.checkpoint is not None and step_of(self.checkpoint) >= self.trainer.max_steps and done.exists():
            self.say(f"{self.folder} is done")
            results: dict[str, Any] = json.loads(done.read_text())
            return results
        for line in self.description:
            self.say(line)
        if self.checkpoint is not None:
            self.say(f"resumed from {self.checkpoint}")
        with recorded(self.folder, self.trainer):
            self.trainer.fit(self.module, datamodule=self.data, ckpt_path=self.checkpoint, weights_only=True)
            steps, total = self.trainer.global_step, self.trainer.max_steps
            stopped = next(c.stopped_by for c in self.callbacks.values() if isinstance(c, Checkpointing))
            if stopped is not None and steps < total:
                self.say(f"stopped by {stopped.name} after step {steps} of {total}; everything is saved")
                self.say(f"go on with: python finetune.py resume={self.whole}")
                sys.exit(128 + stopped)
            return self._test() if self.trainer.is_global_zero else {}

    def say(self, line: str) -> None:
        """Print, once."""
        if self.trainer.is_global_zero:
            print(line, flush=True)

    def _test(self) -> dict[str, Any]:
        task, device = Task.load(self.folder / FOLDER), self.module.device
        evaluation = next(c for c in self.callbacks.values() if isinstance(c, Evaluation))
        records = judge(
            task.to(device), Views(self.data.test, self.views), device, evaluation.batch_size,
            self.data.num_workers, self.trainer.precision_plugin.forward_context,
        )  # fmt: skip
        if not records:
            raise ConfigError("No test sample can be read. Mend the files, or give others.")
        low, high = interval(task, records, self.module.seed)
        write_predictions(self.folder, records)
        for name, picture in task.pictures(records, self.data.test.__getitem__).items():
            PILImage.fromarray(picture).save(self.folder / f"{name}.png")
        results = {
            "decides": task.decides,
            "scores": task.score(records),
            "interval": [low, high],
            "samples": len(records),
            "validation": evaluation.best,
            "best_step": evaluation.best_step,
        }
        with written_whole(self.folder / "results.json") as aside:
            aside.write_text(json.dumps(results, indent=2) + "\n")
        return results


def finish(folder: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Print one table of all that was compared, and where the run lies."""
    first = next(iter(rows.values()))
    names, decides = list(first["scores"]), first["decides"]
    table = Table(title=f"{first['samples']} test samples; 95 % intervals over them", title_justify="left")
    table.add_column("from")
    for name in names:
        table.add_column(name, justify="right")
    for start, row in rows.items():
        cells = [f"{row['scores'][name]:.4f}" for name in names]
        low, high = row["interval"]
        cells[names.index(decides)] += f" [{low:.3f}, {high:.3f}]"
        table.add_row(start, *cells)
    with written_whole(folder / "comparison.json") as aside:
        aside.write_text(json.dumps(rows, indent=2) + "\n")
    Console().print(table)
    mark_done(folder)
    write_or_say(folder)
    if (folder / REPORT).exists():
        print(f"report:  {folder / REPORT}")
    print(f"predictions: {folder / 'predictions.csv'}")
    print(f"run:     {folder}")
    print(f"next:    python -m unmask.predict {folder} <files>")


def write_predictions(folder: Path, records: list[Record]) -> None:
    """`predictions.csv`, what fits a cell, and `predictions.jsonl`, everything."""
    with written_whole(folder / "predictions.jsonl") as aside:
        aside.write_text("".join(json.dumps(record) + "\n" for record in records))
    write_table(folder / "predictions.csv", records)


def write_table(path: Path, records: list[Record]) -> None:
    """A CSV of what fits a cell."""
    plain = [{k: v for k, v in record.items() if not isinstance(v, list | dict)} for record in records]
    with written_whole(path) as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(plain[0]))
        writer.writeheader()
        writer.writerows(plain)
