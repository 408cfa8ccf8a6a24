"""Does decoding keep up, and does memory stay flat? JPEG, MP4 and FLAC files, two loader workers.

    python benchmarks/data_path.py             # 5,000 samples of each through the loader, then Base train steps

The files are made on the spot: photographs' worth of detail is noise smoothed at several scales.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import soundfile
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision.io import encode_jpeg

from unmask.data.audio import AudioFolder
from unmask.data.images import ImageFolder
from unmask.data.stream import Stream, StreamSampler, collate
from unmask.data.video import VideoFolder
from unmask.media import Film
from unmask.modality.image import Image
from unmask.modality.speech import Speech
from unmask.modality.video import Video

ROOT = Path(__file__).parents[1]
RGB = ([0.45] * 3, [0.225] * 3)
FILES, WORKERS, LOOKS = 8, 2, 5
# What stands behind `python train.py data.root=<files>` for the wait of a Base step, by kind.
STEPS = {
    "images": "data=images model=base data.global_batch_size=16",
    "videos": "modality=video data=videos model=base mask=random mask.ratio=0.9 data.global_batch_size=2",
    "sounds": "modality=speech data=audio model=base objective=data2vec data.global_batch_size=2",
}


def scenery(height: int, width: int) -> torch.Tensor:
    """(3, height, width) uint8."""
    layers = [F.interpolate(torch.randn(1, 3, height // s, width // s), (height, width), mode="bicubic") * s**0.7
              for s in (2, 4, 16, 64)]  # fmt: skip
    picture = torch.stack(layers).sum(0)[0]
    return ((picture / picture.std() * 0.2 + 0.5).clamp(0, 1) * 255).to(torch.uint8)


def make_files(root: Path) -> None:
    """8 JPEG of 500 x 375, MP4 of five seconds of 320 x 240, FLAC of fifteen seconds."""
    for kind in STEPS:
        (root / kind).mkdir()
    for i in range(FILES):
        (root / "images" / f"{i}.jpg").write_bytes(bytes(encode_jpeg(scenery(375, 500), 90).tolist()))
        soundfile.write(root / "sounds" / f"{i}.flac", 0.1 * torch.randn(16_000 * 15).cumsum(0).sin().numpy(), 16_000)
        wide = scenery(240, 480)
        frames = torch.stack([wide[:, :, t : t + 320] for t in range(150)])
        Film(frames, 30.0).write(root / "videos" / str(i), enlarge=False)


def memory_mb(processes: list[int]) -> float:
    """What these processes hold of their own, in MB."""
    total = 0
    for process in processes:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean", "Private_Dirty")):
                total += int(line.split()[1])
    return total / 1024


def through_the_loader(kind: str, root: Path, samples: int) -> None:
    """Print samples a second, and the memory of loader and workers on the way."""
    source, modality = {
        "images": lambda: (ImageFolder(root / kind), Image(768, 224, 16, 3, *RGB)),
        "videos": lambda: (VideoFolder(root / kind), Video(768, 16, 7.5, 224, 16, 2, 3, *RGB)),
        "sounds": lambda: (AudioFolder(root / kind), Speech(768, 15.0)),
    }[kind]()
    loader = DataLoader(
        Stream(source, modality.transform(train=True), 0), batch_sampler=StreamSampler(0, 16, 16),
        collate_fn=collate, num_workers=WORKERS,
    )  # fmt: skip
    batches, held = iter(loader), []
    began = time.perf_counter()
    for step in range(1, samples // 16 + 1):
        next(batches)
        if step % (samples // 16 // LOOKS) == 0:
            held.append(memory_mb([os.getpid(), *(worker.pid for worker in batches._workers)]))
    speed = samples // 16 * 16 / (time.perf_counter() - began)
    print(f"{kind}: {speed:.0f} samples/s by {WORKERS} workers; MB held: {' '.join(f'{m:.0f}' for m in held)}")


def wait_of_a_step(kind: str, root: Path, steps: int) -> None:
    """Print which share of a Base step waits for data."""
    folder = root / f"run-{kind}"
    words = [*STEPS[kind].split(), f"data.root={root / kind}", f"data.num_workers={WORKERS}", f"run_dir={folder}"]
    off = [f"callbacks.{name}=null" for name in ("probes", "pictures", "collapse", "export")]
    more = [f"trainer.max_steps={steps}", "scheduler.warmup=1 steps", "callbacks.metrics.every=1 steps", "logger=csv"]
    command = [sys.executable, str(ROOT / "train.py"), *words, *off, *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))[2:]  # the first steps count operations and fill the queue
    seconds = [float(row["step_seconds"]) for row in rows]
    waited = sum(float(row["data_wait_share"]) * s for row, s in zip(rows, seconds, strict=True))
    print(f"{kind}: a Base step of {sum(seconds) / len(rows):.2f} s waits {waited / sum(seconds):.2%} of it for data")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=5000, help="through the loader")
    parser.add_argument("--steps", type=int, default=8, help="of training")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        for kind in STEPS:
            through_the_loader(kind, Path(folder), arguments.samples)
        for kind in STEPS:
            wait_of_a_step(kind, Path(folder), arguments.steps)


if __name__ == "__main__":
    main()
