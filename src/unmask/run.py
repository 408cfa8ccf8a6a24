"""A run from its first line to its last."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import WandbLogger
from PIL import Image as PILImage
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from unmask.callbacks.checkpointing import Checkpointing
from unmask.callbacks.collapse import Collapse
from unmask.chain import follow
from unmask.data.stream import Stream, collate
from unmask.masking.audit import audit, coverage_picture
from unmask.masking.strategy import MaskStrategy
from unmask.modality.patches import PatchModality
from unmask.recorded import recorded
from unmask.report import FILE as REPORT
from unmask.training.data import TrainingData
from unmask.training.folder import mark_done
from unmask.training.module import PretrainModule


@dataclass
class Pretraining:
    """Everything a pretraining needs, built.

    Attributes:
        trainer: Lightning's.
        module: objective and masks.
        data: the stream.
        checkpointing: knows whether a signal ended the training.
        folder: the run folder.
        checkpoint: where to go on from, or None.
        description: lines printed first.
        then: tasks that follow.
    """

    trainer: L.Trainer
    module: PretrainModule
    data: TrainingData
    checkpointing: Checkpointing
    folder: Path
    checkpoint: Path | None
    description: tuple[str, ...]
    then: Sequence[str] = ()

    def run(self) -> None:
        """Train; the last line is where the run lies and the command that comes next.

        Raises:
            SystemExit: a signal ended the training; the code is 128 + its number.
        """
        say = print if self.trainer.is_global_zero else _nothing
        for line in self.description:
            say(line)
        if self.checkpoint is not None:
            say(f"resumed from {self.checkpoint}")
        total = self._train(say)
        pictures = sorted((self.folder / "pictures").glob("*.png"))
        if pictures:
            say(f"picture: {pictures[-1]}")
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger) and logger._offline:
                say(f"wandb:   offline; to upload it: wandb sync {self.folder}/wandb/offline-run-*")
        if self.trainer.is_global_zero:
            follow(self.folder, self.then)
            mark_done(self.folder)
        if (self.folder / REPORT).exists():
            say(f"report:  {self.folder / REPORT}")
        say(f"run:     {self.folder}")
        say(
            f"next:    python train.py resume={self.folder} trainer.max_steps={2 * total}"
            f"   (or: tensorboard --logdir {self.folder})"
        )

    def _train(self, say: Callable[[str], None]) -> int:
        """Until it is done, or a signal or a collapse ends it; the number of steps."""
        with recorded(self.folder, self.trainer):
            self.trainer.fit(self.module, datamodule=self.data, ckpt_path=self.checkpoint, weights_only=True)
            steps, total = self.trainer.global_step, self.trainer.max_steps
            if self.checkpointing.stopped_by is not None and steps < total:
                name = self.checkpointing.stopped_by.name
                say(f"stopped by {name} after step {steps} of {total}; everything is saved")
                say(f"go on with: python train.py resume={self.folder}")
                sys.exit(128 + self.checkpointing.stopped_by)
            for collapse in (c for c in self.trainer.callbacks if isinstance(c, Collapse)):  # type: ignore[attr-defined]
                collapse.check(self.folder)
                if collapse.verdict is not None:
                    say(f"health:  {collapse.verdict}")
        return total


def _nothing(line: str) -> None:
    """Other ranks are silent."""


@dataclass
class MaskAuditRun:
    """Draw masks, judge them, show them."""

    masking: MaskStrategy
    grid: tuple[int, ...]
    seed: int
    folder: Path

    def run(self) -> None:
        """Print a table, draw the coverage.

        Raises:
            SystemExit: the masks are biased; the code is 1.
        """
        result = audit(self.masking, self.grid, self.seed)
        table = Table(title=f"10,000 masks of {type(self.masking).__name__} on {'x'.join(map(str, self.grid))} tokens")
        table.add_column("what")
        table.add_column("measured", justify="right")
        for what, value in (
            ("hidden fraction, asked for", f"{self.masking.ratio:.4f}"),
            ("hidden fraction, least / mean / most", " / ".join(f"{x:.4f}" for x in result.ratio)),
            (
                "a token is hidden in, least / most of masks",
                f"{result.coverage.min():.4f} / {result.coverage.max():.4f}",
            ),
            ("neighbour of a hidden token hidden too", f"{result.together:.4f}"),
            ("block size: tokens in a row, hidden / visible", f"{result.hidden_run:.2f} / {result.visible_run:.2f}"),
        ):
            table.add_row(what, value)
        Console().print(table)
        path = self.folder / "pictures" / "coverage.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(coverage_picture(result.coverage)).save(path)
        print(f"coverage map, white is always hidden: {path}")
        if result.bias is not None:
            print(f"biased: {result.bias}")
            sys.exit(1)
        print("no bias found")


STATISTICS_FROM = 10_000  # samples, drawn by the seed


@dataclass
class StatisticsRun:
    """Measure the mean and deviation of the data's values."""

    modality: PatchModality
    stream: Stream
    num_workers: int

    def run(self) -> None:
        """Print them as words for a command line."""
        count = min(len(self.stream.source), STATISTICS_FROM)
        total = squares = torch.zeros(())
        values = 0
        loader = DataLoader(self.stream, 64, sampler=range(count), collate_fn=collate, num_workers=self.num_workers)
        for batch in loader:
            channels = self.modality.values(batch).transpose(0, 1).flatten(1).double()
            total, squares = total + channels.sum(1), squares + channels.square().sum(1)
            values += channels.shape[1]
        mean = total / values
        deviation = (squares / values - mean.square()).sqrt()
        print(f"of {count} training samples, seen whole or cropped in the middle:")
        print(
            " ".join(f"data.{k}=[{','.join(f'{x:.4g}' for x in v)}]" for k, v in (("mean", mean), ("std", deviation)))
        )
