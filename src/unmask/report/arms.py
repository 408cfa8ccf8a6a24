"""Arms of a sweep: what its ledger says of each, and means over seeds."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from unmask.records import SMALLER_IS_BETTER, find_runs, read_json, read_run
from unmask.words import NOTHING

LEDGER = "ledger.jsonl"
Setting = tuple[tuple[str, str], ...]  # pairs of key and value


class Arm(NamedTuple):
    """One run of a sweep.

    Attributes:
        folder: of the run; it may not be there yet.
        values: of the keys that were varied.
        state: `queued`, `running`, `done`, `pruned`, `failed`, `interrupted`, or what its own folder says.
        attempt: which one it is.
        reason: why it is not done.
        metric: of its end; None where there is none.
        metric_name: which one.
        seconds: how long it took.
        then: of each fine-tuning that followed, the metric's name and value.
    """

    folder: Path
    values: dict[str, str]
    state: str
    attempt: int
    reason: str | None
    metric: float | None
    metric_name: str | None
    seconds: float | None
    then: Mapping[str, tuple[str, float]] = MappingProxyType({})

    @property
    def seed(self) -> str:
        """Of its random choices, where those were varied."""
        return self.values.get("seed", "")


class Group(NamedTuple):
    """Arms that differ in their seed alone.

    Attributes:
        setting: the values of the other keys.
        arms: those that have a metric first.
        mean: of the metric; None where no arm has one.
        half: of the 95 % interval of the mean, Student's t over seeds; None with fewer than three.
    """

    setting: Setting
    arms: list[Arm]
    mean: float | None
    half: float | None

    @property
    def label(self) -> str:
        """`mae, 75`: the keys stand at the head of a table or legend."""
        return ", ".join(value for _, value in self.setting) or "all"

    @property
    def metrics(self) -> list[float]:
        """Of its arms."""
        return [arm.metric for arm in self.arms if arm.metric is not None]


def read_arms(folder: Path) -> list[Arm]:
    """As the last line of the ledger about each says; without a ledger, every run in the folder."""
    ledger = folder / LEDGER
    if not ledger.is_file():
        return _compared([_from_run(path, {}) for path in find_runs(folder)])
    last: dict[str, dict[str, object]] = {}
    for line in ledger.read_text().splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:  # being written
            continue
        last[event["arm"]] = event
    return [_from_event(folder / name, event) for name, event in last.items()]


def _from_event(path: Path, event: dict) -> Arm:  # type: ignore[type-arg]
    """What the ledger leaves open, the run's own folder says."""
    values = {key: str(value) for key, value in event["values"].items()}
    metric, name = event.get("metric"), event.get("metric_name")
    if metric is None and event["state"] == "done":
        own = _from_run(path, values)
        metric, name = own.metric, own.metric_name
    return Arm(
        path, values, event["state"], event["attempt"], event.get("reason"), metric, name, event.get("seconds"),
        event.get("then", {}),
    )  # fmt: skip


def _from_run(path: Path, values: dict[str, str]) -> Arm:
    run = read_run(path)
    value = run.value if run.state == "done" else None
    return Arm(path, values, run.state, 1, run.reason, value, run.main, run.seconds)


def _compared(arms: list[Arm]) -> list[Arm]:
    """Arms of runs that were started one by one differ in what their command lines gave."""
    given = [dict(word.partition("=")[::2] for word in read_json(arm.folder / "overrides.json") or []) for arm in arms]
    keys = [k for k in dict.fromkeys(k for words in given for k in words) if len({w.get(k) for w in given}) > 1]
    return [
        arm._replace(values={key: words.get(key, NOTHING) for key in keys})
        for arm, words in zip(arms, given, strict=True)
    ]


def metric_of(arms: Sequence[Arm]) -> str | None:
    """The metric that most arms have; numbers of another are not compared with it."""
    counted = Counter(arm.metric_name for arm in arms if arm.metric is not None)
    return counted.most_common(1)[0][0] if counted else None


def group(arms: Sequence[Arm], keys: Sequence[str], metric: str | None) -> list[Group]:
    """Arms with the same values of `keys`, best mean first, those without a metric last."""
    found: dict[Setting, list[Arm]] = {}
    for arm in arms:
        found.setdefault(tuple((key, arm.values.get(key, NOTHING)) for key in keys), []).append(arm)
    groups = []
    for setting, members in found.items():
        judged = [arm for arm in members if arm.metric is not None and arm.metric_name == metric]
        values = [arm.metric for arm in judged if arm.metric is not None]
        mean = statistics.fmean(values) if values else None
        groups.append(Group(setting, judged + [a for a in members if a not in judged], mean, half_interval(values)))
    sign = 1 if metric is not None and SMALLER_IS_BETTER.search(metric) else -1
    return sorted(groups, key=lambda g: math.inf if g.mean is None else sign * g.mean)


def half_interval(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of a mean by Student's t; None with fewer than three values, where it says nothing."""
    if len(values) < 3:
        return None
    from scipy.special import stdtrit  # a tenth of a second that only sweeps pay

    return float(stdtrit(len(values) - 1, 0.975) * statistics.stdev(values) / math.sqrt(len(values)))


def ordered(values: set[str]) -> list[str]:
    """Numbers by size, before words."""
    return sorted(values, key=lambda v: (0, number(v), v) if number(v) is not None else (1, 0.0, v))


def number(text: str) -> float | None:
    """The number that a value is."""
    try:
        return float(text)
    except ValueError:
        return None
