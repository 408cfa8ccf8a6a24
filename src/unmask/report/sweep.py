"""What the page of a sweep says."""

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unmask.records import SWEEP, differences, read_config, read_json, read_metrics
from unmask.report.arms import Arm, Group, group, metric_of, ordered, read_arms
from unmask.report.charts import Chart, curves
from unmask.report.effects import by_key, parallel
from unmask.report.media import Room, embed_all, latest

MOST = 12  # settings in one chart, gallery or table of differences
TAIL = 12  # last lines of a log
CURVES = {"loss": "Loss", "knn_accuracy": "k-NN accuracy", "effective_rank": "Effective rank of features"}
SAME = ("seed", "run_dir", "resume")  # differ from arm to arm and say nothing
PROBLEMS = ("failed", "interrupted", "stopped", "killed")


def sweep_page(folder: Path) -> dict[str, Any]:
    """For `page/sweep.html`."""
    arms, said = read_arms(folder), read_json(folder / SWEEP) or {}
    varied = dict.fromkeys([*said.get("varied", []), *(key for arm in arms for key in arm.values)])
    keys = [key for key in varied if len({arm.values.get(key) for arm in arms}) > 1 and key != "seed"]
    metric = metric_of(arms)
    groups = group(arms, keys, metric)
    finished = [g for g in groups if g.mean is not None]
    return {
        "title": folder.resolve().name,
        "said": said,
        "arms": arms,
        "health": {arm.folder.name: read_json(arm.folder / "collapse.json") for arm in arms},
        "linked": {arm.folder.name for arm in arms if (arm.folder / "report.html").is_file()},
        "counts": Counter(arm.state for arm in arms),
        "seconds": sum(arm.seconds or 0 for arm in arms),
        "keys": keys,
        "seeds": ordered({arm.seed for arm in arms if arm.seed}),
        "metric": metric,
        "then": list(dict.fromkeys(task for arm in arms for task in arm.then)),
        "groups": groups,
        "charts": effects(finished, keys, metric),
        "heat": heat(finished, keys) if len(keys) == 2 else None,
        "curves": arm_curves(groups[:MOST]),
        "differences": arm_differences(groups[:MOST]),
        "pictures": gallery(groups[:MOST], folder),
        "most": MOST,
        "problems": [(arm, log_tail(arm)) for arm in arms if arm.state in PROBLEMS],
    }


def effects(groups: Sequence[Group], keys: Sequence[str], metric: str | None) -> list[Chart]:
    """The metric over the keys: lines for one or two, parallel axes and each key alone for more."""
    if not groups or not keys or metric is None:
        return []
    if len(keys) <= 2:
        return [by_key(groups, keys, metric)]
    return [parallel(groups, keys, metric), *(by_key(groups, [key], metric) for key in keys)]


def heat(groups: Sequence[Group], keys: Sequence[str]) -> dict[str, Any]:
    """A table of two keys: means, and how far each lies between the least and the greatest, 0 to 1."""
    cells = {tuple(value for _, value in g.setting): g for g in groups}
    rows, columns = (ordered({cell[i] for cell in cells}) for i in range(2))
    means = [g.mean for g in groups if g.mean is not None]
    low, span = min(means, default=0), max(means, default=0) - min(means, default=0)
    share = {at: (g.mean - low) / span if span else 0.5 for at, g in cells.items() if g.mean is not None}
    return {"rows": rows, "columns": columns, "cells": cells, "share": share}


def arm_curves(groups: Sequence[Group]) -> list[Chart]:
    """Means over seeds, a line for each setting, of metrics that were logged more than once."""
    read = [(g, [read_metrics(arm.folder / "metrics.csv") for arm in g.arms]) for g in groups]
    names = [n for n in CURVES if any(n in metrics for _, seeds in read for metrics in seeds)]
    held_out = {n for _, seeds in read for m in seeds for n in m if n.startswith("validation/")}
    charts = []
    for name in [*names, *sorted(held_out)]:
        lines = {g.label: mean_curve([m[name] for m in seeds if name in m]) for g, seeds in read}
        lines = {label: line for label, line in lines.items() if len(line[0]) > 1}
        if lines:
            charts.append(curves(CURVES.get(name, name), lines, {g.label: i for i, g in enumerate(groups)}))
    return charts


def mean_curve(seeds: Sequence[tuple[list[int], list[float]]]) -> tuple[list[int], list[float]]:
    """Over those that have come so far, at each step that any of them has."""
    at: dict[int, list[float]] = {}
    for steps, values in seeds:
        for step, value in zip(steps, values, strict=True):
            at.setdefault(step, []).append(value)
    return sorted(at), [statistics.fmean(at[step]) for step in sorted(at)]


def arm_differences(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Keys of the resolved config that are not the same in all settings, by the first arm of each."""
    configs = {g.label: read_config(g.arms[0].folder) for g in groups}
    rows = differences({label: config for label, config in configs.items() if config})
    return {key: row for key, row in rows.items() if key not in SAME and not key.startswith("paths.")}


def gallery(groups: Sequence[Group], folder: Path) -> list[tuple[str, list[Any]]]:
    """What the first arm of each setting has drawn last."""
    room = Room()
    shown = [(g.label, embed_all(latest(g.arms[0].folder), folder, room)) for g in groups]
    return [(label, media) for label, media in shown if media]


def log_tail(arm: Arm) -> str:
    """The last lines that an arm has printed."""
    path = arm.folder / "log.txt"
    return "\n".join(path.read_text(errors="replace").splitlines()[-TAIL:]) if path.is_file() else ""
