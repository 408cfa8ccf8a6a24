"""The command line: Hydra composes, mistakes become one sentence and exit code 2."""

import functools
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from unmask.errors import ArmsFailed, ConfigError, nearest
from unmask.rules import check
from unmask.sweep.command import is_sweep, with_folder
from unmask.sweep.lifeline import die_with_parent

CONF = Path(__file__).parents[2] / "conf"
# What a resumed run must have in common with its beginning.
FIXED = (
    "seed",
    "model",
    "encoder",
    "modality",
    "objective",
    "mask",
    "optimizer",
    "data.name",
    "data.limit",
    "data.repeats",
    "data.global_batch_size",
    "data.batch_seconds",
    "data.bucket_steps",
    "data.min_seconds",
    "data.max_seconds",
    "data.crop_seconds",
    "data.block_size",
    "data.vocab_size",
    "backbone",
    "task",
    "freeze",
    "freeze_for",
    "masking",
    "input",
    "augment",
    "data.labels",
    "data.validation",
    "data.balanced",
    "data.text",
    "data.pair",
    "data.label",
    "data.classes",
    "data.header",
    "data.test",
    "data.train_annotations",
    "data.test_annotations",
    "data.bad_boxes",
    "data.train_pictures",
)
# Of a data set, what its samples are, which fine-tuning takes over from pretraining.
OF_SOURCES = (
    "root", "dataset", "config", "revision", "text_column", "label_column", "min_seconds", "max_seconds", "text",
    "pair", "label", "classes", "header", "test", "photos", "train_annotations", "train_images", "test_annotations",
    "test_images",
)  # fmt: skip
MISTAKES = (ConfigError, ArmsFailed, HydraException, OmegaConfBaseException, OSError)


