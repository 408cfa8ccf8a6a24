"""Modality, class token and encoder: what pretraining makes and everything after it uses."""

import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unmask.errors import ConfigError
from unmask.files import written_whole
from unmask.masking.select import gather
from unmask.modality.base import Modality
from unmask.nn.block import Style
from unmask.nn.encoder import Encoder
from unmask.nn.init import TOKEN_STD
from unmask.nn.position_bias import Alibi, RelativeBias
from unmask.schema import Batch, Mask

FORMAT = 2


class Learner(nn.Module):
    """A backbone and what is trained on top of it."""

    backbone: "Backbone"


class Backbone(nn.Module):
    """Embed, corrupt, position, select, encode: the one path from a batch to features.

    Args:
        modality: how samples become tokens.
        encoder: the trunk.
        class_token: put a learned token before the grid tokens, without a position unless the modality learns one.
    """

    class_position: nn.Parameter | None
    position_bias: Alibi | RelativeBias | None

    def __init__(self, modality: Modality, encoder: Encoder, class_token: bool = True) -> None:
        super().__init__()
        self.modality = modality
        self.encoder = encoder
        self.prefix = int(class_token)
        self.class_token = nn.Parameter(torch.zeros(1, self.prefix, encoder.width))
        nn.init.normal_(self.class_token, std=TOKEN_STD)
        learned = class_token and modality.class_position
        position = nn.Parameter(torch.randn(1, 1, encoder.width) * TOKEN_STD) if learned else None
        self.register_parameter("class_position", position)
        self.position_bias = _position_bias(encoder, modality.grid, self.prefix)

    def encode(
        self,
        batch: Batch,
        mask: Mask | None = None,
        fill: Tensor | None = None,
        keep_hidden: bool = False,
        local: Tensor | None = None,
        last_norm: bool = True,
    ) -> Tensor:
        """(B, prefix + V, D) features of the visible tokens; of all without a mask or with `keep_hidden`.

        The arguments are those of `prepare` and `Encoder.forward`.
        """
        return self.encoder(*self.prepare(batch, mask, fill, keep_hidden, local), last_norm=last_norm)

    def prepare(
        self,
        batch: Batch,
        mask: Mask | None = None,
        fill: Tensor | None = None,
        keep_hidden: bool = False,
        local: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """What the encoder takes: its tokens, and what is added to its attention scores.

        Hidden tokens are replaced before positions are added, since positions may look at neighbours. The prefix
        joins last, so masks index grid tokens only.

        Args:
            batch: the samples.
            mask: what is hidden; None for nothing.
            fill: stands where tokens are hidden, broadcast to (B, N, D); None for zeros.
            keep_hidden: the encoder sees all places, filled where hidden; else the visible ones only.
            local: (B, N, D) what `modality.embed` made of the batch, where that is at hand.
        """
        modality = self.modality
        visible = None if mask is None or keep_hidden else mask.visible
        real = modality.real(batch)
        if visible is not None and modality.pointwise:  # equal to what follows, and cheaper
            tokens = modality.embed(batch, visible) if local is None else gather(local, visible)
            tokens = modality.add_position(tokens, visible)
        else:
            tokens = modality.embed(batch) if local is None else local
            if mask is not None:
                fill = tokens.new_zeros(()) if fill is None else fill.to(tokens.dtype)
                tokens = torch.where(mask.is_hidden(tokens.shape[1])[..., None], fill, tokens)
            tokens = modality.add_position(tokens, real=real)
            if visible is not None:
                tokens = gather(tokens, visible)
        prefix = self.class_token if self.class_position is None else self.class_token + self.class_position
        prefix = prefix.expand(len(tokens), -1, -1)
        bias = self._attention_bias(math.prod(modality.grid_of(batch)), visible, real)
        return torch.cat([prefix.to(tokens.dtype), tokens], dim=1), bias

    def features(self, batch: Batch, pool: str = "mean") -> Tensor:
        """(B, D) float32: the mean of the grid tokens' features of the whole sample; or all of them, (B, N D).

        The raw input, which features are compared with, knows where everything is; a mean does not.

        Args:
            batch: the samples.
            pool: `mean`, or `tokens` for all in a row, where nothing is padded.

        Raises:
            ConfigError: there is no such pool, or samples are padded.
        """
        tokens = self.encode(batch)[:, self.prefix :].float()
        real = self.modality.real(batch)
        if pool == "tokens" and real is None:
            return tokens.flatten(1)
        if pool != "mean":
            reason = "samples of different lengths have no common row of tokens" if pool == "tokens" else "no such pool"
            raise ConfigError(f"pool={pool}: {reason}. Use mean.")
        if real is None:
            return tokens.mean(1)
        return (tokens * real[..., None]).sum(1) / real.sum(1, keepdim=True)

    def _attention_bias(self, tokens: int, visible: Tensor | None, real: Tensor | None) -> Tensor | None:
        """Position bias and padding as one tensor that broadcasts to (B, heads, T, T), or None for neither."""
        bias = None if self.position_bias is None else self.position_bias(tokens, visible)
        if real is None:
            return bias
        seen = real if visible is None else real.gather(1, visible)
        seen = nn.functional.pad(seen, (self.prefix, 0), value=True)[:, None, None]
        return seen if bias is None else bias.masked_fill(~seen, float("-inf"))

    def settings(self) -> dict[str, Any]:
        """All that `from_settings` needs, as JSON types."""
        kind, encoder = type(self.modality), self.encoder
        return {
            "format": FORMAT,
            "modality": {"class": f"{kind.__module__}.{kind.__qualname__}", **self.modality.settings},
            "encoder": {k: getattr(encoder, k) for k in ("width", "depth", "heads", "mlp_ratio")},
            "style": asdict(encoder.style),
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
        embedding, style = kind(**modality), Style(**settings["style"])
        return Backbone(embedding, Encoder(**settings["encoder"], style=style), settings["class_token"])

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json`, each whole or not at all."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with written_whole(folder / "model.safetensors") as aside:
            save_file(weights, aside)
        with written_whole(folder / "config.json") as aside:
            aside.write_text(json.dumps(self.settings(), indent=2) + "\n")

    @staticmethod
    def load(folder: Path, changed: Mapping[str, Any] | None = None, **style: Any) -> "Backbone":
        """Read a backbone folder, or the run folder around it.

        Args:
            folder: where it lies.
            changed: settings of the modality that are to be others; positions are interpolated.
            style: fields of `Style` without weights that are to be others, such as `drop_path`.

        Raises:
            ConfigError: the folder holds no backbone, or one of another format, or a setting cannot be changed.
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
        settings["style"] |= style
        old = Backbone.from_settings(settings)
        old.load_state_dict(load_file(folder / "model.safetensors"))
        return old.adapted(changed) if changed else old

    def adapted(self, changed: Mapping[str, Any]) -> "Backbone":
        """The same for samples of another size.

        Args:
            changed: settings of the modality that are to be others.

        Raises:
            ConfigError: one of them does not exist, or cannot be changed so.
        """
        settings, modality = self.settings(), self.modality
        for key, value in changed.items():
            if key not in modality.adaptable:
                name = type(modality).__name__.lower()
                raise ConfigError(
                    f"input.{key}={value}: of a trained backbone of modality={name} only "
                    f"{', '.join(modality.adaptable)} can be changed."
                )
        settings["modality"] |= changed
        new, weights = Backbone.from_settings(settings), self.state_dict()
        if isinstance(self.position_bias, RelativeBias) and isinstance(new.position_bias, RelativeBias):
            weights["position_bias.table"] = new.position_bias.resized(self.position_bias.table, modality.grid)
        weights |= {f"modality.{k}": v for k, v in new.modality.fitted(modality.state_dict(), modality.grid).items()}
        new.load_state_dict(weights)
        return new


def _position_bias(encoder: Encoder, grid: tuple[int, ...], prefix: int) -> Alibi | RelativeBias | None:
    kind = encoder.style.position_bias
    if kind == "relative":
        if len(grid) != 2:
            raise ConfigError(
                f"encoder.position_bias=relative needs a grid of two axes, and this one has {len(grid)}. "
                "Use encoder.position_bias=alibi or none."
            )
        return RelativeBias(grid, prefix, encoder.heads)
    if kind == "alibi" and len(grid) != 1:
        raise ConfigError(
            f"encoder.position_bias=alibi needs a grid of one axis, and this one has {len(grid)}. "
            "Use encoder.position_bias=relative or none."
        )
    return Alibi(prefix, encoder.heads) if kind == "alibi" else None
