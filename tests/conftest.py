"""Shared by all tests: small models, batches, and runs of the real program inside this process."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # toy models; threads that wait for each other cost more than they give

import torch

from unmask.backbone import Backbone
from unmask.modality.image import Image
from unmask.nn.encoder import Encoder
from unmask.objective.mae import MAE
from unmask.schema import Batch

ROOT = Path(__file__).parents[1]


def make_mae(
    image_size: tuple[int, int] = (16, 16),
    patch: int = 4,
    channels: int = 3,
    width: int = 32,
    depth: int = 2,
    heads: int = 4,
    decoder: tuple[int, int, int] = (16, 2, 4),
    normalize: bool = True,
) -> MAE:
    """A toy MAE; the decoder is (width, depth, heads)."""
    image = Image(width, image_size, patch, channels, [0.5] * channels, [0.25] * channels)
    return MAE(Backbone(image, Encoder(width, depth, heads)), *decoder, normalize)


def make_batch(count: int = 4, shape: tuple[int, ...] = (3, 16, 16), seed: int = 0) -> Batch:
    """Random uint8 images at stream positions 0, 1, ..."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    return Batch(images, torch.arange(count))


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Run `train.py` with the words of a command line, in this process; returns the run folder."""

    def run(*words: str, folder: str = "run") -> Path:
        run_dir = tmp_path / folder
        place = [] if any(word.startswith(("run_dir=", "resume=")) for word in words) else [f"run_dir={run_dir}"]
        monkeypatch.setattr(sys, "argv", ["train.py", *place, *words])
        monkeypatch.syspath_prepend(ROOT)
        from train import main

        main()
        return run_dir

    return run


@pytest.fixture
def finetune(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """The same of `finetune.py`."""

    def run(*words: str, folder: str = "tuned") -> Path:
        run_dir = tmp_path / folder
        place = [] if any(word.startswith(("run_dir=", "resume=")) for word in words) else [f"run_dir={run_dir}"]
        monkeypatch.setattr(sys, "argv", ["finetune.py", *place, *words])
        monkeypatch.syspath_prepend(ROOT)
        from finetune import main

        main()
        return run_dir

    return run


# A training that takes a second: one block, no probes.
QUICK = (
    "model.width=16",
    "model.depth=1",
    "model.heads=2",
    "model.decoder.width=16",
    "data.global_batch_size=16",
    "data.num_workers=0",
    "scheduler.warmup=2 steps",
    "callbacks.metrics.every=1 steps",
    "callbacks.probes=null",
    "callbacks.pictures=null",
    "logger=csv",
    "precision=fp32",
)


def fetch(
    script: str, tmp_path: Path, apt_cache: str = "exit 0", apt_get: str = "exit 0"
) -> subprocess.CompletedProcess[str]:
    """A script of `scripts/` with apt played by one-line programs: dpkg unpacks whatever lies in `package`."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    dpkg = f'mkdir -p "$3/usr/share" && cp -r "{tmp_path}/package/." "$3/usr/share"'
    for name, line in {"apt-cache": apt_cache, "apt-get": apt_get, "dpkg": dpkg}.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    command = ["sh", str(ROOT / "scripts" / script), str(tmp_path / "a cache" / "set")]
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)
