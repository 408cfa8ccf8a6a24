"""Pretraining from the composed config, in the order data flows."""

import math

import lightning.pytorch as L
import torch
from omegaconf import DictConfig

from unmask.backbone import Backbone
from unmask.build.create import build_encoder, create, quiet, steps_of
from unmask.build.output import begin, run_folder, where_to_go_on
from unmask.build.paper import beside_the_paper
from unmask.build.training import (
    build_batch,
    build_buckets,
    build_callbacks,
    build_length,
    build_optimization,
    build_source,
    build_trainer,
    check_optimizer,
    learning_rate,
)
from unmask.callbacks.checkpointing import Checkpointing
from unmask.chain import check_chain
from unmask.data.stream import Stream
from unmask.errors import ConfigError
from unmask.masking.select import num_visible
from unmask.masking.strategy import MaskStrategy
from unmask.modality.base import Modality
from unmask.run import MaskAuditRun, Pretraining, StatisticsRun
from unmask.training.checkpoint import step_of
from unmask.training.data import TrainingData
from unmask.training.folder import DONE, open_folder
from unmask.training.module import PretrainModule


def build_pretraining(cfg: DictConfig) -> Pretraining:
    """Everything that can be wrong with a config is said here, before training starts.

    Raises:
        ConfigError: it cannot be built.
    """
    quiet()
    check_chain(cfg.then)
    torch.manual_seed(cfg.seed)  # initial weights; everything later is addressed
    modality, masking = build_sample_side(cfg)
    train, test = (build_source(cfg, split) for split in ("train", "test"))
    batch = build_batch(cfg, train)
    steps = build_length(cfg, len(train), batch)
    optimization = build_optimization(cfg, len(train), batch, steps)
    backbone = Backbone(modality, build_encoder(cfg), cfg.model.class_token)
    given = (
        {"tau_steps": steps_of(cfg, "objective.tau_steps", len(train), batch, steps)}
        if "tau_steps" in cfg.objective
        else {}
    )
    objective = create(cfg.objective, backbone=backbone, **given)

    callbacks = build_callbacks(cfg, len(train), batch, steps)
    folder = run_folder(cfg, _name(cfg))
    trainer = build_trainer(cfg, folder, batch, steps, callbacks)
    module = PretrainModule(objective, masking, optimization, cfg.seed)
    check_optimizer(cfg, module)
    buckets, repeats = build_buckets(cfg, train), cfg.data.get("repeats", 1)
    data = TrainingData(train, test, modality, cfg.seed, batch, cfg.data.num_workers, buckets, repeats)
    checkpoint = where_to_go_on(cfg, folder, steps, finished=folder / DONE, ended=folder / DONE)
    start = step_of(checkpoint)
    data.stream[start * batch]  # a source whose samples cannot be read fails here
    begin(cfg, trainer, folder, start, len(train), modality)  # from here on the run exists
    checkpointing = next(c for c in callbacks.values() if isinstance(c, Checkpointing))
    return Pretraining(
        trainer,
        module,
        data,
        checkpointing,
        folder,
        checkpoint,
        tuple(describe(cfg, trainer, batch, steps)),
        list(cfg.then),
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
    folder = run_folder(cfg, f"{_name(cfg)}_mask_audit")
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


def _name(cfg: DictConfig) -> str:
    return f"{cfg.objective.name}_{cfg.modality.name}_{cfg.model.name}_{cfg.mask.name}{cfg.mask.ratio * 100:g}"


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
    return lines + beside_the_paper(cfg, batch)