def command(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Turn a function of the composed config into a program.

    Args:
        config_name: the file in `conf/` to compose from.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(task)
        def program() -> None:
            die_with_parent()
            failures: list[BaseException] = []

            @functools.wraps(task)
            def checked(cfg: DictConfig) -> None:
                try:
                    check(cfg)
                    if cfg.resume is not None:
                        _check_same_run(cfg)
                    task(cfg)
                except MISTAKES as error:  # kept from Hydra, which prints it in its own way
                    failures.append(error)

            os.environ["HYDRA_FULL_ERROR"] = "1"  # hand exceptions to us instead of printing them
            # Threads that spin while they wait make a step ten times slower as soon as anything else wants a core,
            # such as the run's own loader. Read once, when torch is loaded.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            try:
                given = sys.argv[1:]
                given = with_folder(given, config_name) if is_sweep(given) else given
                words = _with_saved_overrides([as_option(word) for word in given])
                check_program(words, config_name)
                sys.argv[1:] = _with_backbones_own(words) if config_name == "finetune" else words
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
        if any(word.startswith("debug=") for word in sys.argv) and not isinstance(error, ArmsFailed):
            traceback.print_exception(error)
        print(f"error: {sentence(error, config_name)}", file=sys.stderr)
    raise SystemExit(1 if isinstance(failures[-1], ArmsFailed) else 2)


def sentence(error: BaseException, config_name: str) -> str:
    """What to tell the user, whatever raised it."""
    link: BaseException | None = error
    while link is not None:  # Hydra wraps what a constructor raised
        if isinstance(link, (ConfigError, ArmsFailed)):
            return str(link).strip().splitlines()[-1].removeprefix("unmask.errors.ConfigError: ")  # from a worker
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


def as_option(word: str) -> str:
    """`mask_ratio=15,75` as `mask_ratio='15','75'`: options are names, and Hydra takes a bare number for a number."""
    group, equals, options = word.partition("=")
    if not equals or not (CONF / group).is_dir() or options.startswith("range("):
        return word
    return group + equals + re.sub(r"(?<![\w.'\"])\d+(?![\w.'\"])", r"'\g<0>'", options)


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


def _with_saved_overrides(words: list[str]) -> list[str]:
    """A command line with `resume=`, completed by what the run was started with; what is given now wins.

    Composing anew keeps every value that refers to another in step with it.

    Raises:
        ConfigError: the folder is no run.
    """
    given = {_key(word) for word in words}
    if "resume" not in given:
        return words
    folder = next(word.partition("=")[2].strip("'\"") for word in words if _key(word) == "resume")
    if folder in ("", "null"):
        return words
    path = Path(folder) / "overrides.json"
    if not path.is_file():
        raise ConfigError(
            f"resume={folder} is not a run: it holds no overrides.json. Give the folder that the run printed, "
            "usually outputs/<name>/<time>."
        )
    if "trainer.duration" in given:  # these two say the same thing
        given.add("trainer.max_steps")
    return _beside("resume", [word for word in json.loads(path.read_text()) if _key(word) not in given], words)


def _with_backbones_own(words: list[str]) -> list[str]:
    """A command line with `backbone=<folder>`, completed by its modality and, unless told, the data it was trained on.

    Raises:
        ConfigError: the folder holds no backbone, or a size is given that only the backbone can have.
    """
    given = {_key(word): word.partition("=")[2] for word in words}
    place = given.get("backbone", "").strip("'\"")
    if place in ("", "???", "scratch"):
        return words
    if not Path(place).exists() and "," in place:  # a sweep: what is completed is the same for all
        place = next((part for part in place.split(",") if part != "scratch"), place)
    run = Path(place).parent if Path(place).name == "backbone" else Path(place)
    described = next((p for p in (run / "backbone" / "config.json", run / "config.json") if p.is_file()), None)
    if described is None:
        raise ConfigError(
            f"backbone={place} holds no backbone. Give the folder of a pretraining run that has ended, its folder "
            "backbone/, or scratch."
        )
    own = next((key for key in given if key.split(".")[0] in ("model", "modality") and key != "modality"), None)
    if own is not None:
        raise ConfigError(f"{own}={given[own]}: the backbone brings its own. Leave it out, or use backbone=scratch.")
    kind = json.loads(described.read_text())["modality"]["class"].split(".")[-2]
    added = [] if "modality" in given else [f"modality={kind}"]
    if not (run / "config.yaml").is_file() or "data" in given or "experiment" in given:
        return _beside("backbone", added, words)
    saved = OmegaConf.load(run / "config.yaml").data
    added.append(f"data={saved.name}")
    told = {key: saved.get(key) for key in OF_SOURCES if f"data.{key}" not in given}
    added += [f"data.{k}={repr(v) if isinstance(v, str) else v}" for k, v in told.items() if v is not None]
    overrides = json.loads((run / "overrides.json").read_text())
    added += [word for word in overrides if _key(word).startswith("data.source.") and _key(word) not in given]
    return _beside("backbone", added, words)


def _beside(key: str, added: list[str], words: list[str]) -> list[str]:
    """A command line with more words at one: Hydra wants all overrides in a row, on one side of `-m` or `--cfg`."""
    at = next(i for i, word in enumerate(words) if _key(word) == key)
    return words[:at] + added + words[at:]


def check_program(words: list[str], config_name: str) -> None:
    """Experiments are of one of the two programs: those of fine-tuning choose a task.

    Raises:
        ConfigError: one is given to the other.
    """
    chosen = next((word.partition("=")[2] for word in words if _key(word) == "experiment"), "")
    for name in chosen.strip("'\"").split(","):
        path = CONF / "experiment" / f"{name}.yaml"
        if not path.is_file():
            continue
        groups = [group for entry in OmegaConf.select(OmegaConf.load(path), "defaults") or [] for group in entry]
        program = "finetune" if any(group.endswith("/task") for group in groups) else "train"
        if program != config_name:
            raise ConfigError(f"experiment={name} is for {program}.py. Run: python {program}.py experiment={name} ...")


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _check_same_run(cfg: DictConfig) -> None:
    """A resumed run may last longer, log more or load otherwise, but what was being trained must stay.

    Raises:
        ConfigError: something would change.
    """
    saved = OmegaConf.load(Path(cfg.resume) / "config.yaml")
    for key in FIXED:
        before, now = OmegaConf.select(saved, key), OmegaConf.select(cfg, key)
        pairs = [(key, before, now)]
        if OmegaConf.is_dict(before):
            # A key that came with a later version was at what is its default now.
            pairs = [(f"{key}.{name}", before[name], now.get(name)) for name in before]
        for name, old, new in pairs:
            if old != new and name not in ("optimizer.fused", "modality.kind"):
                raise ConfigError(
                    f"{name} was {old} in {cfg.resume} and would become {new}: that is another run. "
                    "Leave it as it was, or start a new run without resume=."
                )
