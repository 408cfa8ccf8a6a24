"""Pretraining from the composed config, in the order data flows."""

import math

import lightning.pytorch as L
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from unmask.backbone import Backbone
from unmask.build.create import arguments, build_encoder, create, optimizer_factory, quiet, steps_of
from unmask.build.output import build_loggers, run_folder, step_of
from unmask.build.training import (
    accumulation,
    build_batch,
    build_callbacks,
    build_length,
    build_source,
    build_trainer,
    clip_seconds,
    device_type,
    learning_rate,
)
from unmask.callbacks.checkpointing import Checkpointing
from unmask.data.stream import Stream
from unmask.errors import ConfigError
from unmask.masking.select import num_visible
from unmask.masking.strategy import MaskStrategy
from unmask.modality.base import Modality
from unmask.run import MaskAuditRun, Pretraining, StatisticsRun
from unmask.training.checkpoint import newest_checkpoint
from unmask.training.data import Buckets, PretrainData
from unmask.training.folder import open_folder, write_record
from unmask.training.module import PretrainModule
from unmask.training.precision import resolve_precision


def build_pretraining(cfg: DictConfig) -> Pretraining:
    """Everything that can be wrong with a config is said here, before training starts.

    Raises:
        ConfigError: it cannot be built.
    """
    quiet()
    torch.manual_seed(cfg.seed)  # initial weights; everything later is addressed
    modality, masking = build_sample_side(cfg)
    train, test = (build_source(cfg, split) for split in ("train", "test"))
    batch = build_batch(cfg, train)
    steps = build_length(cfg, len(train), batch)
    phases = {
        key: steps_of(cfg, f"scheduler.{key}", len(train), batch, steps)
        for key in ("warmup", "decay")
        if key in cfg.scheduler
    }
    schedule = instantiate(arguments(cfg.scheduler), peak=learning_rate(cfg, batch), total=steps, **phases)
    backbone = Backbone(modality, build_encoder(cfg), cfg.model.class_token)
    given = (
        {"tau_steps": steps_of(cfg, "objective.tau_steps", len(train), batch, steps)}
        if "tau_steps" in cfg.objective
        else {}
    )
    objective = create(cfg.objective, backbone=backbone, **given)

    callbacks = build_callbacks(cfg, len(train), batch, steps)
    precision = resolve_precision(cfg.precision.name, device_type(cfg))
    if precision == "16-mixed" and "fused" in cfg.optimizer:
        cfg.optimizer.fused = False  # a fused step unscales by itself, too late for clipping and for the logged norm
    folder = run_folder(cfg)
    trainer = build_trainer(cfg, folder, steps, precision, callbacks)
    trainer.accumulate_grad_batches = accumulation(cfg, batch, trainer.world_size)
    module = PretrainModule(
        objective,
        masking,
        make_optimizer=optimizer_factory(cfg),
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
    buckets = None if cfg.data.get("batch_seconds") is None else Buckets(clip_seconds(cfg, train), cfg.data.bucket_steps)
    repeats = cfg.data.get("repeats", 1)
    if buckets is not None and repeats > 1:
        raise ConfigError("data.repeats does not go with data.batch_seconds, which sorts single samples. Drop one.")
    data = PretrainData(train, test, modality, cfg.seed, batch, cfg.data.num_workers, buckets, repeats)
    checkpoint = newest_checkpoint(folder) if cfg.resume else None
    start = step_of(checkpoint)
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


def build_sample_side(cfg: DictConfig) -> tuple[Modality, MaskStrategy]:
    """What a sample is and how it is hidden; checks that the one leaves the other something to do."""
    modality, masking = create(cfg.modality), create(cfg.mask)
    num_visible(math.prod(modality.grid), masking.ratio)
    masking.draw(cfg.seed, torch.zeros(1, dtype=torch.int64), modality.grid)
    return modality, masking


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
    modality = create(cfg.modality)
    stream = Stream(build_source(cfg, "train"), modality.transform(train=False), cfg.seed)
    return StatisticsRun(modality, stream, cfg.data.num_workers)


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
