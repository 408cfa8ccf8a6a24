"""A run is a folder: what it was, on what, with what."""

import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from unmask.checkout import commit
from unmask.errors import ConfigError
from unmask.files import written_whole
from unmask.secret import without_secrets

PACKAGES = ("torch", "torchvision", "torchaudio", "lightning", "hydra-core", "omegaconf", "wandb", "unmask")
DONE = "done"


def open_folder(folder: Path, resumed: bool) -> None:
    """Make the run folder.

    Raises:
        ConfigError: it holds another run, or cannot be written to.
    """
    if not resumed and (folder / "config.yaml").exists():
        raise ConfigError(
            f"run_dir={folder} already holds a run. Go on with resume={folder}, or choose another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ConfigError(f"run_dir={folder} cannot be written to: {error.strerror}. Choose another folder.") from error


def write_record(folder: Path, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """`overrides.json`, to resume from; `environment.json`, an entry a start; at last `config.yaml`. No secrets."""
    (folder / DONE).unlink(missing_ok=True)
    started = {
        "command": [without_secrets(word) or "<secret>" for word in sys.argv],
        "git": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    path = folder / "environment.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    with written_whole(path) as aside:
        aside.write_text(json.dumps([*starts, started], indent=2) + "\n")
    kept = [word for word in overrides if without_secrets(word) and word.partition("=")[0] not in ("resume", "run_dir")]
    with written_whole(folder / "overrides.json") as aside:
        aside.write_text(json.dumps(kept, indent=2) + "\n")
    with written_whole(folder / "config.yaml") as aside:
        aside.write_text(OmegaConf.to_yaml(OmegaConf.create(public(cfg))))


def mark_done(folder: Path) -> None:
    """The last thing that a whole run writes."""
    with written_whole(folder / DONE) as aside:
        aside.write_text(datetime.now(UTC).isoformat(timespec="seconds") + "\n")


def check_same_data(folder: Path, name: str, samples: int, preprocessing: dict[str, Any]) -> None:
    """`data.json`, what a run learns from, which must be there again when it is resumed.

    Args:
        folder: the run's.
        name: of the data, for the message.
        samples: that are learned from.
        preprocessing: what makes model inputs of them, a trained tokenizer with it; as plain types.

    Raises:
        ConfigError: the data has changed.
    """
    path = folder / "data.json"
    digest = hashlib.sha256(json.dumps(preprocessing, sort_keys=True).encode()).hexdigest()[:16]
    now = {"samples": samples, "preprocessing": digest}
    if not path.exists():
        with written_whole(path) as aside:
            aside.write_text(json.dumps(now) + "\n")
        return
    before = json.loads(path.read_text())
    if before != now:
        what = (
            f"has {samples} training samples, and had {before['samples']}"
            if before["samples"] != samples
            else "is read otherwise (another tokenizer, say) than"
        )
        raise ConfigError(
            f"resume={folder}: data={name} {what} when the run began: going on would be another run. "
            "Bring the data back, or start a new run."
        )


def public(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain types, resolved, except where that would write down a secret of the environment."""
    raw, resolved = (OmegaConf.to_container(cfg, resolve=resolve) for resolve in (False, True))
    cleaned = _cleaned(raw, resolved)
    assert isinstance(cleaned, dict)
    return cleaned


def _cleaned(raw: Any, resolved: Any) -> Any:
    if isinstance(resolved, dict):
        return {key: _cleaned(raw[key] if isinstance(raw, dict) else None, value) for key, value in resolved.items()}
    if isinstance(resolved, list):
        return [_cleaned(r, v) for r, v in zip(raw if isinstance(raw, list) else resolved, resolved, strict=True)]
    if isinstance(resolved, str) and without_secrets(resolved) is None:
        return raw if isinstance(raw, str) and without_secrets(raw) else "<secret>"
    return resolved
