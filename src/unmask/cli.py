"""The command line: Hydra composes, mistakes become one sentence and exit code 2."""

import functools
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unmask.errors import ConfigError, nearest
from unmask.rules import check

CONF = Path(__file__).parents[2] / "conf"
MISTAKES = (ConfigError, HydraException, OmegaConfBaseException, OSError)


def command(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Turn a function of the composed config into a program.

    Args:
        config_name: the file in `conf/` to compose from.

    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(task)
        def program() -> None:
            failures: list[BaseException] = []

            @functools.wraps(task)
            def checked(cfg: DictConfig) -> None:
                try:
                    cfg = _resumed(cfg) if cfg.resume is not None else cfg
                    check(cfg)
                    task(cfg)
                except MISTAKES as error:  # kept from Hydra, which prints it in its own way; other arms go on
                    failures.append(error)

            os.environ["HYDRA_FULL_ERROR"] = "1"  # hand exceptions to us instead of printing them
            # Threads that spin while they wait make a step ten times slower as soon as anything else wants a core,
            # such as the run's own loader. Read once, when torch is loaded.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            sys.argv[1:] = [_as_option(word) for word in sys.argv[1:]]
            try:
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(checked)()
            except MISTAKES as error:
                failures.append(error)
            finally:
                GlobalHydra.instance().clear()
            if failures:
                _fail(failures, config_name)

        return program

    return decorate


def _fail(failures: list[BaseException], config_name: str) -> NoReturn:
    """One line a failure on stderr; the stack only under debug=."""
    for error in failures:
        if any(word.startswith("debug=") for word in sys.argv):
            traceback.print_exception(error)
        print(f"error: {_sentence(error, config_name)}", file=sys.stderr)
    raise SystemExit(2)


def _sentence(error: BaseException, config_name: str) -> str:
    """What to tell the user, whatever raised it."""
    link: BaseException | None = error
    while link is not None:  # Hydra wraps what a constructor raised
        if isinstance(link, ConfigError):
            return str(link)
        link = link.__cause__
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, MissingConfigException) and error.options is not None and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return (
            f"{group}={option}: there is no such option.{nearest(option, error.options)} "
            f"Choose one of {', '.join(error.options)}."
        )
    unknown = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", str(error))
    if unknown:
        full = re.search(r"full_key: (\S+)", str(error))
        key = unknown[1] or (full[1] if full else unknown[2])
        return f"{key}: there is no such key.{nearest_key(key, config_name)} Add +{key}=... to make a new one."
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        first = f"{first} {str(error.__cause__).splitlines()[0]}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {first}. Write key=value, and quote what holds spaces, commas or brackets."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}. Choose another place, or mend its permissions."
    return f"{first} See --help, and --cfg job for every key."


def _as_option(word: str) -> str:
    """`mask_ratio=15,75` as `mask_ratio='15','75'`: options are names, and Hydra takes a bare number for a number."""
    group, equals, options = word.partition("=")
    if not equals or not (CONF / group).is_dir():
        return word
    return group + equals + ",".join(f"'{x}'" if x.isdecimal() else x for x in options.split(","))


def nearest_key(key: str, config_name: str) -> str:
    """The known key or group that looks most like `key`, as ` Did you mean ...?`."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        known = OmegaConf.to_container(hydra.compose(config_name), resolve=False)
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    return nearest(key, [*groups, *_keys(known)])


def _keys(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    return [name for k, v in node.items() for name in (f"{prefix}{k}", *_keys(v, f"{prefix}{k}."))]


def _resumed(cfg: DictConfig) -> DictConfig:
    """The config of the run to go on with, changed by the values given beside `resume=`.

    Raises:
        ConfigError: the folder is no run, or a whole group was given.

    """
    folder = Path(cfg.resume)
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"resume={folder} is not a run: it holds no config.yaml. Give the folder that the run printed, "
            f"usually {cfg.paths.outputs}/<name>/<time>."
        )
    saved = OmegaConf.load(folder / "config.yaml")
    assert isinstance(saved, DictConfig)
    OmegaConf.set_struct(saved, True)
    for override in HydraConfig.get().overrides.task:
        key, _, _ = override.lstrip("+~").partition("=")
        if key in ("resume", "run_dir") or key.startswith("hydra."):
            continue
        if "/" in key or (CONF / key).is_dir():
            raise ConfigError(
                f"{override} would change what the run is made of. Beside resume= only single values can be given, "
                "such as trainer.max_steps=5000; start a new run for anything else."
            )
        if OmegaConf.select(saved, key, default=saved) is saved:
            raise ConfigError(
                f"{key}: the run in {folder} has no such key.{nearest(key, _keys(OmegaConf.to_container(saved)))}"
            )
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key))
    saved.resume, saved.run_dir = str(folder), str(folder)
    return saved
