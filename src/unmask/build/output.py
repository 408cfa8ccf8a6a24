"""Where a run lies and who is told of it."""

import netrc
import os
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from omegaconf import DictConfig

from unmask.build.create import create
from unmask.errors import ConfigError
from unmask.modality.base import Modality
from unmask.records import SWEEP
from unmask.training.checkpoint import newest_checkpoint, step_of
from unmask.training.csv_logger import CSVLogger
from unmask.training.folder import check_same_data, open_folder, public, write_record

RUN_FOLDER = "UNMASK_RUN_FOLDER"  # tells the other ranks of a run where it lies


def run_folder(cfg: DictConfig, name: str) -> Path:
    """Where the run lies: as told, else by what it is, which is its name, and when it began."""
    if "LOCAL_RANK" in os.environ and RUN_FOLDER in os.environ:  # another rank of a run that has its folder
        return Path(os.environ[RUN_FOLDER])
    folder = _choose_folder(cfg, name)
    os.environ[RUN_FOLDER] = str(folder)
    return folder


def _choose_folder(cfg: DictConfig, name: str) -> Path:
    if cfg.resume is not None or cfg.run_dir is not None:
        return Path(cfg.resume or cfg.run_dir)
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        return Path(hydra_config.sweep.dir) / f"{hydra_config.job.num:03d}_{name}"
    folder = Path(cfg.paths.outputs) / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    count = 1
    while folder.exists():  # two runs within a second
        count += 1
        folder = folder.with_name(f"{folder.name.partition('.')[0]}.{count}")
    return folder


def where_to_go_on(cfg: DictConfig, folder: Path, steps: int, finished: Path, ended: Path) -> Path | None:
    """The newest checkpoint of a run that is resumed, else None.

    Args:
        cfg: of the run.
        folder: the run's, or of one of two that are compared.
        steps: of the whole training.
        finished: a file that a whole run has written.
        ended: a file that is written once nothing is left to do after the last step.

    Raises:
        ConfigError: it is done.
    """
    checkpoint = newest_checkpoint(folder) if cfg.resume else None
    start = step_of(checkpoint)
    if start < steps:
        return checkpoint
    if finished.exists():
        raise ConfigError(
            f"resume={folder} stands at step {start} of {steps}: it is done. "
            f"To train on, give a longer trainer.max_steps, such as trainer.max_steps={2 * steps}."
        )
    # Killed after the last step: what comes after it comes after training, of which the last stretch is done again.
    return checkpoint if ended.exists() else newest_checkpoint(folder, before=steps)


def begin(cfg: DictConfig, trainer: L.Trainer, folder: Path, start: int, samples: int, modality: Modality) -> None:
    """Make the run folder, write down what the run is and learns from, and give the trainer its loggers.

    Raises:
        ConfigError: the folder cannot be used, a resumed run's data has changed, or a logger is not installed.
    """
    if "mlflow" in cfg.logger and find_spec("mlflow") is None:
        raise ConfigError("logger=mlflow needs MLflow. Run `pip install 'unmask[mlflow]'`, or take another logger.")
    if trainer.is_global_zero:
        open_folder(folder, resumed=cfg.resume is not None)
        check_same_data(folder, cfg.data.name, samples, modality.settings)
        write_record(folder, cfg, HydraConfig.get().overrides.task)
    trainer.loggers = build_loggers(cfg, folder, start)


def build_loggers(cfg: DictConfig, folder: Path, start: int) -> list[Logger]:
    """metrics.csv always, and those of the config."""
    loggers: list[Logger] = [CSVLogger(folder, start)]
    for node in cfg.logger.values():
        if node is None:
            continue
        given: dict[str, Any] = {"save_dir": str(folder)}
        if node._target_.endswith("WandbLogger"):
            given |= {"offline": not _has_wandb_key(), "id": _run_id(folder), "resume": "allow", **_place(cfg, folder)}
            given |= {"reinit": "create_new"}  # else what compare=scratch trains next writes into the run before it
            os.environ.setdefault("WANDB_SILENT", "true")
            os.environ.setdefault("WANDB_DATA_DIR", str(folder))  # else artifacts are staged outside of the run
        elif node._target_.endswith("MLFlowLogger"):
            given |= _mlflow_run(cfg, folder)
        elif node._target_.endswith("TensorBoardLogger"):
            given |= {"purge_step": start + 1} if start else {}  # step `start` itself is not run again
        logger = create(node, **given)
        assert isinstance(logger, Logger)
        if not (isinstance(logger, TensorBoardLogger) or given.get("run_id")):  # MLflow's parameters are for good
            logger.log_hyperparams(public(cfg))
        if isinstance(logger, MLFlowLogger) and logger.run_id is not None:  # None on other ranks
            (folder / "mlflow_id").write_text(logger.run_id)
        loggers.append(logger)
    return loggers


def _place(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Where W&B shows the run: arms of a sweep as a group, by the names of their folders."""
    kind = "pretrain" if "objective" in cfg else "finetune"
    sweep = folder.parent.name if (folder.parent / SWEEP).is_file() else None
    name = folder.name if sweep else "/".join(folder.absolute().parts[-2:])
    given = {"name": name, "group": sweep, "job_type": kind}
    return {key: value for key, value in given.items() if cfg.logger.wandb.get(key) is None}


def _mlflow_run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Which run of MLflow a folder is, and its name; the place of its database is made."""
    kind, _, file = cfg.logger.mlflow.tracking_uri.partition(":///")
    if kind == "sqlite":
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    path = folder / "mlflow_id"
    name = cfg.logger.mlflow.run_name or "/".join(folder.absolute().parts[-2:])
    return {"run_id": path.read_text() if path.exists() else None, "run_name": name}


def _has_wandb_key() -> bool:
    """Whether W&B could log in; the key itself stays where it is."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def _run_id(folder: Path) -> str:
    """One W&B run for one folder, also after a resume; which one, W&B's agent says where it started the program."""
    path = folder / "wandb_id"
    if not path.exists():
        given = os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None
        path.write_text(given or os.urandom(4).hex())
    return path.read_text()
