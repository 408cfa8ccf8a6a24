"""Curves as the page draws them: plain data, as in `page/report.js`."""

import re
from typing import Any

Chart = dict[str, Any]
Curves = dict[str, tuple[list[int], list[float]]]
POINTS = 400  # a curve, at most: more than a small picture has columns
# Titles, and which metrics share their axes. What fits none has a chart of its own.
GROUPS = {
    "Loss": r"loss",
    "Held-out samples": r"(knn|linear)_accuracy|validation/.*",
    "Learning rate": r"learning_rate",
    "Gradient norm": r"grad_norm",
    "Deviation of targets and predictions": r"(target|prediction)_std",
    "Effective rank of features": r"effective_rank|collapse/.*_rank",
    "Share of features that depends on the sample": r"collapse/.*_between_samples",
    "Spread of features": r"collapse/.*_(spread|deviation)",
    "Samples a second": r"samples_per_second",
    "Share of time waiting for data, of peak arithmetic used": r"data_wait_share|mfu",
    "Memory, GB": r"memory_gb",
}
LEFT_OUT = r"epoch|teraflop|step_seconds|visible_tokens_per_second|hidden_fraction_.*|collapse/.*|test/.*"


def run_charts(metrics: Curves) -> list[Chart]:
    """A chart for each group of metrics that the run has, then those of its objective's own."""
    charts = []
    left = dict(metrics)
    for title, pattern in GROUPS.items():
        names = [name for name in left if re.fullmatch(pattern, name)]
        if names:
            charts.append(curves(title, {_short(name): left.pop(name) for name in names}))
    return charts + [curves(name, {name: points}) for name, points in left.items() if not re.fullmatch(LEFT_OUT, name)]


def curves(title: str, lines: Curves, colors: dict[str, int] | None = None) -> Chart:
    """Lines over optimiser steps; a loss is drawn logarithmically where it spans three powers of ten or more."""
    values = [y for _, ys in lines.values() for y in ys]
    return {
        "kind": "lines", "title": title, "x": "step", "ticks": None,
        "log": title == "Loss" and min(values) > 0 and max(values) / min(values) > 1000,
        "lines": [_line(name, xs, ys, i if colors is None else colors[name])
                  for i, (name, (xs, ys)) in enumerate(lines.items())],
    }  # fmt: skip


def _line(name: str, xs: list[int], ys: list[float], color: int) -> dict[str, Any]:
    every = -(-len(xs) // POINTS)
    kept = sorted({*range(0, len(xs), every), len(xs) - 1})  # the last one too
    return {"name": name, "color": color, "x": [xs[i] for i in kept], "y": [ys[i] for i in kept]}


def _short(name: str) -> str:
    return name.removeprefix("collapse/").removeprefix("validation/").replace("_", " ")
