"""What a fine-tuned model says of your own files.

    python -m unmask.predict RUN FILE...              a line of JSON for each file, of texts for each of their lines
    python -m unmask.predict RUN FILE... out=said.csv  the same as a table

RUN is the folder of a fine-tuning run. In a line of text a tab separates the two sentences of a pair.
"""

import json
import re
import sys
from pathlib import Path

import torch

from unmask.callbacks.evaluation import FOLDER
from unmask.data.stream import Item, collate
from unmask.errors import BrokenSample, ConfigError
from unmask.finetuning import write_table
from unmask.reading import read_each
from unmask.schema import Sample
from unmask.task.base import Record, Task

USAGE = "python -m unmask.predict RUN FILE... [out=FILE.csv]"


def main(words: list[str]) -> None:
    """The command line."""
    options = dict(word.split("=", 1) for word in words if re.match(r"\w+=", word))
    places = [Path(word) for word in words if not re.match(r"\w+=", word)]
    if len(places) < 2:
        raise ConfigError(f"Give the folder of a fine-tuning run and at least one file: {USAGE}.")
    unknown = next((key for key in options if key != "out"), None)
    if unknown is not None:
        raise ConfigError(f"{unknown}={options[unknown]}: there is no such option. {USAGE}.")
    run, files = places[0], places[1:]
    task = Task.load(run / FOLDER if (run / FOLDER).is_dir() else run)
    samples = (named for file in files for named in read_each(task.backbone.modality, file))
    records = [{"file": name, **predict(task, sample)} for name, sample in samples]
    if "out" in options:
        write_table(Path(options["out"]), records)
        print(options["out"])
        return
    for record in records:
        print(json.dumps(record))


def predict(task: Task, sample: Sample) -> Record:
    """What the task says of a sample.

    Raises:
        BrokenSample: it cannot be decoded.
    """
    transform = task.transform(train=False)
    batch = collate([Item(transform(transform.read(sample)), 0, None, ())])
    with torch.inference_mode():
        [record] = task.predict(batch)
    return task.placed(record, sample)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ConfigError, BrokenSample, OSError) as error:
        sys.exit(f"error: {error}")
