"""Show what a trained model makes of your own files, or let it fill a gap in a recording.

    python -m unmask.reconstruct RUN FILE...                      pictures; WAV or MP4 of what sounds or moves
    python -m unmask.reconstruct RUN FILE mask.ratio=0.5 seed=3   another mask
    python -m unmask.reconstruct RUN FILE hide=1.2s-1.5s          spectrograms: fill this gap, write the repaired WAV

Everything is written to the folder `reconstructions/` of the run, or to out=FOLDER.
"""

import re
import sys
from pathlib import Path

import torch
from PIL import Image as PILImage

from unmask.build.trained import Trained, build_trained
from unmask.data.stream import Item, collate
from unmask.errors import BrokenSample, ConfigError
from unmask.media import Sound
from unmask.modality.audio import RATE, Audio
from unmask.modality.gap import Gap
from unmask.objective.base import Objective
from unmask.reading import read

USAGE = "python -m unmask.reconstruct RUN FILE... [mask.ratio=0.5] [seed=0] [hide=1.2s-1.5s] [out=FOLDER]"
SECONDS = re.compile(r"(\d+(?:\.\d+)?)s?-(\d+(?:\.\d+)?)s?")


def main(words: list[str]) -> None:
    """The command line."""
    options = dict(word.split("=", 1) for word in words if re.match(r"[\w.]+=", word))
    places = [Path(word) for word in words if not re.match(r"[\w.]+=", word)]
    if len(places) < 2:
        raise ConfigError(f"Give a run folder and at least one file: {USAGE}.")
    run, files = places[0], places[1:]
    hide, out = options.pop("hide", None), Path(options.pop("out", run / "reconstructions"))
    twice = next((file for i, file in enumerate(files) if file.stem in {other.stem for other in files[:i]}), None)
    if twice is not None:
        raise ConfigError(f"{twice}: another file has this name, and one would overwrite the other. Give one.")
    trained = build_trained(run, options)
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        written = show(trained, file, out) if hide is None else fill(trained.objective, file, _gap(hide), out)
        for path in written:
            print(path)


def show(trained: Trained, file: Path, out: Path) -> list[Path]:
    """Hide what the mask says, draw and write what comes out; the files written."""
    objective, modality = trained.objective, trained.objective.backbone.modality
    sample = read(modality, file)
    transform = modality.transform(train=False)
    batch = collate([Item(transform(transform.read(sample)), 0, None, ())])
    grid, counts, spared = modality.grid_of(batch), modality.counts(batch), modality.never_hidden(batch)
    mask = trained.masking.draw(trained.seed, batch.positions, grid, counts, spared)
    with torch.inference_mode():
        prediction = objective.predict(batch, mask)
        if prediction is None:
            raise ConfigError("This run's objective rebuilds no input. Give a run of objective=mae or simmim.")
        shown = (batch, mask, prediction.float(), objective.normalize)
        sheet, media = modality.picture(*shown), modality.media(*shown)
    picture = out / f"{file.stem}-picture.png"
    PILImage.fromarray(sheet).save(picture)
    return [picture, *(one.write(out / f"{file.stem}-{name}") for name, one in media.items())]


def fill(objective: Objective, file: Path, seconds: tuple[float, float], out: Path) -> list[Path]:
    """Let the model fill a gap in a recording, and say how far it is from what was there."""
    audio = objective.backbone.modality
    if not isinstance(audio, Audio):
        raise ConfigError("hide= fills gaps in spectrograms. Give a run of modality=audio objective=mae.")
    wave = read(audio, file).value
    gap = Gap(audio, wave, *seconds)
    with torch.inference_mode():
        prediction = objective.predict(gap.batch, gap.mask)
    if prediction is None:
        raise ConfigError("hide= needs an objective that rebuilds its input. Give a run of objective=mae or simmim.")
    repaired = gap.fill(prediction.float(), objective.normalize)
    if not gap.silent:
        print("mean distance from what was there, decibels a band and frame:")
        for name, distance in gap.distances(prediction.float(), objective.normalize).items():
            print(f"  {name:<34}{distance:6.1f}")
    return [Sound(repaired, RATE).write(out / f"{file.stem}-repaired")]


def _gap(words: str) -> tuple[float, float]:
    """`1.2s-1.5s` as seconds."""
    match = SECONDS.fullmatch(words)
    if not match or float(match[1]) >= float(match[2]):
        raise ConfigError(f"hide={words} is no stretch of time. Write it as hide=1.2s-1.5s.")
    return float(match[1]), float(match[2])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ConfigError, BrokenSample, OSError) as error:
        sys.exit(f"error: {error}")
