"""Does it learn? Every objective with every modality on data that is at hand, three seeds each.

Each run is judged by frozen features, and by fine-tuning on few labels beside the same from fresh weights.

    python benchmarks/evidence.py              # what is missing is run, two at a time, and written down
    python benchmarks/evidence.py words/ docs/ # only cells whose name begins so
    python benchmarks/evidence.py --table      # the README's table, from what is written down

A run that was broken off starts anew; one that is in `docs/evidence.csv` is not run again.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev

from results import Results

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "outputs" / "evidence"
README = ROOT / "README.md"
BEGIN, END = "<!-- evidence: made by benchmarks/evidence.py -->\n", "<!-- /evidence -->"
SEEDS = (0, 1, 2)

# By name, data set and objective: what stands behind `python train.py`.
CELLS = {
    "digits/mae": "callbacks.probes.pool=tokens",
    "digits/simmim": "objective=simmim objective.normalize=true objective.loss=l2 mask.ratio=0.75 model.width=128 "
    "model.base_lr=8e-3 trainer.gradient_clip=1 callbacks.probes.pool=tokens",
    "digits/data2vec": "experiment=data2vec_digits",
    "digits/data2vec2": "experiment=data2vec2_digits",
    "fashion/mae": "experiment=mae_fashion",
    "fashion/simmim": "experiment=mae_fashion objective=simmim objective.normalize=true objective.loss=l2 "
    "mask.ratio=0.75 model.depth=4 model.base_lr=6e-3 trainer.gradient_clip=1",
    "words/mae": "experiment=words objective=mae",
    "words/data2vec": "experiment=words objective=data2vec",
    "words/data2vec2": "experiment=words objective=data2vec2",
    "word_spectrograms/mae": "experiment=word_spectrograms objective=mae",
    "word_spectrograms/data2vec": "experiment=word_spectrograms objective=data2vec mask=span mask.ratio=0.5 "
    "objective.layer_norm=instance",
    "word_spectrograms/data2vec2": "experiment=word_spectrograms objective=data2vec2 mask=span mask.ratio=0.5",
    "moving_digits/mae": "experiment=moving_digits objective=mae",
    "moving_digits/data2vec": "experiment=moving_digits objective=data2vec data.global_batch_size=32",
    "moving_digits/data2vec2": "experiment=moving_digits objective=data2vec2 data.global_batch_size=32",
    "docs/mlm": "experiment=docs objective=mlm",
    "docs/mae": "experiment=docs objective=mae mask.ratio=0.5 model.decoder.width=128",
    "docs/data2vec": "experiment=docs objective=data2vec",
    "docs/data2vec2": "experiment=docs objective=data2vec2 model.class_token=true objective.cls_weight=1 "
    "mask.ratio=0.2 objective.masks_per_sample=2 objective.layer_norm=layer model.decoder.width=128 "
    "objective.decoder_residual=true objective.decoder_kernel=5 objective.decoder_layers=3 data.global_batch_size=32 "
    "model.base_lr=1.2e-2 trainer.max_steps=2700",
}
# What is fine-tuned on, by data set: what stands behind `python finetune.py backbone=<run>`.
TUNING = {
    "digits": "data.labels=10/class",
    "fashion": "data.labels=10/class",
    "words": "data.labels=5/class",
    "word_spectrograms": "data.labels=5/class",
    "moving_digits": "data.labels=10/class",
    "docs": "data.labels=20/class",
}
DATA = {
    "digits": "handwritten digits: which one",
    "fashion": "Fashion-MNIST: which garment",
    "words": "spoken words, voices unheard before: which of 24",
    "word_spectrograms": "their spectrograms, 20 ms a token: which of 24",
    "moving_digits": "moving digits, video: which of 8 motions",
    "docs": "paragraphs of documentation: of which package",
}
FEATURES = {"pretrained": "pretrained", "random": "random encoder", "raw": "raw input"}
COLUMNS = (
    *("cell", "seed", "command", "labels", "test"),
    *(f"{features}_{probe}" for features in FEATURES for probe in ("knn", "linear")),
    *("tuned_on", "tuned", "scratch", "health", "seconds", "commit"),
)
RESULTS = Results(ROOT / "docs" / "evidence.csv", COLUMNS, keys=2)


def commit() -> str:
    """Of the working copy, with a plus where something is not committed."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "conf", "src", "train.py").strip()
    return git("rev-parse", "--short", "HEAD").strip() + ("+" if changed else "")


