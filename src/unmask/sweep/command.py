"""The command line of a sweep: where its folder is, and whether it has been begun."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from unmask.checkout import ROOT, differs
from unmask.errors import ConfigError
from unmask.sweep.arm import quoted
from unmask.sweep.naming import key_of, sweep_name

MULTIRUN = {"-m", "--multirun", "hydra.mode=MULTIRUN"}
HELP = ("--help", "-h", "--hydra-help")
LOOKS = {*HELP, "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc"}  # nothing is run


def is_sweep(words: Sequence[str]) -> bool:
    """Whether a command line starts one, or goes on with one.

    Raises:
        ConfigError: it wants to run and to look.
    """
    many, look = not MULTIRUN.isdisjoint(words), next((word for word in words if word in LOOKS), None)
    if many and look not in (None, *HELP):
        raise ConfigError(f"-m runs arms, and {look} shows one config. Leave out -m, and give one value for each key.")
    return look is None and (many or any(key_of(word) == "sweep.resume" for word in words))


def with_folder(words: Sequence[str], program: str) -> list[str]:
    """A sweep's command line, completed by its folder; no return if it was begun: its frozen code goes on with it.

    Raises:
        ConfigError: what is to be gone on with is no sweep, or would be another one.
    """
    given = {key_of(word): word.partition("=")[2].strip("'\"") for word in words}
    for key in ("resume", "run_dir"):
        if given.get(key, "null") != "null":
            raise ConfigError(
                f"{key}={given[key]} is one folder, and each arm of a sweep has its own. Leave it out; to go on with "
                "a sweep, run the same command again or give sweep.resume=<sweep folder>."
            )
    if "sweep.resume" in given:
        folder = Path(given["sweep.resume"])
        words = _saved_words(folder, program, words)
    elif "hydra.sweep.dir" in given:
        folder = Path(given["hydra.sweep.dir"])
    else:
        folder = _outputs(given) / "sweeps" / (given.get("sweep.name") or sweep_name(program, words))
    words = [word for word in words if word not in MULTIRUN and key_of(word) not in ("hydra.sweep.dir", "sweep.resume")]
    words = ["-m", *words, f"hydra.sweep.dir={quoted(folder)}"]
    frozen = folder.resolve() / "code"
    if (frozen / f"{program}.py").is_file() and ROOT.resolve() != frozen:
        if differs(frozen):
            print(f"note:    code or configs have changed since; this sweep goes on with its own in {frozen}.")
            print("         For the new ones start another sweep: sweep.name=<new name>.")
        sys.stdout.flush()
        path = os.pathsep.join(filter(None, [str(frozen / "src"), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, str(frozen / f"{program}.py"), *words]
        os.execve(sys.executable, command, os.environ | {"PYTHONPATH": path})
    return words


def _saved_words(folder: Path, program: str, words: Sequence[str]) -> list[str]:
    if not (folder / "sweep.json").is_file():
        raise ConfigError(
            f"sweep.resume={folder} is no sweep: it holds no sweep.json. Give the folder that the sweep printed, "
            "usually outputs/sweeps/<name>."
        )
    saved = json.loads((folder / "sweep.json").read_text())
    if saved["program"] != program:
        raise ConfigError(f"sweep.resume={folder} is of {saved['program']}.py. Run that instead of {program}.py.")
    extra = [word for word in words if not word.startswith("-")]
    other = next((word for word in extra if key_of(word).partition(".")[0] != "sweep"), None)
    if other is not None:
        raise ConfigError(f"{other}: sweep.resume goes on with what was started. Beside it goes only sweep.*=...")
    return ["-m", *saved["words"], *extra]


def _outputs(given: dict[str, str]) -> Path:
    """Where runs lie, before anything is composed: a sweep that was begun is composed of its own frozen configs."""
    choice = ROOT / "conf" / "paths" / f"{given.get('paths', 'default')}.yaml"
    if "paths.outputs" in given or not choice.is_file():
        return Path(given.get("paths.outputs", "outputs"))
    return Path(OmegaConf.load(choice).outputs)
