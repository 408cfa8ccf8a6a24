"""Published fine-tuning recipes: they compose, their numbers are the published ones, and each runs at toy size."""

import json
from collections.abc import Callable
from pathlib import Path

import hydra
import numpy as np
import pytest
import soundfile
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from tests.conftest import ROOT
from unmask.build.finetune import as_built, build_backbone
from unmask.build.paper import beside_the_paper
from unmask.build.training import build_optimization, learning_rate
from unmask.data.audio import AudioFolder
from unmask.errors import ConfigError
from unmask.rules import check
from unmask.training.duration import to_steps
from unmask.training.lars import LARS

Run = Callable[..., Path]
RECIPES = ROOT / "conf" / "experiment"
NAMES = sorted(path.stem for start in ("ft_", "linprobe_") for path in RECIPES.glob(f"{start}*.yaml"))
IMAGENET, KINETICS = 1_281_167, 240_000  # training samples
TOY = (
    "backbone=scratch", "model.width=16", "model.depth=2", "model.heads=2", "data.num_workers=0", "logger=csv",
    "precision=fp32", "callbacks.metrics.every=1 steps", "trainer.max_steps=3", "scheduler.warmup=1 steps",
)  # fmt: skip


def composed(name: str, *words: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        given = [f"experiment={name}", "backbone=scratch", "++data.root=here", *words]
        return hydra.compose("finetune", given)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_composes_and_says_what_it_is(name: str):
    check(composed(name))
    text = (RECIPES / f"{name}.yaml").read_text()
    for part in (f"python finetune.py experiment={name} ", "  layout: ", "# Status: ", "# Not as published: "):
        assert part in text


# Applied rate, samples, steps, steps of warm-up, last rate: of the papers and their code (MAE's FINETUNE page, ...).
SCHEDULES = {
    "ft_imagenet_base": (2e-3, IMAGENET, 125_114, 6256, 1e-6),
    "ft_imagenet_large": (4e-3, IMAGENET, 62_557, 6256, 1e-6),
    "ft_imagenet_huge": (4e-3, IMAGENET, 62_557, 6256, 1e-6),
    "linprobe_imagenet_base": (6.4, IMAGENET, 7038, 782, 0.0),
    "linprobe_imagenet_large": (6.4, IMAGENET, 3910, 782, 0.0),
    "linprobe_imagenet_huge": (6.4, IMAGENET, 3910, 782, 0.0),
    "ft_imagenet_data2vec_base": (4e-3, IMAGENET, 125_114, 12_512, 1e-6),
    "ft_imagenet_data2vec_large": (5e-3, IMAGENET, 62_557, 6256, 1e-6),
    "ft_imagenet_data2vec2_base": (1e-3, IMAGENET, 250_200, 16_000, 1e-6),
    "ft_imagenet_data2vec2_large": (5e-4, IMAGENET, 125_200, 16_000, 1e-7),
    "ft_imagenet_data2vec2_huge": (5e-4, IMAGENET, 125_200, 16_000, 1e-20),
    "ft_kinetics400_base": (9.6e-3, KINETICS, 70_313, 4688, 1e-5),
    "ft_kinetics400_large": (4.8e-3, KINETICS, 46_875, 4688, 1e-6),
    "ft_kinetics400_huge": (4.8e-3, KINETICS, 70_313, 4688, 1e-6),
    "ft_audioset20k": (1.25e-4, 20_000, 37_500, 2500, 1e-6),
    "ft_audioset2m": (2e-4, 2_000_000, 78_125, 7813, 1e-6),
    "ft_esc50": (2.5e-4, 1600, 1500, 100, 1e-6),
    "ft_speechcommands": (1e-3, 84_843, 19_886, 1326, 1e-6),
    "ft_coco_base": (1e-4, 117_266, 184_375, 250, 1e-6),
    "ft_librispeech_10min": (5e-5, 100, 13_000, 1300, 2.5e-6),
    "ft_librispeech_1h": (5e-5, 300, 13_000, 1300, 2.5e-6),
    "ft_librispeech_10h": (5e-5, 2700, 20_000, 2000, 2.5e-6),
    "ft_librispeech_100h": (3e-5, 28_539, 80_000, 8000, 1.5e-6),
    "ft_librispeech_960h": (1e-4, 281_241, 320_000, 32_000, 5e-6),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_and_steps_are_the_published_ones(name: str):
    rate, samples, steps, warmup, last = SCHEDULES[name]
    cfg = composed(name)
    batch = cfg.data.global_batch_size
    assert learning_rate(cfg, batch) == pytest.approx(rate)
    length = cfg.trainer.max_steps or to_steps("trainer.duration", cfg.trainer.duration, samples, batch)
    assert length == steps
    schedule = build_optimization(cfg, samples, batch, steps).learning_rate
    assert schedule(warmup - 1) < schedule(warmup) == pytest.approx(rate)
    assert schedule(steps) == pytest.approx(last, abs=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_recipe_differs_from_its_paper_in_nothing_but_precision(name: str):
    cfg = composed(name)
    with torch.device("meta"):
        backbone = build_backbone(cfg, scratch=False)
    lines = beside_the_paper(as_built(cfg, backbone), cfg.data.global_batch_size)
    assert [line for line in lines[1:] if "precision.name" not in line] == []
    assert lines[0].startswith("paper: ")


def test_a_linear_probe_learns_by_lars_though_the_task_sets_adams_betas():
    cfg = composed("linprobe_imagenet_base")
    assert cfg.optimizer.betas
    weight = torch.nn.Parameter(torch.ones(2, 2))
    made = build_optimization(cfg, IMAGENET, 16_384, 7038).make_optimizer([{"params": [weight]}])
    assert isinstance(made, LARS)


@pytest.mark.parametrize(("name", "program"), [("ft_imagenet_base", "train"), ("mae_image_base", "finetune")])
def test_a_recipe_of_the_other_program_is_named(request: pytest.FixtureRequest, capsys, name: str, program: str):
    with pytest.raises(SystemExit) as exit_:
        request.getfixturevalue(program)(f"experiment={name}", "data.root=here")
    other = {"train": "finetune", "finetune": "train"}[program]
    assert exit_.value.code == 2
    assert capsys.readouterr().err == (
        f"error: experiment={name} is for {other}.py. Run: python {other}.py experiment={name} ...\n"
    )


@pytest.mark.parametrize("name", ["ft_imagenet_base", "ft_kinetics400_base", "ft_esc50", "ft_librispeech_10h"])
def test_a_folder_that_is_missing_is_named(finetune: Run, capsys, tmp_path: Path, name: str):
    with pytest.raises(SystemExit) as exit_:
        finetune(*TOY, f"experiment={name}", f"data.root={tmp_path / 'nowhere'}")
    error = capsys.readouterr().err.strip()
    assert exit_.value.code == 2
    assert str(tmp_path / "nowhere") in error
    assert len(error.splitlines()) == 1


def write_sounds(folder: Path, labels: list[str], column: str = "label") -> Path:
    """Half a second each; every other clip is for testing."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = [f"path\t{column}\tsplit"]
    for i, label in enumerate(labels):
        soundfile.write(folder / f"{i}.wav", 0.1 * rng.standard_normal(8000 + 800 * i), 16_000)
        lines.append(f"{i}.wav\t{label}\t{'test' if i % 2 else 'train'}")
    (folder / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return folder


SEVERAL = ["dog|rain", "rain", "dog", "cat|dog", "rain|cat", "dog", "cat", "cat|rain"]


def test_a_manifest_lists_several_classes_a_clip(tmp_path: Path):
    source = AudioFolder(write_sounds(tmp_path / "sounds", SEVERAL))
    assert source.classes == ("cat", "dog", "rain")
    assert {source.label(i) for i in range(len(source))} == {(1, 2), (1,), (2, 0), (0,)}
    assert source[0].label == source.label(0)


def test_clips_of_several_classes_are_learned_and_scored(finetune: Run, capsys, tmp_path: Path):
    sounds = write_sounds(tmp_path / "sounds", SEVERAL)
    words = ("experiment=ft_audioset20k", f"data.root={sounds}", "input.seconds=0.64", "data.global_batch_size=2")
    run = finetune(*TOY, *words)
    out = capsys.readouterr().out
    assert "paper: arXiv 2207.06405, table 3, and the released code; batch 32, learning rate 0.000125" in out
    assert "  differs from the paper: model.width=16, published 768" in out
    assert "  differs from the paper: optimizer.layer_decay" not in out
    results = json.loads((run / "results.json").read_text())
    assert results["decides"] == "mAP"
    assert 0 < results["scores"]["mAP"] <= 1
    said = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert sorted(record["label"] for record in said) == ["cat|dog", "cat|rain", "dog", "rain"]
    with pytest.raises(SystemExit):
        finetune(*TOY, *words, "task.multi_label=false", folder="single")
    assert "samples are of several classes" in capsys.readouterr().err


def test_clips_are_batched_by_seconds_in_fine_tuning(finetune: Run, capsys, tmp_path: Path):
    speech = write_sounds(tmp_path / "speech", ["a b", "ab", "b a", "ba", "aa", "b", "a", "bb"], column="text")
    run = finetune(
        *TOY, "experiment=ft_librispeech_960h", f"data.root={speech}", "data.batch_seconds=1.3", "data.bucket_steps=2",
        "data.micro_batch_seconds=0.65", "mask.length=2",
    )  # fmt: skip
    assert "3 steps of 2" in capsys.readouterr().out
    assert "wer" in json.loads((run / "results.json").read_text())["scores"]


def test_a_budget_per_class_needs_one_class_a_clip(tmp_path: Path):
    from unmask.data.budget import choose

    with pytest.raises(ConfigError, match="samples are of several classes"):
        choose(AudioFolder(write_sounds(tmp_path / "sounds", SEVERAL)), "1/class", 0)
