"""What each key accepts, checked as soon as the config is composed: no torch here, so a mistake answers at once.

What needs more than one number (a patch and an image, a warm-up and a training) is checked where it is used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from unmask.errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """A test of one value, and in words what passes it."""

    accepts: Callable[[Any], bool]
    words: str


def _whole(least: int, what: str, optional: bool = False) -> Rule:
    def accepts(value: Any) -> bool:
        return (optional and value is None) or (type(value) is int and value >= least)

    return Rule(accepts, f"a whole number of {what}, at least {least}" + (", or null" if optional else ""))


def _odd(what: str) -> Rule:
    return Rule(lambda value: type(value) is int and value > 0 and value % 2 == 1, f"an odd number of {what}")


def _number(what: str, low: float, high: float = float("inf"), optional: bool = False, open_low: bool = False) -> Rule:
    def accepts(value: Any) -> bool:
        if value is None:
            return optional
        return type(value) in (int, float) and low <= value <= high and not (open_low and value == low)

    bounds = f"above {low:g}" if open_low else f"at least {low:g}"
    bounds += f" and at most {high:g}" if high < float("inf") else ""
    return Rule(accepts, f"{what}, {bounds}" + (", or null" if optional else ""))


def _choice(*options: Any) -> Rule:
    return Rule(lambda value: value in options, "one of " + ", ".join(map(str, options)))


def _side(value: Any) -> bool:
    sides = [value, value] if type(value) is int else list(value) if OmegaConf.is_list(value) else []
    return len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)


def _numbers(value: Any) -> bool:
    return value is None or (OmegaConf.is_list(value) and all(type(x) in (int, float) for x in value))


def _deviations(value: Any) -> bool:
    return value is None or (OmegaConf.is_list(value) and all(type(x) in (int, float) and x > 0 for x in value))


RULES = {
    "compare": _choice(None, "scratch"),
    "freeze": Rule(lambda v: v in ("none", "all") or (type(v) is int and v >= 0), "none, all, or a number of blocks"),
    "masking": _choice(True, False),
    "data.validation": _number("a share of the labels", 0, 0.5),
    "data.balanced": _choice(True, False),
    "input.image_size": Rule(lambda v: v is None or _side(v), "a whole number of pixels, or [height, width], or null"),
    "input.frames": _whole(1, "frames", optional=True),
    "input.fps": _number("frames a second", 0, optional=True, open_low=True),
    "input.seconds": _number("seconds", 0, optional=True, open_low=True),
    "input.crop_seconds": _number("seconds", 0, optional=True, open_low=True),
    "input.block_size": _whole(2, "tokens", optional=True),
    "input.crop_scale": _number("a share of the area", 0, 1, optional=True, open_low=True),
    "input.flip": _choice(None, True, False),
    "views.time": _whole(1, "stretches of time"),
    "views.space": _whole(1, "crops"),
    "input.mean": Rule(_numbers, "a list of numbers, one for each channel, or null"),
    "input.std": Rule(_deviations, "a list of numbers above 0, one for each channel, or null"),
    "augment.rand_augment": _number("a magnitude", 0, 10, optional=True),
    "augment.rand_augment_std": _number("a deviation of the magnitude", 0),
    "augment.erase": _number("a share of samples", 0, 1),
    "augment.time_stripe": _whole(0, "frames"),
    "augment.band_stripe": _whole(0, "bands"),
    "task.masks": _choice(True, False),
    "task.window": _whole(1, "tokens", optional=True),
    "task.channels": _whole(1, "channels"),
    "task.convolutions": _whole(1, "convolutions"),
    "task.box_width": _whole(1, "values"),
    "task.proposals": _whole(1, "boxes"),
    "task.sampled": _whole(2, "boxes"),
    "task.jitter": Rule(
        lambda v: OmegaConf.is_list(v) and len(v) == 2 and all(type(x) in (int, float) for x in v) and 0 < v[0] <= v[1],
        "two zooms above 0, the smaller one first",
    ),
    "task.least_score": _number("a score", 0, 1),
    "task.most": _whole(1, "predictions"),
    "data.bad_boxes": _choice("refuse", "drop"),
    "data.train_pictures": _whole(1, "pictures"),
    "data.test_pictures": _whole(1, "pictures"),
    "task.multi_label": _choice(True, False),
    "task.regression": _choice(True, False),
    "data.regression": _choice(True, False),
    "data.header": _choice(True, False),
    "data.classes": Rule(
        lambda v: v is None or (OmegaConf.is_list(v) and len(v) > 1), "a list of two or more, or null"
    ),
    "task.smoothing": _number("a share", 0, 0.99),
    "task.mixup": _number("the alpha of a Beta distribution", 0),
    "task.cutmix": _number("the alpha of a Beta distribution", 0),
    "task.mix_share": _number("a share of steps", 0, 1),
    "task.dropout": _number("a share of values", 0, 0.99),
    "task.head_std": _number("a deviation", 0),
    "task.channel_ratio": _number("a share of channels", 0, 1),
    "task.channel_length": _whole(1, "channels"),
    "task.beam": _whole(1, "hypotheses"),
    "task.test": _whole(1, "samples", optional=True),
    "callbacks.evaluation.batch_size": _whole(1, "samples"),
    "seed": Rule(lambda v: type(v) is int and 0 <= v < 2**63, "a whole number from 0 to 2**63 - 1"),
    "data_statistics": _choice(True, False),
    "mask_audit": _choice(True, False),
    "mask.ratio": _number("a share of hidden tokens", 0, 1),
    "mask.side": _odd("tokens"),
    "mask.adjust": _number("a share of the tokens", 0, 1),
    "mask.length": _whole(1, "tokens"),
    "mask.probability": _number("the wav2vec rule's p", 0, optional=True, open_low=True),
    "model.width": _whole(1, "values a token"),
    "model.depth": _whole(1, "blocks"),
    "model.heads": _whole(1, "attention heads"),
    "model.class_token": _choice(True, False),
    "model.mlp_ratio": _number("a multiple of the width", 0, open_low=True),
    "model.decoder.width": _whole(1, "values a token"),
    "model.decoder.depth": _whole(1, "blocks"),
    "model.decoder.heads": _whole(1, "attention heads"),
    "modality.patch_size": _whole(1, "pixels"),
    "modality.patch_bands": _whole(1, "mel bands"),
    "modality.crop_scale": _number("a share of the area", 0, 1, open_low=True),
    "modality.flip": _choice(True, False),
    "modality.crop_seconds": _number("seconds", 0, open_low=True),
    "modality.conv_width": _whole(1, "channels", optional=True),
    "modality.position_layers": _whole(1, "layers"),
    "modality.position_kernel": _odd("tokens"),
    "modality.position_groups": _whole(1, "groups of channels"),
    "modality.normalize": _choice(True, False),
    "modality.block_size": _whole(2, "tokens"),
    "modality.random_tokens": _number("a share of hidden tokens", 0, 1),
    "modality.kept_tokens": _number("a share of hidden tokens", 0, 1),
    "encoder.norm_first": _choice(True, False),
    "encoder.norm_eps": _number("a variance", 0, open_low=True),
    "encoder.key_bias": _choice(True, False),
    "encoder.layer_scale": _number("a factor", 0, optional=True, open_low=True),
    "encoder.position_bias": _choice("none", "alibi", "relative"),
    "encoder.dropout": _number("a share of values", 0, 0.99),
    "encoder.attention_dropout": _number("a share of attention weights", 0, 0.99),
    "encoder.drop_path": _number("a share of samples", 0, 0.99),
    "encoder.layer_drop": _number("a share of steps", 0, 0.99),
    "encoder.init": _choice("xavier", "normal", "scaled_normal"),
    "objective.normalize": _choice(True, False),
    "objective.copied": Rule(lambda v: v is None or OmegaConf.is_list(v), "a list of parts of the backbone, or null"),
    "objective.top_k": _whole(1, "blocks", optional=True),
    "objective.beta": _number("where smooth-L1 turns from square to line", 0),
    "objective.tau_start": _number("a share of the teacher", 0, 1),
    "objective.tau_end": _number("a share of the teacher", 0, 1),
    "objective.head_layers": _whole(1, "linear layers"),
    "objective.masks_per_sample": _whole(1, "masks"),
    "objective.cls_weight": _number("a weight", 0),
    "objective.mask_noise_std": _number("a deviation", 0),
    "objective.decoder_width": _whole(1, "values a token"),
    "objective.decoder_kernel": _odd("tokens"),
    "objective.decoder_groups": _whole(1, "groups of channels"),
    "objective.decoder_layers": _whole(1, "convolutions"),
    "objective.decoder_residual": _choice(True, False),
    "objective.decoder_dropout": _number("a share of values", 0, 0.99),
    "data.image_size": Rule(_side, "a whole number of pixels, or [height, width]"),
    "data.channels": _choice(1, 3),
    "data.std": Rule(_deviations, "a list of numbers above 0, one for each channel"),
    "data.repeats": _whole(1, "times"),
    "data.frames": _whole(1, "frames"),
    "data.fps": _number("frames a second", 0, open_low=True),
    "modality.tubelet": _whole(1, "frames"),
    "modality.target_frames": _whole(1, "frames", optional=True),
    "data.global_batch_size": _whole(1, "samples"),
    "data.micro_batch_size": _whole(1, "samples", optional=True),
    "data.batch_seconds": _number("seconds of audio", 0, optional=True, open_low=True),
    "data.micro_batch_seconds": _number("seconds of audio", 0, optional=True, open_low=True),
    "data.bucket_steps": _whole(1, "optimiser steps"),
    "data.crop_seconds": _number("seconds of audio", 0.025, open_low=False),
    "data.min_seconds": _number("seconds of audio", 0),
    "data.max_seconds": _number("seconds of audio", 0, optional=True, open_low=True),
    "data.vocab_size": _whole(1, "tokens"),
    "data.block_size": _whole(1, "tokens"),
    "data.num_workers": _whole(0, "processes"),
    "data.limit": _whole(1, "samples", optional=True),
    "optimizer.base_lr": _number("a learning rate at 256 samples", 0, open_low=True),
    "optimizer.lr": _number("a learning rate", 0, optional=True, open_low=True),
    "optimizer.weight_decay": _number("a decay", 0),
    "optimizer.layer_decay": _number("a share", 0, 1, open_low=True),
    "optimizer.decay_vectors": _choice(True, False),
    "optimizer.decay_tokens": _choice(True, False),
    "optimizer.momentum": _number("a share of the last update", 0, 1),
    "optimizer.trust_coefficient": _number("a share of a parameter's norm", 0, open_low=True),
    "scheduler.factor": _number("a share of the rate", 0, 1, open_low=True),
    "scheduler.drops": Rule(
        lambda v: OmegaConf.is_list(v) and all(type(x) in (int, float) and 0 < x < 1 for x in v),
        "a list of shares of the training, each between 0 and 1",
    ),
    "scheduler.first": _number("a share of the peak", 0, 1, open_low=True),
    "scheduler.last": _number("a share of the peak", 0, 1, open_low=True),
    "scheduler.min_lr": _number("a learning rate", 0),
    "precision.name": _choice("auto", "fp32", "bf16", "fp16"),
    "trainer.max_steps": _whole(1, "optimiser steps", optional=True),
    "trainer.devices": Rule(lambda v: v == "auto" or (type(v) is int and v > 0), "a number of devices, or auto"),
    "trainer.strategy": _choice("auto", "ddp", "fsdp"),
    "then": Rule(
        lambda v: not isinstance(v, str | None) and all(isinstance(one, str) and one.strip() for one in v),
        "a list of tasks, such as [knn]",
    ),
    "sweep.parallel": Rule(lambda v: v == "auto" or (type(v) is int and v > 0), "a number of arms, or auto"),
    "sweep.retries": _whole(0, "further attempts"),
    "sweep.on_error": _choice("continue", "stop"),
    "trainer.gradient_clip": _number("an L2 norm", 0, optional=True, open_low=True),
    "trainer.profiler": _choice(None, "simple", "advanced"),
    "trainer.accelerator": _choice("auto", "cpu", "gpu", "cuda", "mps", "tpu"),
    "trainer.detect_anomaly": _choice(True, False),
    "callbacks.broken_samples.most": _number("a share of samples", 0, 1),
    "callbacks.checkpointing.keep": _whole(1, "files"),
    "callbacks.collapse.samples": _whole(8, "samples"),
    "callbacks.collapse.action": _choice("warn", "stop", "none"),
    "callbacks.pictures.count": _whole(1, "samples"),
    "callbacks.probes.pool": _choice("mean", "tokens"),
    "callbacks.probes.labels": _whole(10, "samples"),
    "callbacks.probes.test": _whole(10, "samples"),
    "callbacks.progress.interval": _number("seconds", 0),
}


def check(cfg: DictConfig) -> None:
    """Compare every key that has a rule with it.

    Raises:
        ConfigError: a value is missing or not accepted.
    """
    for key in _missing(OmegaConf.to_container(cfg, resolve=False)):
        if key == "data.root" and "layout" in cfg.data:
            raise ConfigError(f"data.root is not set. Add data.root=<folder>, with this in it: {cfg.data.layout}.")
        raise ConfigError(f"{key} is not set, and there is no default for it. Add {key}=<value>.")
    if cfg.data.kind != cfg.modality.kind:
        raise ConfigError(
            f"data={cfg.data.name} does not go with modality={cfg.modality.name}: these are {cfg.data.kind}, and it "
            f"takes {cfg.modality.kind}. Leave data= out for the modality's own, or choose another."
        )
    for key, rule in RULES.items():
        try:
            parent = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg
            if parent is None or key.rpartition(".")[2] not in parent:
                continue
            value = OmegaConf.select(cfg, key)
        except InterpolationResolutionError as error:
            raise ConfigError(f"{key} cannot be resolved: {str(error).splitlines()[0]}.") from error
        if not rule.accepts(value):
            raise ConfigError(f"{key}={value} is not possible. It must be {rule.words}.")
    _check_micro_batch(cfg)


def _check_micro_batch(cfg: DictConfig) -> None:
    """It is counted as the batch is."""
    by_seconds = cfg.data.get("batch_seconds") is not None
    unused, right = ("size", "seconds") if by_seconds else ("seconds", "size")
    given = cfg.data.get(f"micro_batch_{unused}")
    if given is not None:
        raise ConfigError(
            f"data.micro_batch_{unused}={given} means nothing here: data.batch_seconds={cfg.data.get('batch_seconds')} "
            f"batches by {'seconds' if by_seconds else 'samples'}. Use data.micro_batch_{right}."
        )


def _missing(node: Any, prefix: str = "") -> Iterator[str]:
    """Keys that have to be given. (OmegaConf's own search fails on a value that refers to one.)"""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _missing(value, f"{prefix}{name}.")
    elif node == "???":
        yield prefix.removesuffix(".")
