"""From the shell to help, config and the first optimiser step, and what the last consists of.

python benchmarks/start_up.py [--rounds 3]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = str(Path(__file__).parents[1] / "train.py")
STEP = ["trainer.max_steps=1", "scheduler.warmup=0", "callbacks.probes=null", "callbacks.pictures=null"]


def seconds(*command: str) -> float:
    """Wall time of a command that has to succeed."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "train.py --help": [TRAIN, "--help"],
            "train.py --cfg job": [TRAIN, "--cfg", "job"],
            "import torch": ["-c", "import torch"],
            "import torch, torchvision": ["-c", "import torchvision.transforms.v2"],
            "import lightning.pytorch": ["-c", "import lightning.pytorch"],
            "import everything": ["-c", "import unmask.build.pretrain, unmask.data.digits, unmask.callbacks.probes"],
        }
        for name, command in commands.items():
            print(f"{name:28} {statistics.median(seconds(*command) for _ in range(rounds)):.2f} s", flush=True)
        whole = [seconds(TRAIN, *STEP, f"run_dir={folder}/{i}") for i in range(rounds)]
        print(f"{'one step, saved, process gone':28} {statistics.median(whole):.2f} s")


if __name__ == "__main__":
    main()
