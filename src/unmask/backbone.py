"""Modality, class token and encoder: what pretraining makes and everything after it uses."""

import importlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unmask.errors import ConfigError
from unmask.files import written_whole
from unmask.modality.base import Modality
from unmask.nn.encoder import Encoder
from unmask.nn.init import TOKEN_STD
from unmask.schema import Batch, Mask

FORMAT = 1


class Backbone(nn.Module):
    """Embed, position, select, encode: the one path from a batch to features.

    Args:
        modality: how samples become tokens.
        encoder: the trunk.
        class_token: put a learned token, at position zero, before the grid tokens.
    """

    def __init__(self, modality: Modality, encoder: Encoder, class_token: bool = True) -> None:
        super().__init__()
        self.modality = modality
        self.encoder = encoder
        self.prefix = int(class_token)
        self.class_token = nn.Parameter(torch.zeros(1, self.prefix, encoder.width))
        nn.init.normal_(self.class_token, std=TOKEN_STD)

    @property
    def tokens(self) -> int:
        """N, grid tokens of a sample."""
        return math.prod(self.modality.grid)

    def encode(self, batch: Batch, mask: Mask | None = None) -> Tensor:
        """(B, prefix + V, D) features of the visible tokens; without a mask, of all.

        The prefix joins after selection, so masks index grid tokens only.
        """
        tokens = self.modality.embed(batch, mask)
        prefix = self.class_token.expand(len(tokens), -1, -1)
        return self.encoder(torch.cat([prefix.to(tokens.dtype), tokens], dim=1))

    def features(self, batch: Batch) -> Tensor:
        """(B, D) float32: the mean of the grid tokens' features of the whole sample."""
        return self.encode(batch)[:, self.prefix :].float().mean(1)

    def settings(self) -> dict[str, Any]:
        """All that `from_settings` needs, as JSON types."""
        kind, encoder = type(self.modality), self.encoder
        return {
            "format": FORMAT,
            "modality": {"class": f"{kind.__module__}.{kind.__qualname__}", **self.modality.settings},
            "encoder": {k: getattr(encoder, k) for k in ("width", "depth", "heads", "mlp_ratio")},
            "class_token": bool(self.prefix),
        }

    @staticmethod
    def from_settings(settings: dict[str, Any]) -> "Backbone":
        """A freshly initialised backbone of the same shape."""
        modality = dict(settings["modality"])
        module, _, name = modality.pop("class").rpartition(".")
        if not module.startswith("unmask.modality."):  # a file must not choose what code runs
            raise ConfigError(f"The backbone's modality {module}.{name} is not part of unmask, so it is not loaded.")
        kind = getattr(importlib.import_module(module), name)
        return Backbone(kind(**modality), Encoder(**settings["encoder"]), settings["class_token"])

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json`, each whole or not at all."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with written_whole(folder / "model.safetensors") as aside:
            save_file(weights, aside)
        with written_whole(folder / "config.json") as aside:
            aside.write_text(json.dumps(self.settings(), indent=2) + "\n")

    @staticmethod
    def load(folder: Path) -> "Backbone":
        """Read a backbone folder, or the run folder around it.

        Raises:
            ConfigError: the folder holds no backbone, or one of another format.
        """
        folder = folder / "backbone" if (folder / "backbone").is_dir() else folder
        if not (folder / "config.json").is_file():
            raise ConfigError(f"backbone={folder} holds no config.json. Give a run folder or its backbone folder.")
        settings = json.loads((folder / "config.json").read_text())
        if settings["format"] != FORMAT:
            raise ConfigError(
                f"backbone={folder} has format {settings['format']}, and this version reads {FORMAT}. "
                "Load it with the version that wrote it."
            )
        backbone = Backbone.from_settings(settings)
        backbone.load_state_dict(load_file(folder / "model.safetensors"))
        return backbone
