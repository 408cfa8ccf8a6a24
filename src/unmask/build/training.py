"""What every training needs: samples, batches, steps, callbacks, the trainer."""

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from hydra.utils import instantiate
from lightning.pytorch.strategies import Strategy
from omegaconf import DictConfig

from unmask.build.create import arguments, create, optimizer_factory, steps_of
from unmask.data.source import Source
from unmask.data.stream import Subset
from unmask.errors import ConfigError
from unmask.modality.speech import RATE
from unmask.training.checkpoint import AtomicCheckpointIO
from unmask.training.data import Buckets
from unmask.training.duration import to_steps
from unmask.training.module import Optimization, TrainingModule
from unmask.training.precision import resolve_precision
from unmask.training.sharding import sharded_strategy


def build_source(cfg: DictConfig, split: str, **given: Any) -> Source:
    """The samples of `train` or `test`; `given` wins over what the config says."""
    source = create(cfg.data.source, split=split, **given)
    return source if cfg.data.limit is None or split != "train" else Subset(source, cfg.data.limit, cfg.seed)


def build_batch(cfg: DictConfig, train: Source, crop: float | None = None) -> int:
    """Samples an optimiser step over all devices and accumulation; where given in seconds, as many as last so long."""
    if cfg.data.get("batch_seconds") is None:
        return int(cfg.data.global_batch_size)
    mean = float(clip_seconds(cfg, train, crop).mean())
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


def learning_rate(cfg: DictConfig, batch: int) -> float:
    """The applied peak: given, or base x global batch / 256 (arXiv 1706.02677, as in MAE)."""
    if cfg.optimizer.lr is not None:
        return float(cfg.optimizer.lr)
    return float(cfg.optimizer.base_lr * batch / 256)


def build_callbacks(cfg: DictConfig, samples: int, batch: int, steps: int) -> dict[str, L.Callback]:
    """In the order of the config; `every` and `grace` become optimiser steps."""
    callbacks = {}
    for name, node in cfg.callbacks.items():
        if node is None or "_target_" not in node:  # a debug mode sets some that fine-tuning does not have
            continue
        given = {}
        if "every" in node:
            every = steps_of(cfg, f"callbacks.{name}.every", samples, batch, steps)
            if every < 1 and "%" not in str(node.every):
                raise ConfigError(f"callbacks.{name}.every={node.every} is no interval. Give at least one step.")
            given["every"] = max(1, every)  # a share of few steps
        if "grace" in node:
            given["grace"] = steps_of(cfg, f"callbacks.{name}.grace", samples, batch, steps)
        callbacks[str(name)] = create(node, **given)
    for needed in ("metrics", "progress", "checkpointing"):
        if needed not in callbacks:
            raise ConfigError(f"callbacks.{needed}=null: the run cannot do without it. Drop another callback.")
    return callbacks


def build_optimization(cfg: DictConfig, samples: int, batch: int, steps: int) -> Optimization:
    """Optimiser and learning rate."""
    phases = {
        key: steps_of(cfg, f"scheduler.{key}", samples, batch, steps)
        for key in ("warmup", "decay")
        if key in cfg.scheduler
    }
    schedule = instantiate(arguments(cfg.scheduler), peak=learning_rate(cfg, batch), total=steps, **phases)
    if _precision(cfg) == "16-mixed" and "fused" in cfg.optimizer:
        cfg.optimizer.fused = False  # a fused step unscales by itself, too late for clipping and for the logged norm
    how = cfg.optimizer
    decays = how.weight_decay, how.layer_decay, how.decay_vectors, how.decay_tokens
    return Optimization(optimizer_factory(cfg), schedule, *decays)


def check_optimizer(cfg: DictConfig, module: TrainingModule) -> None:
    """Make the optimiser once.

    Raises:
        ConfigError: it does not take what the config gives it.
    """
    try:
        module.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer: {error}. See conf/optimizer/{cfg.optimizer.name}.yaml.") from error


def build_trainer(cfg: DictConfig, folder: Path, batch: int, steps: int, callbacks: dict[str, L.Callback]) -> L.Trainer:
    """Lightning's, with what is ours switched off: its loggers come later, its checkpoints, bar and sampler never."""
    trainer = L.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=cfg.trainer.devices,
        strategy=_strategy(cfg),
        precision=_precision(cfg),  # type: ignore[arg-type]
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
    trainer.accumulate_grad_batches = _accumulation(cfg, batch, trainer.world_size)
    return trainer


def _strategy(cfg: DictConfig) -> str | Strategy:
    """Lightning's name of it, or one that splits the model."""
    if cfg.trainer.strategy != "fsdp":
        return str(cfg.trainer.strategy)
    if _precision(cfg) == "16-mixed":
        raise ConfigError("precision=fp16 does not go with trainer.strategy=fsdp. Use precision=bf16 or fp32.")
    devices = cfg.trainer.devices
    return sharded_strategy(max(1, torch.cuda.device_count()) if devices == "auto" else devices)


def _precision(cfg: DictConfig) -> str:
    return resolve_precision(cfg.precision.name, _device_type(cfg))


def build_buckets(cfg: DictConfig, train: Source, crop: float | None = None) -> Buckets | None:
    """How clips are batched by length; None where batches are counted in samples."""
    if cfg.data.get("batch_seconds") is None:
        return None
    if cfg.data.get("repeats", 1) > 1:
        raise ConfigError("data.repeats does not go with data.batch_seconds, which sorts single samples. Drop one.")
    return Buckets(clip_seconds(cfg, train, crop), cfg.data.bucket_steps)


def clip_seconds(cfg: DictConfig, train: Source, crop: float | None = None) -> np.ndarray:
    """The length of each training clip, cropped to so many seconds; None for `data.crop_seconds`."""
    lengths = getattr(train, "lengths", None)
    if lengths is None:
        raise ConfigError(
            f"data.batch_seconds={cfg.data.batch_seconds}: the samples of data={cfg.data.name} have no length in "
            "seconds. Use data.global_batch_size."
        )
    return np.minimum(np.asarray(lengths) / RATE, cfg.data.crop_seconds if crop is None else crop)


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
