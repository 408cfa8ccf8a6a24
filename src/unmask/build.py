"""From the composed config to objects, in the order data flows. The only reader of the config."""

import logging
import math
import netrc
import os
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as L
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unmask.backbone import Backbone
from unmask.callbacks.checkpointing import Checkpointing
from unmask.data.source import Source
from unmask.data.stream import Stream, Subset
from unmask.errors import ConfigError
from unmask.masking.select import num_visible
from unmask.masking.strategy import MaskStrategy
from unmask.modality.base import Modality
from unmask.modality.speech import RATE
from unmask.nn.block import Style
from unmask.nn.encoder import Encoder
from unmask.objective.base import Objective
from unmask.run import MaskAuditRun, Pretraining, StatisticsRun
from unmask.training.checkpoint import AtomicCheckpointIO, newest_checkpoint
from unmask.training.csv_logger import CSVLogger
from unmask.training.data import Buckets, PretrainData
from unmask.training.duration import to_steps
from unmask.training.folder import open_folder, public, write_record
from unmask.training.module import PretrainModule
from unmask.training.precision import resolve_precision

RUN_FOLDER = "UNMASK_RUN_FOLDER"  # tells the other ranks of a run where it lies


def build_pretraining(cfg: DictConfig) -> Pretraining:
    """Everything that can be wrong with a config is said here, before training starts.

    Raises:
        ConfigError: it cannot be built.
    """
    _quiet()
    torch.manual_seed(cfg.seed)  # initial weights; everything later is addressed
    modality, masking = build_sample_side(cfg)
    train, test = (build_source(cfg, split) for split in ("train", "test"))
    batch = build_batch(cfg, train)
    steps = build_length(cfg, len(train), batch)
    phases = {
        key: _steps(cfg, f"scheduler.{key}", len(train), batch, steps)
        for key in ("warmup", "decay")
        if key in cfg.scheduler
    }
    schedule = instantiate(_arguments(cfg.scheduler), peak=learning_rate(cfg, batch), total=steps, **phases)
    backbone = Backbone(modality, _encoder(cfg), cfg.model.class_token)
    given = (
        {"tau_steps": _steps(cfg, "objective.tau_steps", len(train), batch, steps)}
        if "tau_steps" in cfg.objective
        else {}
    )
    objective = _create(cfg.objective, backbone=backbone, **given)

    callbacks = build_callbacks(cfg, len(train), batch, steps)
    precision = resolve_precision(cfg.precision.name, _device_type(cfg))
    if precision == "16-mixed" and "fused" in cfg.optimizer:
        cfg.optimizer.fused = False  # a fused step unscales by itself, too late for clipping and for the logged norm
    folder = run_folder(cfg)
    trainer = build_trainer(cfg, folder, steps, precision, callbacks)
    trainer.accumulate_grad_batches = _accumulation(cfg, batch, trainer.world_size)
    module = PretrainModule(
        objective,
        masking,
        make_optimizer=_optimizer(cfg),
        weight_decay=cfg.optimizer.weight_decay,
        layer_decay=cfg.optimizer.layer_decay,
        decay_vectors=cfg.optimizer.decay_vectors,
        learning_rate=schedule,
        seed=cfg.seed,
    )
    try:
        module.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {error}. See conf/optimizer/{cfg.optimizer.name}.yaml.") from error
    buckets = None if cfg.data.get("batch_seconds") is None else Buckets(_seconds(cfg, train), cfg.data.bucket_steps)
    repeats = cfg.data.get("repeats", 1)
    if buckets is not None and repeats > 1:
        raise ConfigError("data.repeats does not go with data.batch_seconds, which sorts single samples. Drop one.")
    data = PretrainData(train, test, modality, cfg.seed, batch, cfg.data.num_workers, buckets, repeats)
    checkpoint = newest_checkpoint(folder) if cfg.resume else None
    start = _step_of(checkpoint)
    if start >= steps and (folder / "backbone" / "config.json").exists():
        raise ConfigError(
            f"resume={folder} stands at step {start} of {steps}: it is done. "
            f"To train on, give a longer trainer.max_steps, such as trainer.max_steps={2 * steps}."
        )
    data.stream[start * batch]  # a source whose samples cannot be read fails here

    if trainer.is_global_zero:  # from here on the run exists
        open_folder(folder, resumed=cfg.resume is not None)
        write_record(folder, cfg, HydraConfig.get().overrides.task)
    trainer.loggers = build_loggers(cfg, folder, start)
    checkpointing = next(c for c in callbacks.values() if isinstance(c, Checkpointing))
    return Pretraining(
        trainer, module, data, checkpointing, folder, checkpoint, tuple(describe(cfg, trainer, batch, steps))
    )


