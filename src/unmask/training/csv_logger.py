"""metrics.csv: one row a logged step, one column a metric, kept across resumes."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


class CSVLogger(Logger):
    """Appends to `metrics.csv`; Lightning's own deletes the file when a run is resumed.

    Args:
        folder: the run folder.
        start_step: rows of later steps are dropped, since a resumed run writes them again.

    """

    def __init__(self, folder: Path, start_step: int) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self.columns = ["step"]
        if self.path.exists():
            with self.path.open(newline="") as file:
                reader = csv.DictReader(file)
                rows = [row for row in reader if int(row["step"]) <= start_step]
                self._rewrite(list(reader.fieldnames or self.columns), rows)

    @property
    def name(self) -> str:
        """Lightning wants one."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning wants one."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Those are in the run folder's config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write a row at once; metrics logged at one step by several callbacks get a row each."""
        new = [name for name in metrics if name not in self.columns]
        if new or not self.path.exists():
            rows: list[dict[str, str]] = []
            if self.path.exists():
                with self.path.open(newline="") as file:
                    rows = list(csv.DictReader(file))
            self._rewrite(self.columns + new, rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow({"step": step, **metrics})

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        self.columns = columns
        aside = self.path.with_suffix(".tmp")
        with aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        aside.replace(self.path)
