"""How much should be hidden? 15 to 95 % on every modality, at equal steps and at equal seconds.

MAE on images, video and spectrograms; masked words on text, where MAE of a few minutes hardly learns.

    python benchmarks/mask_ratios.py               # what is missing is run, two at a time, and the figure is drawn
    python benchmarks/mask_ratios.py image text    # only these

One run gives both: its features are judged all along, and the clock of its steps (without probes) runs beside. Equal
seconds are those of the quickest ratio. Frozen features, k-NN on the labels of each recipe's probes.
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
COLUMNS = ("modality", "ratio", "seed", "seconds", "knn", "linear", "curve")
RESULTS = Results(ROOT / "docs" / "mask_ratios.csv", COLUMNS, keys=3)


def run(modality: str, ratio: float, seed: int) -> dict[str, object]:
    """Train; accuracy at the end and, as `seconds:accuracy`, on the way."""
    folder = RUNS / "mask_ratios" / f"{modality}-{ratio}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    start_program("train.py", f"{RECIPES[modality]} mask.ratio={ratio} seed={seed} precision=fp32", folder)
    probes = json.loads((folder / "probes.json").read_text())["pretrained"]
    curve = accuracy_by_seconds(folder / "metrics.csv")
    return {
        "modality": modality, "ratio": ratio, "seed": seed, "seconds": f"{curve[-1][0]:.1f}",
        "knn": f"{100 * probes['knn_accuracy']:.1f}", "linear": f"{100 * probes['linear_accuracy']:.1f}",
        "curve": " ".join(f"{seconds:.1f}:{100 * accuracy:.1f}" for seconds, accuracy in curve),
    }  # fmt: skip


def accuracy_by_seconds(path: Path) -> list[tuple[float, float]]:
    """(seconds of training, k-NN accuracy) of each look."""
    with path.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["step"]))
    seconds, done, curve = 0.0, 0, []
    for row in rows:
        if row["step_seconds"]:
            seconds += (int(row["step"]) - done) * float(row["step_seconds"])
            done = int(row["step"])
        if row["knn_accuracy"]:
            curve.append((seconds, float(row["knn_accuracy"])))
    return curve


def at(curve: str, seconds: float) -> float:
    """Accuracy after so long, between two looks in proportion."""
    points = [(0.0, float("nan")), *((float(a), float(b)) for a, b in (p.split(":") for p in curve.split()))]
    points[0] = (0.0, points[1][1])
    for (early, low), (late, high) in pairwise(points):
        if seconds <= late:
            return low + (high - low) * (seconds - early) / max(late - early, 1e-9)
    return points[-1][1]


def draw(rows: list[dict[str, str]]) -> None:
    """A column a modality; equal steps above, equal seconds below."""
    known = [m for m in RECIPES if any(row["modality"] == m for row in rows)]
    figure, axes = plt.subplots(2, len(known), figsize=(3 * len(known), 5), squeeze=False, layout="constrained")
    for column, modality in enumerate(known):
        mine = [row for row in rows if row["modality"] == modality]
        quickest = min(float(row["seconds"]) for row in mine)
        for line, (title, value) in enumerate(
            (
                ("equal steps", lambda row: float(row["knn"])),
                (f"equal seconds ({quickest:.0f})", lambda row, q=quickest: at(row["curve"], q)),
            )
        ):
            axis = axes[line][column]
            groups = [[value(row) for row in mine if float(row["ratio"]) == ratio] for ratio in RATIOS]
            there = [
                (100 * r, mean(g), stdev(g) if len(g) > 1 else 0) for r, g in zip(RATIOS, groups, strict=True) if g
            ]
            axis.errorbar(*zip(*there, strict=True), marker="o", capsize=3)
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
