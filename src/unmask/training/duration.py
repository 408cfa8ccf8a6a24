"""Lengths of training, in whatever unit a recipe states them, become optimiser steps here and nowhere else."""

import math
import re

from unmask.errors import ConfigError

_FORM = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][0-9]+)?)\s*(steps?|samples?|epochs?|%)?\s*")


def to_steps(key: str, value: str | float, samples: int, global_batch: int, total: int | None = None) -> int:
    """Optimiser steps in `500`, `"500 steps"`, `"40 epochs"`, `"1_000_000 samples"`, `"5 %"` or `0.05`.

    Args:
        key: what an error names.
        value: a bare whole number counts steps; a bare number below one is a fraction of `total`.
        samples: in an epoch.
        global_batch: samples an optimiser step.
        total: steps of the whole training, or None while that is what is being computed.

    Raises:
        ConfigError: the value has no meaning here.
    """
    match = _FORM.fullmatch(str(value))
    if not match:
        raise ConfigError(
            f"{key}={value} is no duration. "
            "Write '500 steps', '40 epochs', '100_000 samples', or '5 %' of the training."
        )
    number, unit = float(match[1].replace("_", "")), (match[2] or "").rstrip("s")
    if unit == "%" or (not unit and 0 < number < 1):
        if total is None:
            raise ConfigError(f"{key}={value} is a share of itself. Write it in steps, samples or epochs.")
        return math.floor(round(number * total / (100 if unit == "%" else 1), 6))  # 5 % of one step is none
    else:
        steps = number * {"": 1, "step": 1, "sample": 1 / global_batch, "epoch": samples / global_batch}[unit]
    return math.ceil(round(steps, 6))
