"""The ViT-B/16 MAE train step beside transformers' ViTMAEForPreTraining, in turn, in one process.

Forward, backward and AdamW on the same images under the same autocast; each side uses what its users get: transformers
its default attention and torch's default AdamW, unmask its own. Prints seconds, ratio, samples/s and MFU.

    python benchmarks/train_step.py [--precision fp32 bf16] [--batch 16] [--rounds 5] [--profile]
"""

import argparse
import os
import statistics

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from timing import Step, interleaved, ratio
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from unmask.backbone import Backbone
from unmask.callbacks.metrics import CPU_ATTENTION, matmul_flops_per_second
from unmask.masking.random import RandomMask
from unmask.modality.image import Image
from unmask.nn.attention import cpu_has_bfloat16
from unmask.nn.encoder import Encoder
from unmask.objective.mae import MAE
from unmask.schema import Batch
from unmask.training.groups import parameter_groups

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def our_step(batch: Batch, autocast: torch.autocast) -> Step:
    """One optimiser step of unmask's MAE Base, masks drawn anew."""
    image = Image(768, 224, 16, 3, MEAN, STD)
    mae = MAE(Backbone(image, Encoder(768, 12, 12)), 512, 8, 16, normalize=True)
    optimizer = torch.optim.AdamW(parameter_groups(mae, 0.05), lr=1e-4, betas=(0.9, 0.95), fused=True)
    strategy = RandomMask(0.75)

    def step() -> None:
        with autocast:
            loss = mae(batch, strategy.draw(0, batch.positions, image.grid)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peer_step(batch: Batch, autocast: torch.autocast) -> Step:
    """The same by transformers."""
    mae = ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True, layer_norm_eps=1e-6))
    optimizer = torch.optim.AdamW(mae.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD))

    def step() -> None:
        pixels = (batch.inputs / 255 - mean) / std
        with autocast:
            loss = mae(pixels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(precision: str, count: int, rounds: int, show_profile: bool) -> None:
    """Interleave the two and print a line."""
    batch = Batch(torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8), torch.arange(count))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16")
    sides = {"unmask": our_step(batch, autocast), "transformers": peer_step(batch, autocast)}
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        sides["unmask"]()
    seconds = interleaved(sides, rounds)
    ours, theirs = (statistics.median(seconds[name]) for name in sides)
    mfu = counter.get_total_flops() / ours / matmul_flops_per_second(torch.device("cpu"), dtype)
    print(
        f"{precision} batch {count}: unmask {ours:.3f} s, transformers {theirs:.3f} s, "
        f"{ratio(seconds['transformers'], seconds['unmask'])} times as fast, "
        f"{count / ours:.2f} samples/s, MFU {mfu:.0%}",
        flush=True,
    )
    if show_profile:
        for name, step in sides.items():
            with profile() as record:
                step()
            print(name, record.key_averages().table(sort_by="self_cpu_time_total", row_limit=12), sep="\n")


def main() -> None:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    flags = parser.parse_args()
    for precision in flags.precision:
        emulated = precision == "bf16" and not cpu_has_bfloat16()
        if emulated:
            print("bf16: this CPU has no bfloat16 matrix instructions and would emulate it, minutes a step: left out")
        else:
            measure(precision, flags.batch, flags.rounds, flags.profile)


if __name__ == "__main__":
    main()
