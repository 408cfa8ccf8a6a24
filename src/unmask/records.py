"""What run and sweep folders say of themselves, read without torch: a thousand of them in less than a second."""

import csv
import json
import math
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SUMMARY = "summary.json"
CONFIG = "config.yaml"
SWEEP = "sweep.json"
SMALLER_IS_BETTER = re.compile(r"(^|[/_])(loss|wer|cer|rmse|mae|severity|seconds|gb|wait_share)$")
MAIN = ("linear_accuracy", "knn_accuracy", "loss")  # of a pretraining: the first that it has


class Run(NamedTuple):
    """A run folder in short.

    Attributes:
        folder: where it lies.
        state: `running`, `done`, `stopped` by a signal, `failed`, or `killed`, where its process is gone without word.
        started: seconds since 1970; 0 where the folder does not say.
        seconds: how long it took, or has been running for as far as is known.
        step: optimiser steps done.
        steps: those that were asked for; 0 where nothing is trained.
        metrics: the last value of each.
        main: the name of the metric that it is judged by.
        reason: why it failed or stopped.
    """

    folder: Path
    state: str
    started: float
    seconds: float
    step: int
    steps: int
    metrics: dict[str, float]
    main: str | None
    reason: str | None

    @property
    def value(self) -> float | None:
        """Of the main metric."""
        return None if self.main is None else self.metrics.get(self.main)


def read_run(folder: Path) -> Run:
    """A folder with a `config.yaml`, whatever else it holds."""
    said = read_json(folder / SUMMARY) or {"state": "killed", "started": 0.0, "seconds": 0.0, "step": 0, "steps": 0}
    state, metrics, step = said["state"], said.get("metrics"), said["step"]
    if metrics is None:  # it has not ended, or not by itself
        metrics, step = last_values(folder / "metrics.csv")
        if state == "running" and not _alive(said):
            state = "killed"
    return Run(
        folder, state, said["started"], said["seconds"], step, said["steps"], metrics,
        said.get("main") or main_metric(metrics), said.get("reason"),
    )  # fmt: skip


def find_runs(root: Path) -> Iterator[Path]:
    """Run folders below a folder, or itself; what lies within a run is part of it, and a sweep's code is no run."""
    if (root / CONFIG).is_file():
        yield root
        return
    code = "code" if (root / SWEEP).is_file() else None
    with os.scandir(root) as entries:
        folders = sorted(
            entry.path for entry in entries if entry.is_dir() and not entry.name.startswith(".") and entry.name != code
        )
    for folder in folders:
        yield from find_runs(Path(folder))


def read_json(path: Path) -> Any:
    """What a file holds; None where there is none, or one that another process is about to write."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def read_config(folder: Path) -> dict[str, Any]:
    """The keys of a run's `config.yaml`, flat: `optimizer.base_lr`."""
    import yaml  # libyaml's parser, where PyYAML has it, is ten times as fast as its own

    try:
        text = (folder / CONFIG).read_text()
    except FileNotFoundError:
        return {}
    return dict(_flat(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))))


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def differences(configs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of flat configs by name the keys that are not the same in all, with the value of each; missing is None."""
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    rows = {key: {name: config.get(key) for name, config in configs.items()} for key in keys}
    return {key: row for key, row in rows.items() if len({json.dumps(v, default=str) for v in row.values()}) > 1}


def read_metrics(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and finite values of each column of a `metrics.csv`."""
    columns: dict[str, tuple[list[int], list[float]]] = {}
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                step = row.pop("step", "")
                if step is None or not step.isdecimal():  # a line that is being written
                    continue
                for name, text in row.items():
                    value = _number(text)
                    if name and value is not None:
                        steps, values = columns.setdefault(name, ([], []))
                        steps.append(int(step))
                        values.append(value)
    return columns


def last_values(path: Path) -> tuple[dict[str, float], int]:
    """The last value of each metric, and the last step."""
    columns = read_metrics(path)
    step = max((steps[-1] for steps, _ in columns.values()), default=0)
    return {name: values[-1] for name, (_, values) in columns.items()}, step


def tables(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """What a run has judged, as title, row, column: frozen features beside baselines, a fine-tuning beside others."""
    probes = read_json(folder / "probes.json") or {}
    judged = {name: row for name, row in probes.items() if isinstance(row, dict)}
    compared = {name: row["scores"] for name, row in (read_json(folder / "comparison.json") or {}).items()}
    found = {"frozen features": judged, "test samples": compared}
    return {title: rows for title, rows in found.items() if rows}


def main_metric(metrics: dict[str, float]) -> str | None:
    """What a pretraining is judged by."""
    return next((name for name in MAIN if name in metrics), None)


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _alive(said: dict[str, Any]) -> bool:
    """Whether the process that wrote this is there; that of another machine is believed to be."""
    if said.get("host") != platform.node():
        return True
    try:
        os.kill(said["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's
        return True
    return True
