"""Several processes, each with its share of the same global batch."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from tests.conftest import QUICK, ROOT
from unmask.sweep.ledger import Ledger


def rows(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_two_processes_in_a_sweep_train_what_one_does_and_log_once(tmp_path: Path):
    words = ("-m", *QUICK, "trainer.max_steps=4", "trainer=default,ddp", "sweep.name=ranks")
    subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=tmp_path, check=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    sweep = tmp_path / "outputs" / "sweeps" / "ranks"
    latest = Ledger(sweep / "ledger.jsonl").latest().values()
    folders = {event["values"]["trainer"]: sweep / event["arm"] for event in latest}
    one, two = folders["default"], folders["ddp"]
    weights, others = (load_file(run / "backbone" / "model.safetensors") for run in (one, two))
    for name in weights:
        difference = (weights[name] - others[name]).abs()
        if name.endswith("qkv.bias"):  # keys' biases cancel in the softmax; AdamW makes steps of their rounding errors
            difference = difference.unflatten(0, (3, -1))[[0, 2]]
        assert float(difference.max()) < 1e-5, name
    losses, again = rows(one, "loss"), rows(two, "loss")
    assert len(losses) == len(again) == 4
    assert max(abs(a - b) for a, b in zip(losses, again, strict=True)) < 1e-5
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert len(json.loads((two / "environment.json").read_text())) == 1
    assert "2 device(s)" in (two / "log.txt").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}
    assert {path.name for path in (tmp_path / "outputs" / "sweeps").iterdir()} == {"ranks"}
