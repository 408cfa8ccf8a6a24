"""Cores and GPUs, divided among the arms that run at a time."""

import os
from dataclasses import dataclass
from pathlib import Path

from unmask.errors import ConfigError


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Names of NVIDIA's devices for CUDA_VISIBLE_DEVICES, found without loading torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    return [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]


@dataclass(frozen=True)
class Share:
    """What one of the arms that run at a time may use.

    Attributes:
        threads: of all its processes together.
        gpus: empty where there are none.
    """

    threads: int
    gpus: tuple[str, ...]

    def environment(self, devices: int) -> dict[str, str]:
        """Variables for an arm of so many processes; a thread count that the user has set stays."""
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, self.threads // devices))
        return {"OMP_NUM_THREADS": threads} | ({"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {})


def shares(parallel: int | str, devices: int) -> list[Share]:
    """One for each arm at a time; more arms than GPUs take turns on them.

    Args:
        parallel: arms at a time; `auto` for as many as the GPUs suffice for, or one.
        devices: that an arm uses.

    Raises:
        ConfigError: arms of several GPUs would have to share one.
    """
    found = gpus()
    count = max(1, len(found) // devices) if parallel == "auto" else int(parallel)
    each = len(found) // count
    if found and devices > max(each, 1):
        raise ConfigError(
            f"sweep.parallel={count} leaves {each} of {len(found)} GPUs to an arm, and trainer.devices={devices}. "
            f"Choose sweep.parallel={max(1, len(found) // devices)}."
        )
    threads = max(1, cores() // count)
    if not found:
        return [Share(threads, ())] * count
    return [Share(threads, tuple(found[i * each : (i + 1) * each]) or (found[i % len(found)],)) for i in range(count)]
