"""What is pretraining worth when labels are few? The same fine-tuning from a run and from fresh weights, by budget.

python benchmarks/label_budgets.py            # what is missing is run, two at a time; figure and README are renewed
python benchmarks/label_budgets.py speech     # only this modality

A modality is pretrained once a seed, on all its samples without labels.
"""

import argparse
import json
import math
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import matplotlib.pyplot as plt
from evidence import CELLS, ROOT, RUNS, commit, start_program, write_between
from results import Results, interval


class Curve(NamedTuple):
    """What stands behind `python train.py` and `python finetune.py`, and how it is judged."""

    title: str
    pretraining: str
    budgets: tuple[str, ...]
    task: str = "classification"
    score: str = "accuracy"
    label: str = "accuracy, %"
    tuning: str = ""


CURVES = {
    "speech": Curve(
        "spoken words as characters (CTC), voices unheard before",
        CELLS["words/mae"],
        ("1min", "3min", "10min", "all"),
        "ctc",
        "wer",
        "word error rate, %",
    ),
    "audio": Curve(
        "their spectrograms: which word", CELLS["word_spectrograms/mae"], ("1/class", "3/class", "10/class", "all")
    ),
    "video": Curve(
        "moving digits: which motion", CELLS["moving_digits/mae"], ("1/class", "3/class", "10/class", "30/class")
    ),
    "text": Curve("paragraphs: of which package", CELLS["docs/mae"], ("5/class", "20/class", "80/class")),
    "image": Curve("handwritten digits", "", ("1/class", "3/class", "10/class", "30/class", "100/class")),
    "detection": Curve(
        "stamps on photos, none seen before: mean average precision",
        "experiment=mae_stamps",
        ("1000",),
        "detection",
        "mAP",
        "mAP, %",
        "task.channels=32 trainer.max_steps=1500",
    ),
}
SEEDS = range(5)
ARM = ("modality", "budget", "seed")
COLUMNS = (*ARM, "score", "pretrained", "scratch", "pretraining", "command", "seconds", "commit")
RESULTS = Results(ROOT / "docs" / "label_budgets.csv", COLUMNS, keys=len(ARM))
ACROSS = 3  # pictures beside each other
BEGIN, END = "<!-- label budgets: made by benchmarks/label_budgets.py -->\n", "<!-- /label budgets -->"
FIGURE = ROOT / "docs" / "pictures" / "label_budgets.png"


def backbone(modality: str, seed: int) -> Path:
    """Where a modality's pretraining lies."""
    return RUNS / "label_budgets" / f"{modality}-{seed}"


def pretrain(modality: str, seed: int) -> None:
    """Unless it is there."""
    folder = backbone(modality, seed)
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        words = f"{CURVES[modality].pretraining} callbacks.probes=null seed={seed} precision=fp32"
        start_program("train.py", words, folder)


def run(modality: str, budget: str, seed: int) -> dict[str, object]:
    """Fine-tune from both; scores on the test samples in per cent, of the last step since labels are few.

    The words are those after `python train.py` and `python finetune.py backbone=<run>`; seconds are of the latter.
    """
    curve, start = CURVES[modality], backbone(modality, seed)
    folder = start.with_name(f"{start.name}-{budget.replace('/', '-')}")
    shutil.rmtree(folder, ignore_errors=True)
    words = f"task={curve.task} data.validation=0 data.labels={budget} seed={seed} precision=fp32 compare=scratch"
    words = f"{words} {curve.tuning}".strip()
    began = time.monotonic()
    start_program("finetune.py", f"backbone={start} {words}", folder)
    rows = json.loads((folder / "comparison.json").read_text()).values()
    pretrained, scratch = (f"{100 * row['scores'][curve.score]:.1f}" for row in rows)
    return {
        "modality": modality, "budget": budget, "seed": seed, "score": curve.score,
        "pretrained": pretrained, "scratch": scratch, "pretraining": curve.pretraining, "command": words,
        "seconds": round(time.monotonic() - began), "commit": commit(),
    }  # fmt: skip


def draw(rows: list[dict[str, str]]) -> None:
    """A picture a modality; bars are the deviation over seeds."""
    known = [modality for modality in CURVES if any(row["modality"] == modality for row in rows)]
    across = min(len(known), ACROSS)
    down = math.ceil(len(known) / across)
    figure, axes = plt.subplots(down, across, figsize=(4.8 * across, 3.4 * down), squeeze=False, layout="constrained")
    for axis in axes.flat[len(known) :]:
        axis.axis("off")
    for axis, modality in zip(axes.flat, known, strict=False):
        curve = CURVES[modality]
        for start in ("pretrained", "scratch"):
            drawn = []
            for budget in curve.budgets:
                found = [float(r[start]) for r in rows if (r["modality"], r["budget"]) == (modality, budget)]
                if found:
                    drawn.append((budget, mean(found), stdev(found) if len(found) > 1 else 0.0))
            axis.errorbar(*zip(*drawn, strict=True), marker="o", capsize=3, label=start)
        axis.set(title=curve.title, xlabel="labels", ylabel=curve.label)
        axis.grid(alpha=0.3)
    axes[0, 0].legend()
    figure.savefig(FIGURE, dpi=110)


def table(rows: list[dict[str, str]]) -> str:
    """Markdown: what pretraining gains at each budget, over seeds; the two of a seed have the same labels."""
    lines = [
        "Points gained over fresh weights (errors: fewer), mean ± 95 % interval over seeds; bold: over two intervals.",
        "",
        "| what is told | by labels | seeds |",
        "|---|---|---|",
    ]
    for modality, curve in CURVES.items():
        better = -1 if curve.score == "wer" else 1
        said, seeds = [], set()
        for budget in curve.budgets:
            found = [row for row in rows if (row["modality"], row["budget"]) == (modality, budget)]
            gains = [better * (float(row["pretrained"]) - float(row["scratch"])) for row in found]
            if len(gains) > 1:
                bold = "**" if mean(gains) > 2 * interval(gains) else ""
                said.append(f"{budget} {bold}{mean(gains):+.1f} ± {interval(gains):.1f}{bold}")
                seeds.add(len(gains))
        if said:
            lines.append(f"| {curve.title} | {', '.join(said)} | {' to '.join(map(str, sorted(seeds)))} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run what is missing, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modalities", nargs="*", default=list(CURVES), help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="only these")
    options = parser.parse_args()
    failed = 0
    for seed in options.seeds:
        arms = [(m, budget, seed) for m in options.modalities for budget in CURVES[m].budgets]
        needed = sorted({str(modality) for modality, *_ in RESULTS.missing(arms)})
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(pretrain, needed, repeat(seed)))
        failed += RESULTS.fill(arms, run, options.jobs)
    draw(RESULTS.rows())
    write_between(BEGIN, END, table(RESULTS.rows()))
    print(FIGURE)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
