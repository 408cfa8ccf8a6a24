"""Runs in the terminal, without loading torch.

python -m unmask.runs list [FOLDER]               newest last; FOLDER is outputs/ unless told
python -m unmask.runs best [METRIC] [FOLDER]      the ten best by a metric, or by what each is judged by
python -m unmask.runs show RUN                    one run
python -m unmask.runs diff RUN RUN                what differs in their configs, and what came out
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unmask.errors import ConfigError, nearest
from unmask.records import (
    CONFIG,
    SMALLER_IS_BETTER,
    Run,
    differences,
    find_runs,
    read_config,
    read_json,
    read_run,
    tables,
)
from unmask.words import NOTHING, command, lasting, plain, shown, when

OUTPUTS = "outputs"
BEST = 10


def list_runs(folder: str = OUTPUTS) -> None:
    """Every run below a folder."""
    root = Path(folder)
    rows = [("started", "run", "state", "steps", "judged by", "")]
    for run in sorted(_read_all(root), key=lambda run: run.started):
        steps = f"{run.step}/{run.steps}" if run.steps else NOTHING
        main = shown(run.main, run.value)
        rows.append((when(run.started), _name(run, root), run.state, steps, run.main or NOTHING, main))
    _print(rows)


def best(metric: str | None = None, folder: str = OUTPUTS) -> None:
    """The best by a metric.

    Raises:
        ConfigError: no run has it.
    """
    if metric is not None and Path(metric).is_dir():
        best(None, metric)
        return
    root = Path(folder)
    runs = _read_all(root)
    name = metric or _most_common_main(runs)
    judged = [run for run in runs if name in run.metrics]
    if not judged:
        known = sorted({key for run in runs for key in run.metrics if not key.startswith("collapse/")})
        raise ConfigError(f"{name}: no run in {root} has this metric.{nearest(name, known)} {_choice(known)}")
    judged.sort(key=lambda run: run.metrics[name], reverse=not SMALLER_IS_BETTER.search(name))
    rows = [(shown(name, run.metrics[name]), _name(run, root), run.state, str(run.step)) for run in judged[:BEST]]
    _print([(name, "run", "state", "step"), *rows])


def show(place: str) -> None:
    """What one run was and what came out."""
    run = _read(place)
    starts = read_json(run.folder / "environment.json") or [{}]
    verdict = read_json(run.folder / "collapse.json")
    lines = {
        "run": run.folder,
        "state": run.state + (f": {run.reason}" if run.reason else ""),
        "started": f"{when(run.started)}, took {lasting(run.seconds)}",
        "steps": f"{run.step} of {run.steps}",
        "command": command(starts[-1].get("command", [])),
        "commit": starts[-1].get("git"),
        "features": "; ".join([verdict["state"], *verdict["reasons"]]) if verdict else None,
        "report": run.folder / "report.html" if (run.folder / "report.html").exists() else None,
    }
    _print([(key, str(value)) for key, value in lines.items() if value])
    for title, rows in tables(run.folder).items():
        judged = [(name, *(shown(key, value) for key, value in row.items())) for name, row in rows.items()]
        _print([(), (title, *next(iter(rows.values()))), *judged])
    _print([(), *((name, shown(name, number)) for name, number in sorted(run.metrics.items()))])


def diff(first: str, second: str) -> None:
    """Keys of the config that differ, then the metrics of both."""
    runs = [_read(first), _read(second)]
    found = differences({"first": read_config(runs[0].folder), "second": read_config(runs[1].folder)})
    rows = [(key, *map(plain, row.values())) for key, row in found.items() if key not in ("run_dir", "resume")]
    both = sorted(runs[0].metrics.keys() & runs[1].metrics.keys())
    came_out = [(name, *(shown(name, run.metrics[name]) for run in runs)) for name in both]
    _print([("key", "first", "second"), *rows, (), *came_out])


COMMANDS = {"list": list_runs, "best": best, "show": show, "diff": diff}
TAKES = {"list": (0, 1), "best": (0, 2), "show": (1, 1), "diff": (2, 2)}


def main(words: list[str]) -> None:
    """The command line.

    Raises:
        ConfigError: it is none.
    """
    if not words or words[0] not in COMMANDS:
        said = f"{words[0]}: there is no such command.{nearest(words[0], COMMANDS)} " if words else ""
        raise ConfigError(f"{said}Write python -m unmask.runs list, best, show RUN or diff RUN RUN.")
    least, most = TAKES[words[0]]
    if not least <= len(words) - 1 <= most:
        count = str(least) if least == most else f"{least} to {most}"
        raise ConfigError(f"{words[0]} takes {count} words after it, and there are {len(words) - 1}. See --help.")
    COMMANDS[words[0]](*words[1:])  # type: ignore[operator]


def _read_all(root: Path) -> list[Run]:
    runs = [read_run(folder) for folder in find_runs(root)] if root.is_dir() else []
    if not runs:
        raise ConfigError(f"{root} holds no run. Train one, or give the folder that runs lie in.")
    return runs


def _read(place: str) -> Run:
    folder = Path(place)
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{place} is no run: it holds no {CONFIG}. Give a folder that `list` shows.")
    return read_run(folder)


def _most_common_main(runs: list[Run]) -> str:
    counted = Counter(run.main for run in runs if run.main is not None)
    return counted.most_common(1)[0][0] if counted else "loss"


def _name(run: Run, root: Path) -> str:
    return str(run.folder.relative_to(root)) if run.folder != root else str(root)


def _choice(known: list[str]) -> str:
    return f"There are {', '.join(known)}." if known else "None of its runs has logged anything yet."


def _print(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be; an empty row is an empty line."""
    count = max(map(len, rows))
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(count)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())


if __name__ == "__main__":
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(__doc__)
        sys.exit()
    try:
        main(sys.argv[1:])
    except (ConfigError, OSError) as error:
        sys.exit(f"error: {error}")
