"""Fine-tuning from the composed config, in the order data flows."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

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
from unmask.callbacks.evaluation import Evaluation
from unmask.data.budget import RATE, Balanced, Chosen, Transcribed, choose, hold_out
from unmask.data.source import Source, label_of
from unmask.errors import ConfigError
from unmask.finetuning import FineTuning
from unmask.probing import Probing
from unmask.schema import Batch, Boxes, Label
from unmask.task.augment import Erase, RandAugment, Stripes
from unmask.task.base import Task
from unmask.training.checkpoint import step_of
from unmask.training.data import Labels, TrainingData
from unmask.training.finetune import FinetuneModule
from unmask.training.folder import DONE, open_folder, write_record

SCRATCH = "scratch"
# Of the backbone's style, what has no weights and fine-tuning may set.
REGULARISERS = ("dropout", "attention_dropout", "drop_path", "layer_drop")


def build_finetuning(cfg: DictConfig, scratch: bool = False, within: Path | None = None) -> FineTuning:
    """Everything that can be wrong with a config is said here, before training starts.

    Args:
        cfg: composed from `conf/finetune.yaml`.
        scratch: start from fresh weights, whatever `backbone` says but for its shape.
        within: the folder of the run that this one is compared with.

    Raises:
        ConfigError: it cannot be built.
    """
    quiet()
    if cfg.compare is not None and cfg.backbone == SCRATCH:
        raise ConfigError("compare=scratch beside backbone=scratch compares a run with itself. Give another backbone.")
    torch.manual_seed(cfg.seed)  # initial weights; everything later is addressed
    backbone = build_backbone(cfg, scratch)
    kind: type[Task] = get_class(cfg.task._target_)
    kind.fits(backbone)
    train, test = build_labelled(cfg, backbone, kind.transcribed)
    if isinstance(train, Transcribed) and isinstance(test, Transcribed) and cfg.input.crop_seconds is None:
        longest = max(*train.lengths, *test.lengths) / RATE  # a crop would not be what its transcript says
        backbone = backbone.adapted({"crop_seconds": max(longest, backbone.modality.settings["crop_seconds"])})
    chosen, held_out = hold_out(choose(train, cfg.data.labels, cfg.seed), cfg.data.validation)
    labels = [label_of(train, index) for index in chosen]
    _check_labels(cfg, labels, train.classes, kind.located)
    given = kind.learn(train.classes, labels)
    task: Task = create(cfg.task, backbone=backbone, **given)
    if cfg.freeze != "none":
        task.freeze(None if cfg.freeze == "all" else int(cfg.freeze))
    picked: Source = Chosen(train, chosen)
    if cfg.data.balanced:
        picked = Balanced(picked, labels)

    crop = backbone.modality.settings.get("crop_seconds")
    batch = build_batch(cfg, picked, crop)
    steps = build_length(cfg, len(picked), batch)
    optimization = build_optimization(cfg, len(picked), batch, steps)
    callbacks = build_callbacks(cfg, len(picked), batch, steps)
    if not isinstance(callbacks.get("evaluation"), Evaluation):
        raise ConfigError("callbacks.evaluation=null: the run cannot do without it. Drop another callback.")
    views = task.test_views(cfg.views.time, cfg.views.space)
    folder = run_folder(cfg, _name(cfg)) if within is None else within / SCRATCH
    trainer = build_trainer(cfg, folder, batch, steps, callbacks)
    masking = create(cfg.mask) if cfg.masking else None
    freeze_steps = steps_of(cfg, "freeze_for", len(picked), batch, steps)
    module = FinetuneModule(task, masking, freeze_steps, optimization, cfg.seed)
    check_optimizer(cfg, module)
    validation = Chosen(train, held_out)
    extra = Labels(task.encode_label, validation, build_augmentation(cfg))
    data = TrainingData(
        picked, test, task, cfg.seed, batch, cfg.data.num_workers, build_buckets(cfg, picked, crop),
        cfg.data.get("repeats", 1), extra,
    )  # fmt: skip
    # Of two runs that are compared the first may be whole, and the second is gone on with.
    checkpoint = where_to_go_on(cfg, folder, steps, finished=(within or folder) / DONE, ended=folder / "results.json")
    data.stream[step_of(checkpoint) * batch]  # a source whose samples cannot be read fails here
    begin(cfg, trainer, folder, step_of(checkpoint), len(picked), backbone.modality)
    remark = task.remark([label_of(test, index) for index in range(len(test))]) if kind.transcribed else None
    return FineTuning(
        trainer,
        module,
        data,
        views,
        callbacks,
        folder,
        within or folder,
        checkpoint,
        (
            *_describe(cfg, task, len(chosen), len(held_out), batch, steps, SCRATCH if scratch else cfg.backbone),
            *beside_the_paper(as_built(cfg, backbone), batch),
            *([] if remark is None else [remark]),
        ),
    )


def build_comparison(cfg: DictConfig, run: FineTuning) -> FineTuning | None:
    """The same from fresh weights, where that is asked for."""
    return None if cfg.compare is None else build_finetuning(cfg, scratch=True, within=run.folder)


def build_probing(cfg: DictConfig) -> Probing:
    """Frozen features of labelled samples, judged by a classifier.

    Raises:
        ConfigError: it cannot be built.
    """
    quiet()
    torch.manual_seed(cfg.seed)
    backbone = build_backbone(cfg, scratch=False)
    pool = cfg.task.pool
    encoders: dict[str, Callable[[Batch], Tensor]] = {str(cfg.backbone): partial(backbone.eval().features, pool=pool)}
    if cfg.compare is not None:
        untrained = build_backbone(cfg, scratch=True).eval()
        encoders |= {SCRATCH: partial(untrained.features, pool=pool), "raw input": backbone.modality.raw_features}
    train, test = build_labelled(cfg, backbone, transcribed=False)
    _check_located(cfg, [label_of(train, 0)], located=False)
    if len(train.classes) < 2:
        raise ConfigError(f"task={cfg.task.name} needs two classes, and data={cfg.data.name} has {len(train.classes)}.")
    picked = Chosen(train, choose(train, cfg.data.labels, cfg.seed))
    data = TrainingData(picked, test, backbone.modality, cfg.seed, 1, cfg.data.num_workers)
    folder = run_folder(cfg, _name(cfg))
    open_folder(folder, resumed=cfg.resume is not None)
    write_record(folder, cfg, HydraConfig.get().overrides.task)
    return Probing(str(cfg.task.name), encoders, data, cfg.task.test, folder)


def build_backbone(cfg: DictConfig, scratch: bool) -> Backbone:
    """The backbone that is fine-tuned: of a run, of its own folder, or with fresh weights.

    Raises:
        ConfigError: it is not there, or something is asked of it that it cannot be.
    """
    inputs = {str(key): value for key, value in cfg.input.items() if value is not None}
    if cfg.backbone != SCRATCH:
        backbone = Backbone.load(Path(cfg.backbone), inputs, **{key: cfg.encoder[key] for key in REGULARISERS})
        kind = type(backbone.modality).__module__.rpartition(".")[2]
        if kind != cfg.modality.name:
            raise ConfigError(
                f"backbone={cfg.backbone} was pretrained with modality={kind}, and this says modality="
                f"{cfg.modality.name}. Leave modality= out, or give another backbone."
            )
        return Backbone.from_settings(backbone.settings()) if scratch else backbone
    for key, value in inputs.items():
        if key not in cfg.modality:
            raise ConfigError(f"input.{key}={value}: modality={cfg.modality.name} has no {key}. Leave it out.")
    return Backbone(create(cfg.modality, **inputs), build_encoder(cfg), cfg.model.class_token)


def build_labelled(cfg: DictConfig, backbone: Backbone, transcribed: bool) -> tuple[Source, Source]:
    """Training and test samples, read as the backbone wants them."""
    known = backbone.modality.settings
    given = {key: known[key] for key in known if key in cfg.data.source}
    train, test = (build_source(cfg, split, **given) for split in ("train", "test"))
    return (Transcribed(train), Transcribed(test)) if transcribed else (train, test)


def build_augmentation(cfg: DictConfig) -> list[Callable[[Tensor], Tensor]]:
    """Changes of training samples, for images, videos and spectrograms.

    Raises:
        ConfigError: there are such changes, and the samples are of another kind.
    """
    how = cfg.augment
    changes: list[Callable[[Tensor], Tensor]] = []
    if how.rand_augment is not None:
        changes.append(RandAugment(how.rand_augment, how.rand_augment_std))
    if how.erase:
        changes.append(Erase(how.erase))
    if changes and cfg.modality.kind not in ("images", "videos"):
        raise ConfigError(
            f"augment.rand_augment and augment.erase change pixels, and these are {cfg.modality.kind}. "
            "Leave them at null and 0."
        )
    if how.time_stripe or how.band_stripe:
        if cfg.modality.name != "audio":
            raise ConfigError(
                f"augment.time_stripe and augment.band_stripe change spectrograms, and this is modality="
                f"{cfg.modality.name}. Leave both at 0."
            )
        changes.append(Stripes(how.time_stripe, how.band_stripe))
    return changes


def as_built(cfg: DictConfig, backbone: Backbone) -> DictConfig:
    """The config with what the backbone is, whatever `model` and `modality` say: they are of backbone=scratch."""
    settings = backbone.settings()
    shape = {**settings["encoder"], "class_token": settings["class_token"]}
    parts = {"model": shape, "encoder": settings["style"], "modality": backbone.modality.settings}
    built = OmegaConf.create(OmegaConf.to_container(cfg))
    assert isinstance(built, DictConfig)
    built.merge_with(parts)
    return built


def _name(cfg: DictConfig) -> str:
    start = SCRATCH if cfg.backbone == SCRATCH else "pretrained"
    return f"{cfg.task.name}_{cfg.data.name}_{start}_{str(cfg.data.labels).replace('/', '-per-').replace('%', 'pc')}"


def _check_labels(cfg: DictConfig, labels: list[Label | None], classes: Sequence[str], located: bool) -> None:
    _check_located(cfg, labels, located)
    if located:
        return
    if not cfg.task.get("multi_label", False) and any(isinstance(label, tuple) for label in labels):
        raise ConfigError(
            f"data={cfg.data.name}: samples are of several classes, and task={cfg.task.name} gives each one. "
            "Use task.multi_label=true."
        )
    if len(set(labels)) < 2:
        only = labels[0] if labels else "none"
        only = classes[only] if isinstance(only, int) and classes else only
        raise ConfigError(
            f"data.labels={cfg.data.labels} of data={cfg.data.name} leaves {len(labels)} sample(s) with one label, "
            f"{only}. Give more labels, or data with two classes or more."
        )


def _check_located(cfg: DictConfig, labels: Sequence[Label | None], located: bool) -> None:
    """Boxes want a task that finds them, and that wants boxes."""
    boxes = any(isinstance(label, Boxes) for label in labels)
    if boxes and not located:
        raise ConfigError(
            f"data={cfg.data.name} is labelled with boxes, and task={cfg.task.name} wants none. Use task=detection."
        )
    if located and not boxes:
        raise ConfigError(f"task={cfg.task.name} learns boxes, and data={cfg.data.name} has none. Use data=coco.")
    if boxes and cfg.data.balanced:
        raise ConfigError("data.balanced=true: these pictures show several classes each. Leave it at false.")
    if boxes and cfg.augment.rand_augment is not None:
        raise ConfigError("augment.rand_augment turns and shears pictures, and their boxes would not follow. Set null.")
    if boxes and cfg.masking:
        raise ConfigError("masking=true hides tokens, and task=detection needs the whole grid. Set masking=false.")
    if boxes and cfg.data.get("repeats", 1) > 1:
        raise ConfigError("data.repeats would show the same zoom again: with boxes, pictures change once. Set 1.")


def _describe(cfg: DictConfig, task: Task, labels: int, held_out: int, batch: int, steps: int, start: str) -> list[str]:
    learning = sum(p.numel() for p in task.parameters() if p.requires_grad)
    return [
        f"{cfg.task.name} on {cfg.data.name}, from {start}: {labels} labelled samples, {held_out} more held out to "
        f"choose the best checkpoint by",
        f"{steps} steps of {batch}, learning rate {learning_rate(cfg, batch):.3g}, {learning / 1e6:.2f} million "
        f"parameters learn",
    ]
