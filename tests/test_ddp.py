"""Several processes, each with its share of the same global batch."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import QUICK, ROOT
from unmask.sweep.ledger import Ledger
from unmask.training.checkpoint import newest_checkpoint


def rows(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def assert_alike(one: Path, two: Path, steps: int = 4) -> None:
    """Losses and weights of two runs to 1e-5."""
    losses, again = rows(one, "loss"), rows(two, "loss")
    assert len(losses) == len(again) == steps
    assert max(abs(a - b) for a, b in zip(losses, again, strict=True)) < 1e-5
    weights, others = (load_file(run / "backbone" / "model.safetensors") for run in (one, two))
    assert weights.keys() == others.keys()
    for name in weights:
        difference = (weights[name] - others[name]).abs()
        if name.endswith("qkv.bias"):  # keys' biases cancel in the softmax; AdamW makes steps of their rounding errors
            difference = difference.unflatten(0, (3, -1))[[0, 2]]
        assert difference.numel() == 0 or float(difference.max()) < 1e-5, name


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
    assert_alike(one, two)
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert len(json.loads((two / "environment.json").read_text())) == 1
    assert "2 device(s)" in (two / "log.txt").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}
    assert {path.name for path in (tmp_path / "outputs" / "sweeps").iterdir()} == {"ranks"}


@pytest.mark.parametrize("words", [("objective=mae", "trainer.gradient_clip=0.05"), ("objective=data2vec",)])
def test_a_model_split_over_two_processes_learns_what_a_whole_one_does(
    train: Callable[..., Path], tmp_path: Path, words: tuple[str, ...]
):
    looked = ("callbacks.probes.every=2 steps", "callbacks.probes.labels=60", "callbacks.probes.test=60")
    words = (
        *(word for word in QUICK if word not in ("callbacks.probes=null", "model.decoder.width=16")), *looked, *words,
        "model.depth=2", "trainer.max_steps=4", "callbacks.checkpointing.every=2 steps", "precision=fp32",
    )  # fmt: skip
    one, two = train(*words, folder="one"), tmp_path / "two"
    said = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, "trainer=fsdp", f"run_dir={two}"], check=True, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "Warning" not in said.stderr
    assert_alike(one, two)
    assert len(rows(one, "knn_accuracy")) == 3  # before the first step, too
    assert rows(one, "knn_accuracy") == rows(two, "knn_accuracy")
    resumed = tmp_path / "resumed"
    shutil.copytree(two, resumed)
    for gone in (newest_checkpoint(resumed), resumed / "backbone" / "model.safetensors"):
        gone.unlink()
    train(f"resume={resumed}", "trainer.strategy=auto", "trainer.devices=1")
    assert_alike(one, resumed)
