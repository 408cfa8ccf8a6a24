"""Names of sweeps and arms: readable, and different for what is different."""

import hashlib
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

LONGEST = 80  # characters of the readable part


def key_of(word: str) -> str:
    """`seed` of `++seed=1`."""
    return word.lstrip("+~").partition("=")[0]


def varied_keys(words: Sequence[str]) -> list[str]:
    """Keys of a command line that are swept: by a choice, a range or a glob, not by a list."""
    overrides = OverridesParser.create().parse_overrides([word for word in words if not word.startswith("-")])
    return [o.key_or_group for o in overrides if o.is_sweep_override() and not o.is_hydra_override()]


def sweep_name(program: str, words: Sequence[str]) -> str:
    """The same for the same command, whatever `sweep.` says of how it is run."""
    kept = [word for word in words if not word.startswith("-") and key_of(word).partition(".")[0] != "sweep"]
    keys = [key.rpartition(".")[2].rpartition("/")[2] for key in varied_keys(kept)]
    return f"{_slug([program, *keys])}-{_hash(program, *kept)}"


def arm_name(values: dict[str, str], config: str) -> str:
    """What varies, and a hash of the whole config.

    Args:
        values: by key.
        config: as YAML, unresolved, so that no secret goes into it.
    """
    parts = []
    for key, value in values.items():
        number = re.fullmatch(r"[-+.\de]*\d[-+.\de]*|true|false|null", value)
        parts.append(f"{key.rpartition('.')[2]}{value}" if number else value)
    return f"{_slug(parts or ['arm'])}-{_hash(config)}"


def _slug(parts: Sequence[str]) -> str:
    """Safe in a path, in a shell and on Hydra's command line."""
    return "-".join(re.sub(r"[^\w.]+", "_", part[-30:]).strip("_.") or "_" for part in parts)[:LONGEST].rstrip("-.")


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]
