"""Two or more ways of doing the same, timed in turn in one process: machines drift, ratios of neighbours do not."""

import statistics
import time
from collections.abc import Callable

Step = Callable[[], None]


def interleaved(sides: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in every round, after one round that is not counted."""
    for step in sides.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, step in sides.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(over: list[float], under: list[float]) -> str:
    """Median, least and most of the rounds' quotients."""
    quotients = [a / b for a, b in zip(over, under, strict=True)]
    middle = statistics.median(quotients)
    return f"{middle:.2f} ({min(quotients):.2f}-{max(quotients):.2f} over {len(quotients)} rounds)"
