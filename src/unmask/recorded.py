"""The beginning and the end of a run, written down: `summary.json`, the loggers' last words, `report.html`."""

import json
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from unmask.files import written_whole
from unmask.records import SUMMARY, last_values, main_metric, read_config, read_json, tables
from unmask.report import write_or_say

# What TensorBoard compares runs by: these last metrics, and these keys with those given on the command line. All keys
# of the config would be a hundred axes, of which it shows the first ones by their letters.
COMPARED = ("loss", "accuracy", "effective_rank", "samples_per_second")
COMPARED_IN = ".hparams"  # ends the name of the file that holds them
AXES = ("objective.name", "task.name", "modality.name", "model.name", "data.name", "data.global_batch_size",
        "mask.name", "mask.ratio", "optimizer.base_lr", "seed")  # fmt: skip
NO_AXES = ("callbacks.", "logger.", "paths.", "run_dir", "resume")


@contextmanager
def recorded(folder: Path, trainer: L.Trainer | None = None) -> Iterator[None]:
    """Around all that a run does: however it ends, its folder tells."""
    if trainer is not None and not trainer.is_global_zero:
        yield
        return
    earlier, began = read_json(folder / SUMMARY) or {}, time.time()  # of a run that is resumed
    said = {"state": "running", "started": earlier.get("started", began), "seconds": earlier.get("seconds", 0.0)}
    _write(folder, {**said, **_steps(trainer), "pid": os.getpid(), "host": platform.node()})
    state, reason = "done", None
    try:
        yield
    except SystemExit as error:  # a signal ended the training, which said so
        state, reason = "stopped", f"stopped by {signal.Signals(int(error.code or 0) - 128).name}"
        raise
    except BaseException as error:
        sentence = (str(error).strip().splitlines() or [""])[0]
        state, reason = "failed", sentence if isinstance(error, ValueError) else f"{type(error).__name__}: {sentence}"
        raise
    finally:
        metrics, main = _outcome(folder, state)
        seconds = round(said["seconds"] + time.time() - began, 1)
        end = {"state": state, "reason": reason, "seconds": seconds, "main": main, "metrics": metrics}
        _write(folder, {**said, **_steps(trainer), **end})
        if trainer is not None:
            _close_loggers(trainer, folder, metrics)
        write_or_say(folder)


def _outcome(folder: Path, state: str) -> tuple[dict[str, float], str | None]:
    """The last of each metric, with those of test samples, and which of them the run is judged by."""
    metrics, _ = last_values(folder / "metrics.csv")
    results = read_json(folder / "results.json") if state == "done" else None
    if results is None:
        return metrics, main_metric(metrics)
    tested = {f"test/{name}": value for name, value in results["scores"].items()}
    return {**metrics, **tested}, f"test/{results['decides']}"


def _close_loggers(trainer: L.Trainer, folder: Path, metrics: dict[str, float]) -> None:
    """What came out, where it was not logged while training; no run of W&B outlives ours."""
    tested = {name: value for name, value in metrics.items() if name.startswith("test/")}
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger | MLFlowLogger) and tested:
            logger.log_metrics(tested, trainer.global_step)
        if isinstance(logger, TensorBoardLogger):
            _compare(Path(logger.log_dir), _axes(folder), metrics, trainer.global_step)
        elif isinstance(logger, WandbLogger):
            for title, rows in tables(folder).items():
                logger.log_table(
                    title, ["", *next(iter(rows.values()))], [[k, *row.values()] for k, row in rows.items()]
                )
            logger.experiment.finish()


def _compare(folder: Path, axes: dict[str, Any], metrics: dict[str, float], step: int) -> None:
    """For TensorBoard's HParams, in a file that replaces that of the run's earlier end: of two the first would count.

    The file has a writer of its own: Lightning's is closed, and once more opened purges what a resumed run has written.
    """
    for earlier in folder.glob(f"*{COMPARED_IN}"):
        earlier.unlink()
    last = {k: v for k, v in metrics.items() if k.endswith(COMPARED) or k.startswith(("test/", "validation/"))}
    with SummaryWriter(folder, filename_suffix=COMPARED_IN) as writer:
        for summary in hparams(axes, last):  # type: ignore[no-untyped-call]
            writer.file_writer.add_summary(summary, step)
        for name, value in last.items():
            writer.add_scalar(name, value, step)


def _axes(folder: Path) -> dict[str, Any]:
    """The keys of a run that TensorBoard compares it by, as plain values."""
    given = {word.lstrip("+~").partition("=")[0] for word in read_json(folder / "overrides.json") or []}
    keys = {k: v for k, v in read_config(folder).items() if k in AXES or (k in given and not k.startswith(NO_AXES))}
    return {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in keys.items()}


def _steps(trainer: L.Trainer | None) -> dict[str, int]:
    """Optimiser steps that are done, and that are to be done."""
    return (
        {"step": 0, "steps": 0} if trainer is None else {"step": trainer.global_step, "steps": int(trainer.max_steps)}
    )


def _write(folder: Path, summary: dict[str, Any]) -> None:
    with written_whole(folder / SUMMARY) as aside:
        aside.write_text(json.dumps(summary, indent=2) + "\n")
