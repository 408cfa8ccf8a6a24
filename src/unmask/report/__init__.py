"""`report.html` of a run or a sweep: one file that opens without a network. Imports no torch.

python -m unmask.report FOLDER...      a run, a sweep, or any folder of runs, which are then compared
"""

import traceback
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from unmask.errors import ConfigError
from unmask.files import written_whole
from unmask.records import CONFIG, find_runs
from unmask.report.run import run_page
from unmask.report.sweep import sweep_page
from unmask.words import command, lasting, plain, shown, when

FILE = "report.html"


def write(folder: Path) -> Path:
    """Write the report of a folder into it; its path.

    Raises:
        ConfigError: there is nothing to report on.
    """
    if (folder / CONFIG).is_file():
        name, page = "run.html", run_page(folder)
    elif folder.is_dir() and any(find_runs(folder)):
        name, page = "sweep.html", sweep_page(folder)
    else:
        raise ConfigError(f"{folder} holds no run. Give the folder of a run, which has a config.yaml, or of a sweep.")
    pages = Environment(loader=PackageLoader("unmask.report", "page"), autoescape=True, undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    pages.filters |= {"when": when, "lasting": lasting, "plain": plain, "command": command}
    pages.globals |= {"shown": shown}
    with written_whole(folder / FILE) as aside:
        aside.write_text(pages.get_template(name).render(**page), encoding="utf-8")
    return folder / FILE


def write_or_say(folder: Path) -> None:
    """At the end of a run, which no mistake in a report may turn into a failure."""
    try:
        write(folder)
    except Exception as error:  # the run is saved, whatever is wrong here
        where = traceback.extract_tb(error.__traceback__)[-1]
        print(f"{folder / FILE} could not be written: {error} ({Path(where.filename).name}:{where.lineno})", flush=True)
