"""data2vec's train steps: on speech beside transformers' Data2VecAudioModel, and data2vec 2.0's price of a mask.

Speech, base size: forward of student and teacher, targets, loss, backward, AdamW and the teacher's update on the same
waveforms and masks. transformers has no teacher, so it gets the plain one: a deep copy, hooks on its feed-forward
layers, an update parameter by parameter.
data2vec 2.0, ViT-B/16: a step with eight masks a sample, divided by eight, beside a step of data2vec with its one.

    python benchmarks/data2vec_step.py [--seconds 4] [--batch 2] [--images 4] [--rounds 5]
"""

import argparse
import copy
import os
import statistics

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from timing import Step, interleaved, ratio
from transformers import Data2VecAudioConfig, Data2VecAudioModel

from unmask.backbone import Backbone
from unmask.masking.kept_squares import KeptSquaresMask
from unmask.masking.random import RandomMask
from unmask.masking.span import SpanMask
from unmask.modality.image import Image
from unmask.modality.speech import Speech
from unmask.nn.block import Style
from unmask.nn.encoder import Encoder
from unmask.objective.base import Objective
from unmask.objective.data2vec import Data2Vec
from unmask.objective.data2vec2 import Data2Vec2
from unmask.schema import Batch, Mask
from unmask.training.groups import parameter_groups

TOP_K, TAU = 8, 0.999
POST_NORM = Style(norm_first=False, norm_eps=1e-5, init="normal")
TEACHER = {
    "top_k": TOP_K, "target": "ffn", "layer_norm": "instance", "target_norm": "none", "beta": 0.0, "reduction": "root",
    "tau_start": TAU, "tau_end": TAU, "tau_steps": 0,
}  # fmt: skip


def our_step(objective: Objective, batch: Batch, mask: Mask) -> Step:
    """One optimiser step of ours."""
    optimizer = torch.optim.AdamW(parameter_groups(objective, 0.01), lr=1e-4, fused=True)

    def step() -> None:
        objective(batch, mask).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(1)

    return step


def peer_step(batch: Batch, mask: Mask) -> Step:
    """The same by transformers, with a teacher as one would write it."""
    config = Data2VecAudioConfig(
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0, layerdrop=0.0
    )
    student = Data2VecAudioModel(config)
    head = torch.nn.Linear(config.hidden_size, config.hidden_size)
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    features: list[torch.Tensor] = []
    for layer in teacher.encoder.layers[-TOP_K:]:
        layer.feed_forward.register_forward_hook(lambda module, given, out: features.append(out))
    optimizer = torch.optim.AdamW([*student.parameters(), *head.parameters()], lr=1e-4, weight_decay=0.01)
    hidden = mask.is_hidden(mask.visible.shape[1] + mask.hidden.shape[1])

    def step() -> None:
        features.clear()
        with torch.no_grad():
            teacher(batch.inputs)
            layers = [F.instance_norm(x.transpose(1, 2)).transpose(1, 2) for x in features]
            target = torch.stack(layers).mean(0)[hidden]
        prediction = head(student(batch.inputs, mask_time_indices=hidden).last_hidden_state[hidden])
        (F.mse_loss(prediction, target) * config.hidden_size**0.5).backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                mine.mul_(TAU).add_(theirs, alpha=1 - TAU)

    return step


def speech(count: int, seconds: float, rounds: int) -> None:
    """Print the ratio to transformers."""
    modality = Speech(768, seconds)
    batch = Batch(torch.randn(count, round(16_000 * seconds)), torch.arange(count))
    mask = SpanMask(0.49, 10).draw(0, batch.positions, modality.grid)
    ours = Data2Vec(
        Backbone(modality, Encoder(768, 12, 12, style=POST_NORM), class_token=False), head_layers=1, **TEACHER
    )
    sides = {"unmask": our_step(ours, batch, mask), "transformers": peer_step(batch, mask)}
    taken = interleaved(sides, rounds)
    print(
        f"data2vec speech base, {count} x {seconds:g} s: "
        + ", ".join(f"{name} {statistics.median(taken[name]):.2f} s" for name in sides)
        + f"; {ratio(taken['transformers'], taken['unmask'])} times as fast",
        flush=True,
    )


def masks(count: int, rounds: int, repeats: int = 8) -> None:
    """Print the price of one of `repeats` masks in steps of data2vec."""

    def backbone(style: Style) -> Backbone:
        image = Image(768, 224, 16, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        return Backbone(image, Encoder(768, 12, 12, style=style))

    first = Data2Vec(backbone(Style()), head_layers=1, **TEACHER)
    second = Data2Vec2(
        backbone(Style(norm_first=False)), masks_per_sample=repeats, cls_weight=0.01, mask_noise_std=0.01,
        decoder_width=768, decoder_kernel=3, decoder_groups=16, decoder_layers=6, decoder_residual=True,
        decoder_dropout=0.0, head_layers=1, **TEACHER,
    )  # fmt: skip
    batch = Batch(torch.randint(0, 256, (count, 3, 224, 224), dtype=torch.uint8), torch.arange(count))
    grid = first.backbone.modality.grid
    many = KeptSquaresMask(0.8, side=3, adjust=0.07).draw(0, torch.arange(count * repeats), grid)
    sides = {
        "data2vec": our_step(first, batch, RandomMask(0.6).draw(0, batch.positions, grid)),
        "data2vec2": our_step(second, batch, many),
    }
    taken = interleaved(sides, rounds)
    print(
        f"ViT-B/16, {count} images: data2vec {statistics.median(taken['data2vec']):.2f} s a step, data2vec 2.0 with "
        f"{repeats} masks {statistics.median(taken['data2vec2']):.2f} s; a mask costs "
        f"{ratio([x / repeats for x in taken['data2vec2']], taken['data2vec'])} of a step",
        flush=True,
    )


def main() -> None:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    speech(flags.batch, flags.seconds, flags.rounds)
    masks(flags.images, flags.rounds)


if __name__ == "__main__":
    main()
