"""Input, what was visible, and what the model made of the rest."""

import html
import textwrap
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image as PILImage

from unmask.files import written_whole
from unmask.masking.audit import as_grid, coverage_picture
from unmask.media import Media, Note, Sound
from unmask.objective.base import Objective
from unmask.schema import Batch, Mask
from unmask.training.data import TrainingData
from unmask.training.module import PretrainModule

MASKS = 256  # that show how often a token is hidden


class Pictures(L.Callback):
    """The same held-out samples with the same masks, every so many steps and at the end; to the loggers too.

    Args:
        every: optimiser steps.
        count: samples on a picture.
    """

    def __init__(self, every: int, count: int) -> None:
        self.every, self.count = every, count

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the samples once."""
        data: TrainingData = trainer.datamodule  # type: ignore[attr-defined]
        self._samples = data.samples("test", self.count)
        self._drawn = -1
        if trainer.is_global_zero and self._samples is not None:
            assert isinstance(pl_module, PretrainModule)
            self._draw_hidden(Path(trainer.default_root_dir) / "pictures" / "hidden.png", pl_module)

    def _draw_hidden(self, path: Path, module: PretrainModule) -> None:
        """How often each token of a whole sample is hidden, over the first masks of the run."""
        grid = module.objective.backbone.modality.grid
        masks = as_grid(module.masking.draw(module.seed, torch.arange(MASKS), grid), grid)
        with written_whole(path) as aside:
            PILImage.fromarray(coverage_picture(masks.float().mean(0))).save(aside, format="png")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
        """Draw when it is time."""
        if trainer.global_step and trainer.global_step % self.every == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw once more."""
        self._draw(trainer, pl_module)

    def _draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._samples is None or trainer.global_step == self._drawn:
            return
        self._drawn = trainer.global_step
        assert isinstance(pl_module, PretrainModule)
        samples = self._samples.to(pl_module.device)
        with pl_module.judged() as objective:
            if trainer.is_global_zero:
                self._show(trainer, *reconstruct(objective, samples, pl_module.draw_mask(samples)))

    def _show(self, trainer: L.Trainer, sheet: np.ndarray, media: dict[str, Media]) -> None:
        path = Path(trainer.default_root_dir) / "pictures" / f"step={trainer.global_step:09d}.png"
        with written_whole(path) as aside:
            PILImage.fromarray(sheet).save(aside, format="png")
        files = {name: one.write(path.with_name(f"{path.stem}-{name}")) for name, one in media.items()}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("reconstruction", sheet, trainer.global_step, dataformats="HWC")
                for name, one in media.items():
                    if isinstance(one, Sound):  # films would need moviepy there; the picture has their frames
                        logger.experiment.add_audio(name, one.samples[None], trainer.global_step, one.rate)
                    elif isinstance(one, Note):
                        logger.experiment.add_text(name, _verbatim(one.text), trainer.global_step)
            elif isinstance(logger, WandbLogger):
                logger.log_image("reconstruction", [PILImage.fromarray(sheet)], trainer.global_step)
                for name, one in media.items():  # the picture has the bare name
                    if isinstance(one, Sound):
                        logger.log_audio(f"sound/{name}", [str(files[name])], trainer.global_step)
                    elif isinstance(one, Note):
                        _log_note(logger, f"text/{name}", one, trainer.global_step)
                    else:
                        logger.log_video(f"film/{name}", [str(files[name])], trainer.global_step)


def _log_note(logger: WandbLogger, name: str, note: Note, step: int) -> None:
    import wandb  # only who logs to it pays for it

    page = wandb.Html(f'<meta charset="utf-8"><pre>{html.escape(note.text)}</pre>', inject=False)
    logger.experiment.log({name: page, "trainer/global_step": step})


def _verbatim(text: str) -> str:
    """Plain text as Markdown that shows it so."""
    return textwrap.indent(text, "    ", lambda line: True)


def reconstruct(objective: Objective, samples: Batch, mask: Mask) -> tuple[np.ndarray, dict[str, Media]]:
    """What the modality makes of the objective's prediction: a picture, (height, width, 3) uint8, and the rest."""
    mask = mask.every(objective.masks_per_sample)
    prediction = objective.predict(samples, mask)
    prediction = None if prediction is None else prediction.float()
    shown = (samples, mask, prediction, objective.normalize)
    return objective.backbone.modality.picture(*shown), objective.backbone.modality.media(*shown)
