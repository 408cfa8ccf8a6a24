"""What the runner asks of every downstream task."""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unmask.backbone import Backbone, Learner
from unmask.errors import ConfigError
from unmask.files import written_whole
from unmask.modality.base import Transform
from unmask.schema import Batch, Label, Mask, Output, Sample

Record = dict[str, Any]  # of one sample: JSON types; a row of predictions.csv


class Task(Learner, ABC):
    """A backbone, a head, a loss, and what is to be said of its predictions.

    Attributes:
        decides: the score that picks the best checkpoint and is compared.
        larger_is_better: whether it does by being large.
        settings: the constructor's arguments but the backbone, as JSON types, for the task's own file.
        frozen: the backbone learns nothing for now.
        transcribed: labels are what is said, not classes.
        located: labels are boxes.
    """

    decides: str
    larger_is_better: bool = True
    settings: dict[str, Any]
    frozen: bool = False
    transcribed: bool = False
    located: bool = False

    @classmethod
    def fits(cls, backbone: Backbone) -> None:
        """Called before any data is made. Raises ConfigError where the task is not for such a backbone."""
        return None

    @classmethod
    @abstractmethod
    def learn(cls, classes: Sequence[str], labels: Sequence[Label | None]) -> dict[str, Any]:
        """Constructor arguments that come from the training data.

        Args:
            classes: names of the labels; empty where they are no classes.
            labels: of each training sample.

        Raises:
            ConfigError: these labels are not of the kind that the task learns.
        """

    @abstractmethod
    def forward(self, batch: Batch, mask: Mask | None = None) -> Output:
        """The loss, of what `encode_label` made of the labels; `mask` hides tokens in training."""

    @abstractmethod
    def predict(self, batch: Batch, views: int = 1) -> list[Record]:
        """A record a sample; with `views` in a row of each sample, one for each so many rows."""

    @abstractmethod
    def score(self, records: Sequence[Record]) -> dict[str, float]:
        """Numbers of records that hold what was predicted and, as `label`, what is true."""

    def transform(self, train: bool) -> Transform:
        """How samples are prepared, for training or to be judged: as the modality does it."""
        return self.backbone.modality.transform(train)

    def test_views(self, time: int, space: int) -> list[Transform]:
        """The modality's ways to look at one sample whose predictions are averaged."""
        return self.backbone.modality.test_views(time, space)

    def encode_label(self, label: Any) -> int | float | Tensor | None:
        """From a source's label to what a batch holds."""
        return label

    def name_label(self, label: Any) -> Any:
        """From a source's label to what a record says."""
        return label

    def placed(self, record: Record, sample: Sample) -> Record:
        """A record in terms of the sample as it was before `transform`."""
        return record

    def compared(self, record: Record) -> Record:
        """A record that knows its label, completed by what `score` wants of the two."""
        return record

    def remark(self, labels: Sequence[Label | None]) -> str | None:
        """What a user should know of the test labels before training."""
        return None

    def pictures(self, records: Sequence[Record], sample: Callable[[int], Sample]) -> dict[str, np.ndarray]:
        """(height, width, 3) uint8 by name: what is better seen than read; `sample` takes a record's index."""
        return {}

    def tokens(self, batch: Batch, mask: Mask | None = None, **how: Any) -> Tensor:
        """(B, prefix + V, D) of the backbone, whose arguments these are; without a gradient while it is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.backbone.encode(batch, mask, **how)

    def freeze(self, blocks: int | None) -> None:
        """Fix the embedding and the first so many blocks; with None the whole backbone."""
        encoder = self.backbone.encoder
        parts = [self.backbone] if blocks is None else [self.backbone.modality, *encoder.blocks[:blocks]]
        for part in parts if blocks != 0 else []:
            part.requires_grad_(False)
        if blocks != 0:
            for vector in (self.backbone.class_token, self.backbone.class_position):
                if vector is not None:
                    vector.requires_grad_(False)
            if not encoder.style.norm_first:  # the norm before the first block
                encoder.norm.requires_grad_(False)

    def train(self, mode: bool = True) -> "Task":
        """A backbone of which nothing learns has no dropout."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.backbone.parameters()):
            self.backbone.eval()
        return self

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json`, each whole or not at all."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with written_whole(folder / "model.safetensors") as aside:
            save_file(weights, aside)
        kind = type(self)
        config = {
            "task": {"class": f"{kind.__module__}.{kind.__qualname__}", **self.settings},
            "backbone": self.backbone.settings(),
        }
        with written_whole(folder / "config.json") as aside:
            aside.write_text(json.dumps(config, indent=2) + "\n")

    @staticmethod
    def load(folder: Path) -> "Task":
        """What `save` wrote, in eval mode.

        Raises:
            ConfigError: the folder holds no task.
        """
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{folder} holds no config.json. Give the folder of a fine-tuning run.")
        config = json.loads((folder / "config.json").read_text())
        settings = dict(config["task"])
        module, _, name = settings.pop("class").rpartition(".")
        if not module.startswith("unmask.task."):  # a file must not choose what code runs
            raise ConfigError(f"The task {module}.{name} is not part of unmask, so it is not loaded.")
        task: Task = getattr(importlib.import_module(module), name)(
            Backbone.from_settings(config["backbone"]), **settings
        )
        task.load_state_dict(load_file(folder / "model.safetensors"))
        return task.eval()
