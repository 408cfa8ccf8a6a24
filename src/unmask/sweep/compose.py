"""Arms of the command lines that a sweeper makes, checked before anything starts."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from unmask.cli import MISTAKES, as_option, sentence
from unmask.errors import ConfigError
from unmask.rules import check
from unmask.sweep.arm import Arm
from unmask.sweep.naming import arm_name, key_of

NOT_WHAT_IS_TRAINED = ("hydra", "sweep", "run_dir", "resume")


def compose_arms(
    jobs: Sequence[Sequence[str]],
    varied: Sequence[str],
    folder: Path,
    program: str,
    compose: Callable[[list[str]], DictConfig],
) -> list[Arm]:
    """An arm for each job; one that cannot be composed, or breaks a rule, knows its mistake.

    Args:
        jobs: command lines, without what is Hydra's own.
        varied: keys whose values tell arms apart.
        folder: of the sweep.
        program: `train` or `finetune`.
        compose: from words to a config.

    Raises:
        ConfigError: no arm can run.
        MissingConfigException: an option does not exist.
    """
    arms = [_compose(job, varied, folder, program, compose) for job in jobs]
    mistakes = [arm.mistake for arm in arms]
    if mistakes[0] is not None and None not in mistakes:
        several = f" None of the {len(arms)} arms can run." if len(set(mistakes)) > 1 else ""
        raise ConfigError(mistakes[0] + several)
    return arms


def _compose(
    job: Sequence[str],
    varied: Sequence[str],
    folder: Path,
    program: str,
    compose: Callable[[list[str]], DictConfig],
) -> Arm:
    words = [as_option(word) for word in job]
    own = tuple(word for word in words if key_of(word).partition(".")[0] not in ("sweep", "run_dir"))
    given = {key_of(word): word.partition("=")[2].strip("'\"") for word in own}
    values = {key: given[key] for key in varied if key in given}
    text, devices, mistake = "\n".join(own), 1, None
    try:
        cfg = compose(words)
        trained = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in NOT_WHAT_IS_TRAINED])
        text = OmegaConf.to_yaml(trained)  # unresolved
        devices = cfg.trainer.devices if type(cfg.trainer.devices) is int else 1
        check(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    except MissingConfigException:  # a slip of the pen, not a combination that cannot be
        raise
    except MISTAKES as error:
        mistake = sentence(error, program)
    name = arm_name(values, text)
    return Arm(name, own, values, folder / name, devices, mistake)
