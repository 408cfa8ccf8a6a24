"""A run that is done, to be asked."""

from pathlib import Path
from typing import NamedTuple

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unmask.backbone import Backbone
from unmask.build.create import create
from unmask.errors import ConfigError
from unmask.masking.strategy import MaskStrategy
from unmask.objective.base import Objective
from unmask.training.checkpoint import newest_checkpoint


class Trained(NamedTuple):
    """A run to ask.

    Attributes:
        objective: as its newest checkpoint has it, in eval mode.
        masking: its strategy.
        seed: of masks.
    """

    objective: Objective
    masking: MaskStrategy
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
    objective: Objective = create(cfg.objective, backbone=Backbone.load(run), **given)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    objective.load_state_dict({k.removeprefix("objective."): v for k, v in state.items() if k.startswith("objective.")})
    return Trained(objective.eval(), create(cfg.mask), cfg.seed)
