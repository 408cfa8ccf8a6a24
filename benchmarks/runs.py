"""`python -m unmask.runs` over a thousand runs, a tenth of them not ended.

python benchmarks/runs.py [--rounds 5]
"""

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 1000


def fill(outputs: Path, run: Path) -> list[Path]:
    """Copies of a run with what `unmask.runs` could read and the folders that it has to walk past."""
    said = json.loads((run / "summary.json").read_text())
    running = {"state": "running", "seconds": 0.0, "step": 0, "steps": 10, "pid": 1, "host": platform.node()}
    folders = []
    for i in range(RUNS):
        folder = outputs / f"mae_image_tiny_random{i % 20}" / f"{i:04d}"
        folder.mkdir(parents=True)
        for path in run.iterdir():
            if path.is_dir():
                (folder / path.name).mkdir()
            else:
                shutil.copy(path, folder)
        summary = running if i % 10 == 0 else said
        (folder / "summary.json").write_text(json.dumps({**summary, "started": said["started"] + i}))
        folders.append(folder)
    return folders


def seconds(*words: str) -> float:
    """Wall time of a command, that of starting Python included."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "unmask.runs", *words], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as place:
        run, outputs = Path(place, "run"), Path(place, "outputs")
        subprocess.run(
            [sys.executable, ROOT / "train.py", "debug=smoke", f"run_dir={run}"], check=True, capture_output=True
        )
        first, second, *_ = map(str, fill(outputs, run))
        commands = (("list", str(outputs)), ("best", str(outputs)), ("show", first), ("diff", first, second))
        for words in commands:
            print(f"{words[0]:6} {statistics.median(seconds(*words) for _ in range(rounds)):.2f} s", flush=True)


if __name__ == "__main__":
    main()