def build_trainer(
    cfg: DictConfig, folder: Path, steps: int, precision: str, callbacks: dict[str, L.Callback]
) -> L.Trainer:
    """Lightning's, with what is ours switched off: its loggers come later, its checkpoints, bar and sampler never."""
    return L.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=cfg.trainer.devices,
        precision=precision,  # type: ignore[arg-type]
        max_steps=steps,
        max_epochs=-1,  # the stream has no end; epochs are ours to count
        gradient_clip_val=cfg.trainer.gradient_clip,
        detect_anomaly=cfg.trainer.detect_anomaly,
        profiler=cfg.trainer.profiler,
        callbacks=list(callbacks.values()),
        logger=False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def build_mask_audit(cfg: DictConfig) -> MaskAuditRun:
    """The configured strategy on the configured grid, without data."""
    modality, masking = build_sample_side(cfg)
    folder = run_folder(cfg, suffix="_mask_audit")
    open_folder(folder, resumed=False)
    return MaskAuditRun(masking, modality.grid, cfg.seed, folder)


def build_statistics(cfg: DictConfig) -> StatisticsRun:
    """The training samples as probes see them, and the modality that knows their values."""
    if "mean" not in cfg.modality:
        raise ConfigError(
            f"data_statistics=true: modality={cfg.modality.name} has no mean and deviation to measure. Train at once."
        )
    if cfg.modality.mean is None:
        cfg.modality.mean, cfg.modality.std = [0.0], [1.0]
    modality = _create(cfg.modality)
    stream = Stream(build_source(cfg, "train"), modality.transform(train=False), cfg.seed)
    return StatisticsRun(modality, stream, cfg.data.num_workers)


class Trained(NamedTuple):
    """A run to ask.

    Attributes:
        objective: as its newest checkpoint has it, in eval mode.
        masking: its strategy.
        kind: of samples: images, videos, sounds or texts.
        seed: of masks.
    """

    objective: Objective
    masking: MaskStrategy
    kind: str
    seed: int


def build_trained(run: Path, options: dict[str, str]) -> Trained:
    """A run as its newest checkpoint has it, with `seed` or keys of its mask changed.

    Raises:
        ConfigError: there is no run, it has no checkpoint, or an option is not possible.
    """
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run} holds no config.yaml. Give the folder of a run.")
    cfg = OmegaConf.load(run / "config.yaml")
    if "kind" not in cfg.modality:
        raise ConfigError(f"{run} is of an older version. Look at it with that one.")
    known = ["seed", *(f"mask.{key}" for key in cfg.mask if key not in ("name", "_target_"))]
    for key, value in options.items():
        if key not in known:
            raise ConfigError(f"{key}={value}: of a trained model only {', '.join(known)} can be changed.")
        try:
            OmegaConf.update(cfg, key, OverridesParser.create().parse_override(f"{key}={value}").value())
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"{key}={value} is no value. Write a number or a list.") from error
    checkpoint = newest_checkpoint(run)
    if checkpoint is None:
        raise ConfigError(f"{run} holds no checkpoint. Give a run that has trained for a while.")
    given = {"tau_steps": 1} if "tau_steps" in cfg.objective else {}
    objective: Objective = _create(cfg.objective, backbone=Backbone.load(run), **given)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    objective.load_state_dict({k.removeprefix("objective."): v for k, v in state.items() if k.startswith("objective.")})
    return Trained(objective.eval(), _create(cfg.mask), cfg.modality.kind, cfg.seed)


def build_sample_side(cfg: DictConfig) -> tuple[Modality, MaskStrategy]:
    """What a sample is and how it is hidden; checks that the one leaves the other something to do."""
    modality, masking = _create(cfg.modality), _create(cfg.mask)
    num_visible(math.prod(modality.grid), masking.ratio)
    masking.draw(cfg.seed, torch.zeros(1, dtype=torch.int64), modality.grid)
    return modality, masking


def build_source(cfg: DictConfig, split: str) -> Source:
    """The samples of `train` or `test`."""
    source = _create(cfg.data.source, split=split)
    return source if cfg.data.limit is None or split != "train" else Subset(source, cfg.data.limit, cfg.seed)


def build_batch(cfg: DictConfig, train: Source) -> int:
    """Samples an optimiser step over all devices and accumulation; where given in seconds, as many as last so long."""
    if cfg.data.get("batch_seconds") is None:
        return int(cfg.data.global_batch_size)
    mean = float(_seconds(cfg, train).mean())
    if mean == 0:
        raise ConfigError(f"data.root={cfg.data.root}: no clip in it can be read. Give a folder of whole audio files.")
    return max(1, round(cfg.data.batch_seconds / mean))


