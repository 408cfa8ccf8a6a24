"""The metric over the keys that a sweep has varied."""

from collections.abc import Sequence
from typing import Any

from unmask.records import SMALLER_IS_BETTER
from unmask.report.arms import Group, half_interval, number, ordered
from unmask.report.charts import Chart

FAR = 20  # times as large: numbers that far apart stand at equal distances


def by_key(groups: Sequence[Group], keys: Sequence[str], metric: str) -> Chart:
    """Means over the key with most numbers, a line for each value of the other one; other keys are averaged over."""
    spread = sorted(
        keys, key=lambda key: (all(number(v) is not None for v in _values(groups, key)), len(_values(groups, key)))
    )
    across = spread[-1]
    others = [key for key in keys if key != across]
    places = axis(_values(groups, across))
    lines: dict[str, dict[str, list[float]]] = {}
    for g in groups:
        setting = dict(g.setting)
        label = ", ".join(setting[key] for key in others)
        lines.setdefault(label, {}).setdefault(setting[across], []).extend(g.metrics)
    return {
        "kind": "effect", "title": f"{metric.replace('_', ' ')} by {across}",
        "x": across, "legend": ", ".join(others), "log": False,
        "ticks": [[x, value] for value, x in places.items()],
        "lines": [_effect(label, lines[label], places, i) for i, label in enumerate(ordered(set(lines)))],
    }  # fmt: skip


def _effect(label: str, found: dict[str, list[float]], places: dict[str, float], color: int) -> dict[str, Any]:
    """A line of means, with the ends of their intervals, and a dot for each arm."""
    at = sorted(found, key=places.__getitem__)
    means = [sum(found[value]) / len(found[value]) for value in at]
    halves = [half_interval(found[value]) for value in at]
    return {
        "name": label, "color": color, "x": [places[value] for value in at], "y": means,
        "low": [None if half is None else mean - half for mean, half in zip(means, halves, strict=True)],
        "high": [None if half is None else mean + half for mean, half in zip(means, halves, strict=True)],
        "dots": [[places[value], y] for value in at for y in found[value]],
    }  # fmt: skip


def parallel(groups: Sequence[Group], keys: Sequence[str], metric: str) -> Chart:
    """An axis for each key and one for the metric; a line for each setting, placed from 0 to 1 on every axis."""
    means = [g.mean for g in groups if g.mean is not None]
    low, span = min(means), (max(means) - min(means)) or 1.0
    axes, places = [], {}
    for key in keys:
        at = axis(_values(groups, key))
        first, wide = min(at.values()), (max(at.values()) - min(at.values())) or 1.0
        places[key] = {value: (x - first) / wide for value, x in at.items()}
        axes.append({"name": key, "ticks": [[y, value] for value, y in places[key].items()]})
    axes.append({"name": metric, "ticks": [[share, f"{low + share * span:.3g}"] for share in (0.0, 0.5, 1.0)]})
    smaller = bool(SMALLER_IS_BETTER.search(metric))
    lines = []
    for g, mean in zip(groups, means, strict=True):
        share = (mean - low) / span
        lines.append({"name": g.label, "value": mean, "good": 1 - share if smaller else share,
                      "y": [*(places[key][value] for key, value in g.setting), share]})  # fmt: skip
    title = f"{metric.replace('_', ' ')}, every setting"
    return {"kind": "parallel", "title": title, "log": False, "axes": axes, "lines": lines}


def axis(values: set[str]) -> dict[str, float]:
    """Where each value stands: numbers where they are, unless far apart; words at equal distances."""
    names = ordered(values)
    numbers = [x for x in map(number, names) if x is not None]
    if len(numbers) == len(names) and 0 < max(numbers) <= FAR * min(numbers):
        return dict(zip(names, numbers, strict=True))
    return {name: float(i) for i, name in enumerate(names)}


def _values(groups: Sequence[Group], key: str) -> set[str]:
    return {dict(g.setting)[key] for g in groups}
