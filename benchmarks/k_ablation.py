"""How many of the teacher's blocks make data2vec's target? One, half, all (arXiv 2202.03555, figure 2), three seeds.

    python benchmarks/k_ablation.py            # what is missing is run, two at a time, and the figure is drawn

The same as one sweep, one run after the other:

    python train.py -m experiment=data2vec_digits model.depth=4 trainer.duration='80 epochs' \\
        objective.top_k=1,2,4 seed=0,1,2
"""

import json
import shutil
import sys
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
from evidence import ROOT, RUNS, SEEDS, start_program
from results import Results

WORDS = "experiment=data2vec_digits model.depth=4 trainer.duration='80 epochs' precision=fp32"
DEPTH, KS = 4, (1, 2, 4)
FIGURE = ROOT / "docs" / "pictures" / "k_ablation.png"
COLUMNS = ("top_k", "seed", "knn", "linear", "random_knn", "random_linear", "raw_knn", "raw_linear")
RESULTS = Results(ROOT / "docs" / "k_ablation.csv", COLUMNS, keys=2)


def run(top_k: int, seed: int) -> dict[str, object]:
    """Train; what the probes say at the end, in per cent."""
    folder: Path = RUNS / "k_ablation" / f"{top_k}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    start_program("train.py", f"{WORDS} objective.top_k={top_k} seed={seed}", folder)
    probes = json.loads((folder / "probes.json").read_text())
    row: dict[str, object] = {"top_k": top_k, "seed": seed}
    for prefix, name in (("", "pretrained"), ("random_", "random encoder"), ("raw_", "raw input")):
        for probe in ("knn", "linear"):
            row[prefix + probe] = f"{100 * probes[name][f'{probe}_accuracy']:.1f}"
    return row


def draw(rows: list[dict[str, str]]) -> None:
    """Accuracy by K, bars are the deviation over seeds; fresh weights and pixels as lines."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharex=True, layout="constrained")
    for axis, probe, title in zip(axes, ("knn", "linear"), ("k-NN", "linear probe"), strict=True):
        by_k = [[float(row[probe]) for row in rows if int(row["top_k"]) == k] for k in KS]
        axis.errorbar(KS, [mean(x) for x in by_k], [stdev(x) for x in by_k], marker="o", capsize=4, label="data2vec")
        for key, style, label in (("raw_", "--", "raw pixels"), ("random_", ":", "random encoder")):
            axis.axhline(mean(float(row[key + probe]) for row in rows), ls=style, c="grey", label=label)
        axis.set(title=title, xlabel=f"K, of {DEPTH} blocks", ylabel="accuracy, %", xticks=KS)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle("handwritten digits, 100 labels, frozen features, three seeds")
    figure.savefig(FIGURE, dpi=120)


def main() -> int:
    """Run what is missing, draw."""
    failed = RESULTS.fill([(k, seed) for seed in SEEDS for k in KS], run, jobs=2)
    draw(RESULTS.rows())
    print(FIGURE)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
