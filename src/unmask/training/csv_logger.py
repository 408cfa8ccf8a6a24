"""metrics.csv: one row for each time something is logged, one column a metric, kept across resumes."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from unmask.files import written_whole


class CSVLogger(Logger):
    """Appends to `metrics.csv`; Lightning's own deletes the file when a run is resumed.

    Args:
        folder: the run folder.
        start_step: rows of later steps are dropped, since a resumed run writes them again.
    """

    def __init__(self, folder: Path, start_step: int) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._drop_after(start_step)

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
        """Write a row at once."""
        new = [name for name in metrics if name not in self.columns]
        if new:
            self._rewrite(self.columns + new, self._rows())
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow({"step": step, **metrics})

    @rank_zero_only
    def _drop_after(self, step: int) -> None:
        self.columns = ["step"]
        rows = self._rows()
        if rows:
            self.columns = list(rows[0])
        self._rewrite(self.columns, [row for row in rows if row["step"].isdecimal() and int(row["step"]) <= step])

    def _rows(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        self.columns = columns
        with written_whole(self.path) as aside, aside.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