def build_length(cfg: DictConfig, samples: int, batch: int) -> int:
    """Optimiser steps of the whole training."""
    if cfg.trainer.max_steps is not None:
        return int(cfg.trainer.max_steps)
    steps = to_steps("trainer.duration", cfg.trainer.duration, samples, batch)
    if steps < 1:
        raise ConfigError(f"trainer.duration={cfg.trainer.duration} is less than one optimiser step. Train longer.")
    return steps


def build_callbacks(cfg: DictConfig, samples: int, batch: int, steps: int) -> dict[str, L.Callback]:
    """In the order of the config; `every` and `grace` become optimiser steps."""
    callbacks = {}
    for name, node in cfg.callbacks.items():
        if node is None:
            continue
        given = {}
        if "every" in node:
            every = _steps(cfg, f"callbacks.{name}.every", samples, batch, steps)
            if every < 1 and "%" not in str(node.every):
                raise ConfigError(f"callbacks.{name}.every={node.every} is no interval. Give at least one step.")
            given["every"] = max(1, every)  # a share of few steps
        if "grace" in node:
            given["grace"] = _steps(cfg, f"callbacks.{name}.grace", samples, batch, steps)
        callbacks[str(name)] = _create(node, **given)
    for needed in ("metrics", "progress", "checkpointing"):
        if needed not in callbacks:
            raise ConfigError(f"callbacks.{needed}=null: the run cannot do without it. Drop another callback.")
    return callbacks


def build_loggers(cfg: DictConfig, folder: Path, start: int) -> list[Logger]:
    """metrics.csv always, and those of the config."""
    loggers: list[Logger] = [CSVLogger(folder, start)]
    for node in cfg.logger.values():
        if node is None:
            continue
        given: dict[str, Any] = {"save_dir": str(folder)}
        if node._target_.endswith("WandbLogger"):
            given |= {"offline": not _has_wandb_key(), "id": _run_id(folder), "resume": "allow"}
            os.environ.setdefault("WANDB_SILENT", "true")
            os.environ.setdefault("WANDB_DATA_DIR", str(folder))  # else artifacts are staged outside of the run
        elif node._target_.endswith("TensorBoardLogger"):
            given |= {"purge_step": start + 1} if start else {}  # step `start` itself is not run again
        logger = _create(node, **given)
        assert isinstance(logger, Logger)
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(public(cfg))
        loggers.append(logger)
    return loggers


def learning_rate(cfg: DictConfig, batch: int) -> float:
    """The applied peak: given, or base x global batch / 256 (arXiv 1706.02677, as in MAE)."""
    if cfg.optimizer.lr is not None:
        return float(cfg.optimizer.lr)
    return float(cfg.optimizer.base_lr * batch / 256)


def describe(cfg: DictConfig, trainer: L.Trainer, batch: int, steps: int) -> list[str]:
    """What will run, and for a paper's recipe each setting that is not the paper's."""
    micro = batch / (trainer.accumulate_grad_batches * trainer.world_size)
    probability = cfg.mask.get("probability")  # decides instead of the ratio where there is one
    hiding = f"hiding {cfg.mask.ratio:.0%}" if probability is None else f"of probability {probability:g}"
    lines = [
        f"{cfg.objective.name} on {cfg.data.name}, {cfg.model.name} {cfg.modality.name} model, "
        f"{cfg.mask.name} mask {hiding}, {trainer.precision}, {steps} steps",
        f"batch {batch} = {trainer.world_size} device(s) x {micro:.4g} samples x "
        f"{trainer.accumulate_grad_batches} accumulated; learning rate {learning_rate(cfg, batch):.3g}",
    ]
    if cfg.paper is not None:
        if not math.isclose(learning_rate(cfg, batch), cfg.paper.learning_rate):
            lines.append(f"  differs from the paper: learning rate {learning_rate(cfg, batch):.3g}")
        lines.insert(
            2, f"paper: {cfg.paper.source}; batch {cfg.paper.batch}, learning rate {cfg.paper.learning_rate:g}"
        )
        for key, published in cfg.paper.settings.items():
            here = OmegaConf.select(cfg, str(key))
            if here != published:
                lines.append(f"  differs from the paper: {key}={here}, published {published}")
    return lines


def run_folder(cfg: DictConfig, suffix: str = "") -> Path:
    """Where the run lies: as told, else by what it is and when it began."""
    if "LOCAL_RANK" in os.environ and RUN_FOLDER in os.environ:  # another rank of a run that has its folder
        return Path(os.environ[RUN_FOLDER])
    folder = _choose_folder(cfg, suffix)
    os.environ[RUN_FOLDER] = str(folder)
    return folder


