"""Run and sweep folders as the program leaves them, written in milliseconds."""

import csv
import io
import json
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image as PILImage

LOSS = {1: 1.0, 2: 0.5, 3: 0.25}  # by step


def write_run(folder: Path, seed: int = 0, config: dict[str, Any] | None = None, words: Sequence[str] = (),
              loss: dict[int, float] | None = None, **summary: Any) -> Path:  # fmt: skip
    """A run that is done after as many steps as `loss` has; `summary` overrides what it says of itself."""
    loss = LOSS if loss is None else loss
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "objective": {"name": "mae"}, **(config or {})}))
    (folder / "overrides.json").write_text(json.dumps(list(words)))
    (folder / "environment.json").write_text(json.dumps([{"command": ["train.py", *words], "git": "abc1234"}]))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss", "learning_rate", "linear_accuracy"])
        writer.writerows([step, value, 1e-3, ""] for step, value in loss.items())
    said = {"state": "done", "started": 1.8e9, "seconds": 61.0, "step": max(loss), "steps": max(loss), "reason": None,
            "main": "loss", "metrics": {"loss": loss[max(loss)]}}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps({**said, **summary}))
    return folder


def draw(folder: Path, step: int = 3, size: int = 8) -> tuple[Path, Path]:
    """A sheet and a sound of a step, as `callbacks/pictures.py` names them."""
    (folder / "pictures").mkdir(exist_ok=True)
    sheet, sound = (folder / "pictures" / f"step={step:09d}{end}" for end in (".png", "-reconstruction.wav"))
    PILImage.new("RGB", (size, size), (step, 100, 200)).save(sheet)
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(320))
    return sheet, sound


Arms = Sequence[tuple[dict[str, str], float | None]]


def write_sweep(folder: Path, arms: Arms, metric: str = "linear_accuracy", reason: str = "loss is NaN") -> Path:
    """A sweep of arms, given as values of the varied keys and what came out; None is an arm that failed."""
    folder.mkdir(parents=True)
    varied = list(arms[0][0])
    said = {
        "program": "train",
        "words": ["a=1,2"],
        "varied": varied,
        "commit": "abc1234",
        "started": "2026-01-01T00:00:00",
    }
    (folder / "sweep.json").write_text(json.dumps(said))
    ledger = io.StringIO()
    for values, value in arms:
        name = "-".join(values.values())
        words = [f"{key}={text}" for key, text in values.items()]
        seed = int(values.get("seed", 0))
        run = write_run(folder / name, seed, {"swept": {k: v for k, v in values.items() if k != "seed"}}, words)
        (run / "log.txt").write_text(f"training\nlast line of {name}\n")
        event = {"time": 1.0, "arm": name, "state": "queued", "attempt": 1, "reason": None, "metric": None,
                 "metric_name": None, "seconds": None, "values": values}  # fmt: skip
        ended = (
            {"state": "failed", "reason": reason, "seconds": 5.0}
            if value is None
            else {"state": "done", "metric": value, "metric_name": metric, "seconds": 60.0}
        )
        for line in (event, {**event, "state": "running"}, {**event, **ended}):
            ledger.write(json.dumps(line) + "\n")
    (folder / "ledger.jsonl").write_text(ledger.getvalue())
    return folder
