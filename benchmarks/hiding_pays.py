"""What hiding saves: the train step of MAE on video, ViT-B on 16 x 224² frames, at each share of hidden tokens.

One process, shares in turn. Beside the seconds: the arithmetic of forward and backward, and the memory that the forward
keeps for the backward. The encoder sees visible tokens only, the decoder of 4 blocks (arXiv 2205.09113) all.

    python benchmarks/hiding_pays.py [--batch 2] [--rounds 2] [--picture hiding.png]
"""

import argparse
import math
import os
import statistics
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from data2vec_step import our_step
from timing import interleaved, ratio
from torch.utils.flop_counter import FlopCounterMode

from unmask.backbone import Backbone
from unmask.callbacks.metrics import CPU_ATTENTION
from unmask.masking.random import RandomMask
from unmask.modality.video import Video
from unmask.nn.encoder import Encoder
from unmask.objective.mae import MAE
from unmask.schema import Batch, Mask

SHARES = (0.0, 0.15, 0.5, 0.75, 0.9, 0.95)


def draw(share: float, batch: Batch, grid: tuple[int, ...]) -> Mask:
    """A random mask; where nothing is to be hidden, one token is, since there is no loss without."""
    tokens = math.prod(grid)
    return RandomMask(max(share, 1 / tokens)).draw(0, batch.positions, grid)


def kept_bytes(objective: MAE, batch: Batch, mask: Mask) -> int:
    """What the forward pass keeps for the backward, weights left out, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in objective.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        objective(batch, mask)
    return sum(kept.values())


def flops(objective: MAE, batch: Batch, mask: Mask) -> int:
    """Of forward and backward."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        objective(batch, mask).loss.backward()
    objective.zero_grad()
    return counter.get_total_flops()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--picture", type=Path, help="draw it too")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    video = Video(768, 16, 7.5, 224, 16, 2, 3, [0.45] * 3, [0.225] * 3)
    objective = MAE(Backbone(video, Encoder(768, 12, 12)), 512, 4, 16, normalize=True)
    batch = Batch(
        torch.randint(0, 256, (arguments.batch, 16, 3, 224, 224), dtype=torch.uint8), torch.arange(arguments.batch)
    )
    masks = {share: draw(share, batch, video.grid) for share in SHARES}
    seconds = interleaved({f"{s:.0%}": our_step(objective, batch, m) for s, m in masks.items()}, arguments.rounds)
    arithmetic = {share: flops(objective, batch, mask) for share, mask in masks.items()}
    memory = {share: kept_bytes(objective, batch, mask) for share, mask in masks.items()}
    print(f"{'hidden':>8}{'seconds':>10}{'faster than 0 %':>40}{'TFLOP':>8}{'x':>6}{'GB kept':>9}{'x':>6}")
    for share in SHARES:
        name = f"{share:.0%}"
        print(
            f"{name:>8}{statistics.median(seconds[name]):>10.2f}{ratio(seconds['0%'], seconds[name]):>40}"
            f"{arithmetic[share] / 1e12:>8.2f}{arithmetic[0.0] / arithmetic[share]:>6.1f}"
            f"{memory[share] / 1e9:>9.2f}{memory[0.0] / memory[share]:>6.1f}"
        )
    if arguments.picture:
        draw_picture(arguments.picture, seconds, arithmetic, memory)


def draw_picture(
    path: Path, seconds: dict[str, list[float]], arithmetic: dict[float, int], memory: dict[float, int]
) -> None:
    """Cost at each share over the cost at 0 %."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    base = statistics.median(seconds["0%"])
    lines = {
        "time": [statistics.median(seconds[f"{share:.0%}"]) / base for share in SHARES],
        "arithmetic": [arithmetic[share] / arithmetic[0.0] for share in SHARES],
        "memory kept": [memory[share] / memory[0.0] for share in SHARES],
    }
    for name, values in lines.items():
        axes.plot([100 * share for share in SHARES], values, marker="o", label=name)
    axes.set(xlabel="hidden, %", ylabel="share of the cost at 0 %", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
