"""Files of results that long measurements fill, row by row: what was broken off goes on where it was."""

import csv
import math
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import stdev

from scipy.stats import t as student


class Results:
    """A CSV file with a row for each arm of a measurement.

    Args:
        path: of the file, which need not be there.
        columns: all of them.
        keys: how many of these, from the first, tell arms apart.
    """

    def __init__(self, path: Path, columns: Sequence[str], keys: int) -> None:
        self.path, self.columns, self.keys = path, columns, keys
        self._lock = threading.Lock()

    def rows(self) -> list[dict[str, str]]:
        """What is written down."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def missing(self, arms: Iterable[tuple[object, ...]]) -> list[tuple[object, ...]]:
        """The arms that are not written down."""
        there = {tuple(row[key] for key in self.columns[: self.keys]) for row in self.rows()}
        return [arm for arm in arms if tuple(map(str, arm)) not in there]

    def fill(self, arms: Iterable[tuple[object, ...]], run: Callable[..., dict[str, object]], jobs: int) -> int:
        """Run the arms that are not written down, so many at a time, each written as it is done; how many failed."""

        def one(arm: tuple[object, ...]) -> bool:
            try:
                self._add(run(*arm))
            except RuntimeError as error:
                print(error, file=sys.stderr, flush=True)
                return False
            return True

        with ThreadPoolExecutor(jobs) as pool:
            return sum(not good for good in pool.map(one, self.missing(arms)))

    def _add(self, row: dict[str, object]) -> None:
        with self._lock:
            new = not self.path.exists()
            with self.path.open("a", newline="") as file:
                writer = csv.DictWriter(file, self.columns, lineterminator="\n")
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(*(f"{key} {value}" for key, value in row.items() if len(str(value)) < 60), flush=True)


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean, by Student's t; infinite for fewer than two values."""
    count = len(values)
    return student.ppf(0.975, count - 1) * stdev(values) / math.sqrt(count) if count > 1 else math.inf
