"""Which settings to try next, given how earlier ones did: a study of Optuna's in the sweep's folder."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from unmask.errors import ConfigError

STUDY = "study.db"  # any of Optuna's tools opens it


class Search:
    """A study that outlives its process: what was being tried when it ended is tried first.

    Args:
        folder: of the sweep.
        space: what may be tried, by key.
        trials: how many in all; failed ones count.
        direction: `minimize` or `maximize`.
        metric: the column of metrics.csv that is minded while an arm runs.
        prune: give up arms that are worse than the median of the others after as many steps.
    """

    def __init__(
        self, folder: Path, space: dict[str, BaseDistribution], trials: int, direction: str, metric: str | None,
        prune: bool,
    ) -> None:  # fmt: skip
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        self.space, self.trials, self.metric = space, trials, metric
        self.study = optuna.create_study(
            storage=f"sqlite:///{folder / STUDY}",
            study_name="sweep",
            direction=StudyDirection[direction.upper()],
            pruner=optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        # A search that is gone on with must not draw its first points once more.
        self.study.sampler = optuna.samplers.TPESampler(seed=len(self.study.trials), constant_liar=True)
        self.asked: list[Trial] = []
        self.pruned: set[int] = set()

    def ask(self, count: int) -> list[dict[str, str]]:
        """Up to so many settings, as words; none once there were enough."""
        self.asked = [Trial(self.study, t._trial_id) for t in self.study.get_trials(states=(TrialState.RUNNING,))]
        left = self.trials - len(self.study.trials)
        while len(self.asked) < count and left > 0:
            self.asked.append(self.study.ask(self.space))
            left -= 1
        self.pruned, self.seen = set(), dict.fromkeys(range(len(self.asked)), 0)
        return [_words(trial.params) for trial in self.asked]

    def tell(self, metrics: Sequence[float | None]) -> None:
        """What came of the settings that were asked for; None for nothing."""
        for i, (trial, metric) in enumerate(zip(self.asked, metrics, strict=True)):
            if i in self.pruned:
                self.study.tell(trial, state=TrialState.PRUNED)
            elif metric is None:
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                self.study.tell(trial, metric)

    def hopeless(self, index: int, run: Path) -> bool:
        """Whether to give up what was asked for as number `index`, by the numbers that its run has written so far."""
        path = run / "metrics.csv"
        if not path.is_file():
            return False
        with path.open(newline="") as file:
            rows = [(int(row["step"]), row.get(self.metric or "")) for row in csv.DictReader(file) if row["step"]]
        for step, value in rows:
            if value and step > self.seen[index]:
                self.asked[index].report(float(value), step)
                self.seen[index] = step
        if self.asked[index].should_prune():
            self.pruned.add(index)
        return index in self.pruned

    def best(self) -> tuple[float, dict[str, str]] | None:
        """Metric and settings; None if nothing was completed."""
        if not self.study.get_trials(states=(TrialState.COMPLETE,)):
            return None
        return self.study.best_value, _words(self.study.best_params)


def _words(settings: dict[str, Any]) -> dict[str, str]:
    """As on a command line; four digits of a number are enough to tell settings apart."""
    return {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in settings.items()}


def distribution(override: Override) -> BaseDistribution:
    """What Hydra's sweep syntax says, `tag(log, …)` and `int(…)` included; intervals and ranges have an order.

    Raises:
        ConfigError: an interval holds nothing.
    """
    value, log = override.value(), "log" in getattr(override.value(), "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            assert value.start is not None
            assert value.end is not None
            if isinstance(value.start, int) and isinstance(value.end, int):
                return IntDistribution(value.start, value.end, log=log)
            return FloatDistribution(float(value.start), float(value.end), log=log)
        if isinstance(value, RangeSweep) and not log and not value.shuffle:
            values = [float(word) for word in override.sweep_string_iterator()]
            if all(x.is_integer() for x in values) and isinstance(value.step, int):
                return IntDistribution(int(values[0]), int(values[-1]), step=value.step)
            return FloatDistribution(values[0], values[-1], step=float(value.step))
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise ConfigError(f"{override.input_line} is no space to search: {error}") from error