def run(cell: str, seed: int) -> dict[str, object]:
    """Train; what the probes say at the end.

    Raises:
        RuntimeError: the run failed.
    """
    # float32 everywhere: the default is bfloat16 on CPUs that multiply it, and numbers would depend on the machine.
    command, folder = f"{CELLS[cell]} seed={seed} precision=fp32".strip(), RUNS / cell / str(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    start_program("train.py", command, folder)
    seconds = round(time.monotonic() - start)
    probes = json.loads((folder / "probes.json").read_text())
    numbers = {
        f"{short}_{probe}": f"{100 * probes[name][f'{probe}_accuracy']:.1f}"
        for short, name in FEATURES.items()
        for probe in ("knn", "linear")
    }
    tuned, scratch = tune(cell, seed, folder)
    looks = json.loads((folder / "collapse.json").read_text())["looks"]
    alarms = sum(look["state"] != "healthy" for look in looks)
    return {
        "cell": cell,
        "seed": seed,
        "command": command,
        "labels": probes["labels"],
        "test": probes["test"],
        **numbers,
        "tuned_on": TUNING[cell.split("/")[0]],
        "tuned": f"{100 * tuned:.1f}",
        "scratch": f"{100 * scratch:.1f}",
        "health": f"{alarms} of {len(looks)} looks alarmed" if alarms else "healthy throughout",
        "seconds": seconds,
        "commit": commit(),
    }


def tune(cell: str, seed: int, run: Path) -> tuple[float, float]:
    """Test accuracy after fine-tuning the run, and from fresh weights; the last checkpoint, since labels are few."""
    folder = run.with_name(f"{seed}-tuned")
    shutil.rmtree(folder, ignore_errors=True)
    words = f"backbone={run} {TUNING[cell.split('/')[0]]} data.validation=0 seed={seed} precision=fp32 compare=scratch"
    start_program("finetune.py", words, folder)
    rows = json.loads((folder / "comparison.json").read_text())
    tuned, scratch = (row["scores"]["accuracy"] for row in rows.values())
    return tuned, scratch


def start_program(program: str, words: str, folder: Path) -> None:
    """One thread, its output in a file beside the run.

    Raises:
        RuntimeError: it failed.
    """
    with folder.with_name(f"{folder.name}.log").open("a") as log:
        done = subprocess.run(
            [sys.executable, program, *shlex.split(words), f"run_dir={folder}", "logger=csv"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{folder} failed, see {log.name}")


def table(rows: Sequence[dict[str, str]]) -> str:
    """Markdown: a line for each cell, in the order of `CELLS`; means and deviations over seeds."""
    lines = [
        "| data, labels of the probes | objective | `python train.py …` | pretrained | random encoder | raw input "
        "| fine-tuned on | from the run | from scratch | seeds, minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    by_cell = {cell: list(group) for cell, group in groupby(sorted(rows, key=_cell), key=_cell)}
    for cell, command in CELLS.items():
        seeds = by_cell.get(cell)
        if not seeds:
            continue
        data, objective = cell.split("/")
        figures = [
            " / ".join(_spread([float(row[f"{features}_{probe}"]) for row in seeds]) for probe in ("knn", "linear"))
            for features in FEATURES
        ]

        minutes = mean(float(row["seconds"]) for row in seeds) / 60
        lines.append(
            f"| {DATA[data]}, {seeds[0]['labels']} | {objective} | {f'`{command}`' if command else '(nothing)'} "
            f"| {' | '.join(figures)} | {' | '.join(_tuned(seeds))} | {len(seeds)}, {minutes:.0f} |"
        )
    return "\n".join(lines) + "\n"


def write_between(begin: str, end: str, text: str) -> None:
    """Renew what stands between two marks in the README."""
    before, _, rest = README.read_text().partition(begin)
    _, _, after = rest.partition(end)
    README.write_text(before + begin + text + end + after)


def _tuned(seeds: Sequence[dict[str, str]]) -> tuple[str, str, str]:
    """On what, and both accuracies, of the seeds that were fine-tuned."""
    known = [row for row in seeds if row["tuned"]]
    if not known:
        return "", "", ""
    on = known[0]["tuned_on"].removeprefix("data.labels=")
    return (on, *(_spread([float(row[key]) for row in known]) for key in ("tuned", "scratch")))


def _cell(row: dict[str, str]) -> str:
    return row["cell"]


def _spread(values: list[float]) -> str:
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", nargs="*", default=[""], help="only cells whose name begins so")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--table", action="store_true", help="run nothing, write the README's table")
    arguments = parser.parse_args()
    chosen = [cell for cell in CELLS if cell.startswith(tuple(arguments.prefix))]
    arms = [(cell, seed) for seed in SEEDS for cell in chosen]
    failed = 0 if arguments.table else RESULTS.fill(arms, run, arguments.jobs)
    write_between(BEGIN, END, table(RESULTS.rows()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
