"""How much should be hidden? 15 to 95 % on every modality, at equal steps and at equal seconds.

MAE on images, video and spectrograms; masked words on text, where MAE of a few minutes hardly learns.

    python benchmarks/mask_ratios.py               # what is missing is run, two at a time, and the figure is drawn
    python benchmarks/mask_ratios.py image text    # only these

One run gives both: its features are judged all along, and what a step takes is known. Equal seconds are those that the
quickest ratio needs for all steps. Frozen features, k-NN on the labels of each recipe's probes.
"""

import argparse
import csv
import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
from evidence import ROOT, RUNS, start_program
from results import Results

RATIOS = (0.15, 0.5, 0.75, 0.9, 0.95)
SEEDS = (0, 1)
# What stands behind `python train.py`, by modality: grids fine enough that 5 % are still some tokens.
RECIPES = {
    "image": "data=fashion_mnist data.patch_size=4 data.global_batch_size=64 trainer.max_steps=1500 "
    "model.base_lr=1.2e-2",
    "video": "experiment=moving_digits data.patch_size=4 mask=random callbacks.probes.pool=tokens "
    "trainer.max_steps=1000",
    "audio": "experiment=word_spectrograms trainer.max_steps=1500",
    "text": "experiment=docs objective=mlm trainer.max_steps=1200",
}
FIGURE = ROOT / "docs" / "pictures" / "mask_ratios.png"
COLUMNS = ("modality", "ratio", "seed", "step_seconds", "knn", "linear", "curve")
RESULTS = Results(ROOT / "docs" / "mask_ratios.csv", COLUMNS, keys=3)


def run(modality: str, ratio: float, seed: int) -> dict[str, object]:
    """Train; accuracy at the end and, as `step:accuracy`, on the way."""
    folder = RUNS / "mask_ratios" / f"{modality}-{ratio}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    start_program("train.py", f"{RECIPES[modality]} mask.ratio={ratio} seed={seed} precision=fp32", folder)
    return judge(folder, modality, ratio, seed)


def judge(folder: Path, modality: str, ratio: float, seed: int) -> dict[str, object]:
    """What a run has written."""
    probes = json.loads((folder / "probes.json").read_text())["pretrained"]
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    looks = {int(row["step"]): float(row["knn_accuracy"]) for row in rows if row["knn_accuracy"]}
    return {
        "modality": modality, "ratio": ratio, "seed": seed,
        # The quickest: other work on the machine is not the method's.
        "step_seconds": f"{min(float(row['step_seconds']) for row in rows if row['step_seconds']):.4f}",
        "knn": f"{100 * probes['knn_accuracy']:.1f}", "linear": f"{100 * probes['linear_accuracy']:.1f}",
        "curve": " ".join(f"{step}:{100 * accuracy:.1f}" for step, accuracy in sorted(looks.items())),
    }  # fmt: skip


def at(curve: str, step: float) -> float:
    """Accuracy after so many steps, between two looks in proportion."""
    points = [(float(a), float(b)) for a, b in (point.split(":") for point in curve.split())]
    for (early, low), (late, high) in pairwise(points):
        if step <= late:
            return low + (high - low) * (step - early) / (late - early)
    return points[-1][1]


def draw(rows: list[dict[str, str]]) -> None:
    """A column a modality; equal steps above, equal seconds below; bars are the deviation over seeds."""
    known = [m for m in RECIPES if any(row["modality"] == m for row in rows)]
    figure, axes = plt.subplots(2, len(known), figsize=(3 * len(known), 5), squeeze=False, layout="constrained")
    for (equal, timed), modality in zip(axes.T, known, strict=True):
        mine = {r: [row for row in rows if (row["modality"], row["ratio"]) == (modality, str(r))] for r in RATIOS}
        mine = {ratio: seeds for ratio, seeds in mine.items() if seeds}
        pace = {ratio: min(float(row["step_seconds"]) for row in seeds) for ratio, seeds in mine.items()}
        last = int(next(iter(mine.values()))[0]["curve"].split()[-1].split(":")[0])
        budget = last * min(pace.values())
        for axis, title, steps in (
            (equal, f"{last} steps", dict.fromkeys(pace, float(last))),
            (timed, f"{budget:.0f} seconds", {ratio: budget / seconds for ratio, seconds in pace.items()}),
        ):
            found = {ratio: [at(row["curve"], steps[ratio]) for row in seeds] for ratio, seeds in mine.items()}
            bars = [stdev(x) if len(x) > 1 else 0.0 for x in found.values()]
            axis.errorbar([100 * r for r in found], [mean(x) for x in found.values()], bars, marker="o", capsize=3)
            axis.set(title=f"{modality}, {title}", xlabel="hidden, %", ylabel="k-NN, %")
            axis.grid(alpha=0.3)
    figure.savefig(FIGURE, dpi=110)


def main() -> int:
    """Run what is missing, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modalities", nargs="*", default=list(RECIPES), help="only these")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    failed = RESULTS.fill(
        [(m, ratio, seed) for seed in SEEDS for m in options.modalities for ratio in RATIOS], run, options.jobs
    )
    draw(RESULTS.rows())
    print(FIGURE)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
