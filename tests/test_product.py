"""Every objective with every modality through the real program: it trains, watches, judges, draws, or says why not."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from .conftest import QUICK
from .test_resume import Train

OBJECTIVES = ("mae", "simmim", "mlm", "data2vec", "data2vec2")
WATCHED = (
    "callbacks.probes={_target_: unmask.callbacks.probes.Probes, every: 50 %, labels: 10, test: 10}",
    "callbacks.pictures={_target_: unmask.callbacks.pictures.Pictures, every: 50 %, count: 2}",
)


def clips(folder: Path) -> Path:
    """Two classes of tones, no two clips of one length, so that every batch is padded."""
    for split, count in (("train", 16), ("val", 40)):
        for i in range(count):
            path = folder / split / ("low", "high")[i % 2] / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            time = np.arange(6400 + 400 * (i % 20)) / 16_000
            soundfile.write(path, 0.5 * np.sin(2 * math.pi * (300, 1200)[i % 2] * time), 16_000)
    return folder


def texts(folder: Path) -> Path:
    """Two classes of documents, of words that tell them apart."""
    for split, count in (("train", 16), ("val", 12)):
        for i in range(count):
            path = folder / split / ("sea", "land")[i % 2] / f"{i}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(" ".join(f"{('wave', 'tree')[i % 2]}{n * (i + 3) % 17} of the" for n in range(60)) + ".\n")
    return folder


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("modality", ["image", "video", "audio", "speech", "text"])
def test_every_pair_trains_or_says_why_not(
    train: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path, modality: str, objective: str
):
    words = {
        "image": (),
        "video": (f"paths.cache={tmp_path / 'cache'}", "+data.source.train_clips=24", "+data.source.test_clips=16"),
        "audio": ("data=audio", f"data.root={clips(tmp_path / 'clips')}", "data.crop_seconds=0.64", "data.mean=[-5]",
                  "data.std=[4]"),
        "speech": ("data=audio", f"data.root={clips(tmp_path / 'clips')}", "data.crop_seconds=1"),
        "text": ("data=text", f"data.root={texts(tmp_path / 'texts')}", "data.block_size=16",
                 "data.tokenizer.vocab_size=300", f"paths.cache={tmp_path / 'cache'}"),
    }[modality]  # fmt: skip
    narrow = ("objective.decoder_groups=4",) if objective == "data2vec2" else ()
    line = (*QUICK, *WATCHED, *words, *narrow, f"modality={modality}", f"objective={objective}", "trainer.max_steps=4")
    if (objective == "mlm" and modality != "text") or (objective == "simmim" and modality in ("speech", "text")):
        with pytest.raises(SystemExit) as exit_:
            train(*line)
        [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert exit_.value.code == 2
        assert objective in error
        assert modality in error
        return
    run = train(*line)
    assert (run / "backbone" / "model.safetensors").exists()
    assert "health:" in capsys.readouterr().out
    assert list((run / "pictures").glob("*.png"))
    assert (run / "probes.json").exists()
    rebuilt = objective in ("mae", "simmim")
    assert len(list((run / "pictures").glob("*.wav"))) == (2 + 2 * rebuilt if modality in ("audio", "speech") else 0)
    assert len(list((run / "pictures").glob("*.mp4"))) == (2 if modality == "video" else 0)
    guessed = modality == "text" and objective in ("mae", "mlm")
    assert len(list((run / "pictures").glob("*-guesses.txt"))) == (2 if guessed else 0)