def _choose_folder(cfg: DictConfig, suffix: str) -> Path:
    if cfg.resume is not None or cfg.run_dir is not None:
        return Path(cfg.resume or cfg.run_dir)
    name = f"{cfg.objective.name}_{cfg.modality.name}_{cfg.model.name}_{cfg.mask.name}{cfg.mask.ratio * 100:g}{suffix}"
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        return Path(hydra_config.sweep.dir) / f"{hydra_config.job.num:03d}_{name}"
    folder = Path(cfg.paths.outputs) / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    count = 1
    while folder.exists():  # two runs within a second
        count += 1
        folder = folder.with_name(f"{folder.name.partition('.')[0]}.{count}")
    return folder


def _create(node: DictConfig, **given: Any) -> Any:
    """The object of a config node with a `_target_`; its `name` and `kind` are for people and checks.

    Raises:
        ConfigError: as the constructor, or for an argument that it does not take.
    """
    try:
        return instantiate(_arguments(node), **given)
    except InstantiationException as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from error
        if isinstance(error.__cause__, TypeError | ValueError | ModuleNotFoundError | AttributeError):
            raise ConfigError(f"{node._target_}: {error.__cause__}. See the file of this option in conf/.") from error
        raise


def _arguments(node: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    names = ("kind",) if "Logger" in plain["_target_"] else ("name", "kind")
    return {str(key): value for key, value in plain.items() if key not in names}


def _optimizer(cfg: DictConfig) -> Any:
    mine = ("base_lr", "lr", "weight_decay", "layer_decay", "decay_vectors")
    return _create(OmegaConf.create({k: v for k, v in cfg.optimizer.items() if k not in mine}))


def _encoder(cfg: DictConfig) -> Encoder:
    style = {key: value for key, value in cfg.encoder.items() if key != "name"}
    return Encoder(cfg.model.width, cfg.model.depth, cfg.model.heads, cfg.model.mlp_ratio, Style(**style))


def _steps(cfg: DictConfig, key: str, samples: int, batch: int, steps: int) -> int:
    return to_steps(key, OmegaConf.select(cfg, key), samples, batch, steps)


def _seconds(cfg: DictConfig, train: Source) -> np.ndarray:
    """The length of each training clip, cropped."""
    lengths = getattr(train, "lengths", None)
    if lengths is None:
        raise ConfigError(
            f"data.batch_seconds={cfg.data.batch_seconds}: the samples of data={cfg.data.name} have no length in "
            "seconds. Use data.global_batch_size."
        )
    return np.minimum(np.asarray(lengths) / RATE, cfg.data.crop_seconds)


def _accumulation(cfg: DictConfig, batch: int, devices: int) -> int:
    """Micro-batches that a device goes through in an optimiser step."""
    if cfg.data.get("batch_seconds") is not None:
        parts = math.ceil(cfg.data.batch_seconds / (cfg.data.micro_batch_seconds or cfg.data.batch_seconds) / devices)
        if parts * devices > batch:
            raise ConfigError(
                f"data.micro_batch_seconds={cfg.data.micro_batch_seconds} cuts a step of {batch} clips into "
                f"{parts * devices} parts. Give more seconds, or a larger data.batch_seconds."
            )
        return parts
    if batch % devices:
        raise ConfigError(
            f"data.global_batch_size={batch} cannot be shared by {devices} devices. "
            f"Choose a multiple of {devices}, such as {math.ceil(batch / devices) * devices}."
        )
    micro = cfg.data.micro_batch_size or batch // devices
    if batch % (micro * devices):
        fitting = max(m for m in range(1, min(micro, batch // devices) + 1) if (batch // devices) % m == 0)
        raise ConfigError(
            f"data.micro_batch_size={micro} x {devices} device(s) does not divide data.global_batch_size={batch}. "
            f"Choose {fitting}."
        )
    return int(batch // (micro * devices))


def _device_type(cfg: DictConfig) -> str:
    if cfg.trainer.accelerator in ("gpu", "cuda"):
        if not torch.cuda.is_available():
            raise ConfigError(
                f"trainer.accelerator={cfg.trainer.accelerator}: torch finds no GPU here. Use trainer.accelerator=auto."
            )
        return "cuda"
    if cfg.trainer.accelerator != "auto":
        return str(cfg.trainer.accelerator)
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _step_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.stem.partition("=")[2])


def _has_wandb_key() -> bool:
    """Whether W&B could log in; the key itself stays where it is."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def _run_id(folder: Path) -> str:
    """One W&B run for one folder, also after a resume."""
    path = folder / "wandb_id"
    if not path.exists():
        path.write_text(os.urandom(4).hex())
    return path.read_text()


def _quiet() -> None:
    """Lightning's advice that does not fit here: the stream is endless, and workers are the user's choice."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for words in ("does not have many workers", "number of training batches", "treespec", "in eval mode at the start"):
        warnings.filterwarnings("ignore", f".*{words}.*")
