"""Which objective makes most of the same arithmetic? All of them on pictures and on text, three seeds.

Floating-point operations of forward and backward, teacher included, as `torch.utils.flop_counter` adds them up. One
width, depth and batch for all of a data set; how many samples an objective sees follows from what one costs it.

    python benchmarks/equal_compute.py               # what is missing is run, and the README's table written
    python benchmarks/equal_compute.py digits/       # only cells whose name begins so
"""

import argparse
import csv
import json
import shutil
import sys
from pathlib import Path
from statistics import mean

from evidence import CELLS as RECIPES
from evidence import DATA, ROOT, RUNS, SEEDS, commit, start_program, tune, write_between
from results import Results, interval

BEGIN, END = "<!-- equal compute: made by benchmarks/equal_compute.py -->\n", "<!-- /equal compute -->"
TERAFLOP = {"digits": 24, "docs": 40}
PICTURES = "model.width=128 model.base_lr=8e-3 trainer.gradient_clip=1 callbacks.probes.pool=tokens"
CELLS = {
    "digits/mae": f"objective=mae {PICTURES}",
    "digits/simmim": f"objective=simmim objective.normalize=true objective.loss=l2 {PICTURES}",
    "digits/data2vec": f"objective=data2vec mask.ratio=0.4 {PICTURES}",
    "digits/data2vec2": f"objective=data2vec2 encoder=pre_norm mask.ratio=0.5 {PICTURES}",
    "docs/mlm": RECIPES["docs/mlm"],
    "docs/mae": RECIPES["docs/mae"],
    "docs/data2vec": RECIPES["docs/data2vec"],
    "docs/data2vec2": "experiment=docs objective=data2vec2 model.class_token=true objective.cls_weight=1 "
    "mask.ratio=0.2 objective.masks_per_sample=2 objective.layer_norm=layer model.decoder.width=128 "
    "objective.decoder_residual=true objective.decoder_kernel=5 objective.decoder_layers=3 model.base_lr=6e-3",
}
MEASURES = {"knn": "k-NN", "linear": "linear probe", "tuned": "fine-tuned"}
COLUMNS = ("cell", "seed", "command", *MEASURES, "teraflop", "seconds", "commit")
RESULTS = Results(ROOT / "docs" / "equal_compute.csv", COLUMNS, keys=2)


def teraflop(folder: Path) -> float:
    """Arithmetic of a run until its end."""
    with (folder / "metrics.csv").open(newline="") as file:
        return max(float(row["teraflop"]) for row in csv.DictReader(file) if row["teraflop"])


def samples(cell: str) -> int:
    """How many the budget allows: a step of one sample tells what it costs."""
    folder = RUNS / "equal_compute" / cell / "one"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    start_program("train.py", f"{CELLS[cell]} debug=fast data.global_batch_size=1 precision=fp32", folder)
    return round(TERAFLOP[cell.split("/")[0]] / teraflop(folder))


def run(cell: str, seed: int) -> dict[str, object]:
    """Train and judge."""
    folder = RUNS / "equal_compute" / cell / str(seed)
    shutil.rmtree(folder, ignore_errors=True)
    command = f"{CELLS[cell]} trainer.duration='{samples(cell)} samples' seed={seed} precision=fp32"
    start_program("train.py", command, folder)
    probes = json.loads((folder / "probes.json").read_text())["pretrained"]
    with (folder / "metrics.csv").open(newline="") as file:
        clocks = [row["step_seconds"] for row in csv.DictReader(file) if row["step_seconds"]]
    steps = json.loads((folder / "summary.json").read_text())["step"]
    return {
        "cell": cell, "seed": seed, "command": command, "knn": f"{100 * probes['knn_accuracy']:.1f}",
        "linear": f"{100 * probes['linear_accuracy']:.1f}", "tuned": f"{100 * tune(cell, seed, folder)[0]:.1f}",
        "teraflop": f"{teraflop(folder):.1f}", "seconds": round(mean(map(float, clocks)) * steps), "commit": commit(),
    }  # fmt: skip


def shown(values: list[float]) -> str:
    """Mean and interval; of one seed there is none."""
    return f"{mean(values):.1f} ± {interval(values):.1f}" if len(values) > 1 else f"{mean(values):.1f} (one seed)"


def table(rows: list[dict[str, str]]) -> str:
    """Markdown: by data set and measure the objectives, best first, and between which the seeds decide."""
    lines = [
        "The same arithmetic for each objective (`python benchmarks/equal_compute.py`, "
        "[docs/equal_compute.csv](docs/equal_compute.csv)); where 95 % intervals",
        "over seeds overlap, it is not resolved which is better.",
        "",
        "| data, budget | judged by | mean ± 95 % interval over seeds, best first | resolved |",
        "|---|---|---|---|",
    ]
    for data, budget in TERAFLOP.items():
        for measure, name in MEASURES.items():
            found: dict[str, list[float]] = {}
            for row in rows:
                if row["cell"].startswith(f"{data}/"):
                    found.setdefault(row["cell"].split("/")[1], []).append(float(row[measure]))
            best = sorted(found, key=lambda objective: -mean(found[objective]))
            if not best:
                continue
            ends = {o: (mean(v) - interval(v), mean(v) + interval(v)) for o, v in found.items()}
            resolved = [f"{a} > {b}" for i, a in enumerate(best) for b in best[i + 1 :] if ends[a][0] > ends[b][1]]
            said = ", ".join(f"{objective} {shown(found[objective])}" for objective in best)
            lines.append(
                f"| {DATA[data]}, {budget} TFLOP | {name} | {said} | {', '.join(resolved) or 'not resolved'} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run what is missing, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", nargs="*", default=[""], help="only cells whose name begins so")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    options = parser.parse_args()
    chosen = [cell for cell in CELLS if cell.startswith(tuple(options.prefix))]
    failed = RESULTS.fill([(cell, seed) for seed in SEEDS for cell in chosen], run, options.jobs)
    write_between(BEGIN, END, table(RESULTS.rows()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
