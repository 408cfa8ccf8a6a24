"""Objects from config nodes that name what they are."""

import logging
import warnings
from functools import partial
from inspect import signature
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from unmask.errors import ConfigError
from unmask.nn.block import Style
from unmask.nn.encoder import Encoder
from unmask.training.duration import to_steps

MISFITS = (TypeError, ValueError, ModuleNotFoundError, AttributeError)  # of arguments and what they are given to


def create(node: DictConfig, **given: Any) -> Any:
    """The object of a config node with a `_target_`; its `name` and `kind` are for people and checks.

    Raises:
        ConfigError: as the constructor, or for an argument that it does not take.
    """
    try:
        words = {key: value for key, value in arguments(node).items() if key not in given}
        # What is given never becomes part of a config: a tokenizer's text may look like an interpolation.
        return instantiate({**words, "_partial_": True})(**given) if given else instantiate(words)
    except (InstantiationException, *MISFITS) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if isinstance(cause, ConfigError):
            raise cause from error
        if isinstance(cause, MISFITS):
            raise ConfigError(f"{node._target_}: {cause}. See the file of this option in conf/.") from error
        raise


def arguments(node: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(node, resolve=True)
    assert isinstance(plain, dict)
    names = ("kind",) if "Logger" in plain["_target_"] else ("name", "kind")
    return {str(key): value for key, value in plain.items() if key not in names}


def optimizer_factory(cfg: DictConfig) -> Any:
    """From parameter groups to the optimiser; tasks set Adam's betas, which another optimiser may not have."""
    mine = ("base_lr", "lr", "weight_decay", "layer_decay", "decay_vectors", "decay_tokens")
    made = create(OmegaConf.create({k: v for k, v in cfg.optimizer.items() if k not in mine}))
    known = signature(made.func).parameters
    return partial(made.func, **{k: v for k, v in made.keywords.items() if k != "betas" or k in known})


def build_encoder(cfg: DictConfig) -> Encoder:
    style = {key: value for key, value in cfg.encoder.items() if key != "name"}
    return Encoder(cfg.model.width, cfg.model.depth, cfg.model.heads, cfg.model.mlp_ratio, Style(**style))


def steps_of(cfg: DictConfig, key: str, samples: int, batch: int, steps: int) -> int:
    return to_steps(key, OmegaConf.select(cfg, key), samples, batch, steps)


def quiet() -> None:
    """Lightning's advice that does not fit here: the stream is endless; workers and `srun` are the user's choice."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for words in ("many workers", "number of training batches", "treespec", "in eval mode at the start", "`srun`"):
        warnings.filterwarnings("ignore", f".*{words}.*")
