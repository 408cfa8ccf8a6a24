"""What the page of a run says."""

from pathlib import Path
from typing import Any

from unmask.records import read_config, read_json, read_metrics, read_run, tables
from unmask.report.charts import run_charts
from unmask.report.media import Room, earlier, embed_all, latest
from unmask.words import shown


def run_page(folder: Path) -> dict[str, Any]:
    """For `page/run.html`."""
    run, metrics, config = read_run(folder), read_metrics(folder / "metrics.csv"), read_config(folder)
    starts = read_json(folder / "environment.json") or [{}]
    room = Room()
    tested = [path for path in sorted(folder.glob("*.png")) if path.is_file()]
    pictures = embed_all(latest(folder) or tested, folder, room)
    hidden = folder / "pictures" / "hidden.png"
    return {
        "title": "/".join(folder.resolve().parts[-2:]),
        "run": run,
        "facts": _facts(run.metrics, run.main),
        "tables": tables(folder),
        "health": read_json(folder / "collapse.json"),
        "pictures": pictures,
        "hidden": embed_all([hidden] if hidden.is_file() else [], folder, room),
        "earlier": embed_all(earlier(folder), folder, room),
        "charts": run_charts(metrics),
        "given": read_json(folder / "overrides.json") or [],
        "config": _grouped(config),
        "environment": starts[-1],
        "starts": len(starts),
        "files": sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if not path.name.startswith(".")),
    }


def _facts(metrics: dict[str, float], main: str | None) -> list[tuple[str, str]]:
    """Numbers that are looked at first: the main metric, then what goes with it."""
    names = [main, "knn_accuracy", "loss", "effective_rank", "samples_per_second", "memory_gb"]
    return [(n.replace("_", " "), shown(n, metrics[n])) for n in dict.fromkeys(names) if n is not None and n in metrics]


def _grouped(config: dict[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """Keys of a flat config by their group; those without one first."""
    groups: dict[str, list[tuple[str, Any]]] = {"": []}
    for key, value in config.items():
        group, dot, rest = key.partition(".")
        groups.setdefault(group if dot else "", []).append((rest or key, value))
    return groups
