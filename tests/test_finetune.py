"""finetune.py: from a run to a table, predictions and a model that reads files; bad input gets one sentence."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image as PILImage
from safetensors.torch import load_file

from tests.conftest import QUICK
from unmask.backbone import Backbone
from unmask.data.digits import Digits
from unmask.modality.image import Image
from unmask.nn.block import Style
from unmask.nn.encoder import Encoder
from unmask.nn.position import resize_table, sincos_2d
from unmask.schema import Batch
from unmask.task.base import Task

Run = Callable[..., Path]
TUNE = (
    "data.num_workers=0", "data.labels=5/class", "trainer.max_steps=6", "scheduler.warmup=1 steps",
    "callbacks.metrics.every=1 steps", "logger=csv", "precision=fp32",
)  # fmt: skip


@pytest.fixture
def pretrained(train: Run) -> Path:
    return train(*QUICK, "trainer.max_steps=3", folder="pretrained")


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_debug_mode_leaves_out_what_only_pretraining_has(pretrained: Path, finetune: Run):
    run = finetune(f"backbone={pretrained}", "debug=fast", "logger=csv")
    assert (run / "predictions.csv").is_file()


def test_a_run_folder_is_all_that_fine_tuning_needs(pretrained: Path, finetune: Run, capsys):
    run = finetune(f"backbone={pretrained}", *TUNE, "compare=scratch")
    out = capsys.readouterr().out
    assert "scratch" in out
    assert out.strip().splitlines()[-1] == f"next:    python -m unmask.predict {run} <files>"
    rows = json.loads((run / "comparison.json").read_text())
    assert list(rows) == [str(pretrained), "scratch"]
    for row in rows.values():
        low, high = row["interval"]
        assert low <= row["scores"]["accuracy"] <= high
    said = table(run)
    assert len(said) == 360
    right = sum(row["label"] == row["prediction"] for row in said) / 360
    assert right == pytest.approx(rows[str(pretrained)]["scores"]["accuracy"])
    assert PILImage.open(run / "confusion.png").size[0] > 100


def test_the_backbone_is_the_runs_and_scratch_is_not(pretrained: Path, finetune: Run):
    frozen = finetune(f"backbone={pretrained}", *TUNE, "freeze=all", "compare=scratch")
    before = load_file(pretrained / "backbone" / "model.safetensors")
    for folder, same in ((frozen, True), (frozen / "scratch", False)):
        after = load_file(folder / "model" / "model.safetensors")
        changed = [name for name, value in before.items() if not torch.equal(after[f"backbone.{name}"], value)]
        assert (not changed) == same


def test_freezing_some_blocks_fixes_those_and_the_embedding(train: Run, finetune: Run):
    pretrained = train(*QUICK, "model.depth=2", "trainer.max_steps=3", folder="deep")
    run = finetune(f"backbone={pretrained}", *TUNE, "freeze=1", "data.validation=0")
    before = load_file(pretrained / "backbone" / "model.safetensors")
    after = load_file(run / "model" / "model.safetensors")
    fixed = {name for name, value in before.items() if torch.equal(after[f"backbone.{name}"], value)}
    assert {"modality.projection.weight", "class_token", "encoder.blocks.0.attn.qkv.weight"} <= fixed
    assert "encoder.blocks.1.attn.qkv.weight" not in fixed


def test_only_the_head_learns_at_first(pretrained: Path, finetune: Run):
    run = finetune(
        f"backbone={pretrained}", *TUNE, "freeze_for=6 steps", "data.validation=0", "optimizer.weight_decay=0"
    )
    before = load_file(pretrained / "backbone" / "model.safetensors")
    after = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(after[f"backbone.{name}"], value) for name, value in before.items())
    assert after["head.weight"].abs().max() > 1e-3


def test_the_best_checkpoint_by_held_out_labels_is_tested(pretrained: Path, finetune: Run):
    run = finetune(f"backbone={pretrained}", *TUNE, "callbacks.evaluation.every=1 steps", "data.validation=0.3")
    with (run / "metrics.csv").open() as file:
        seen = [
            (float(row["validation/accuracy"]), int(row["step"]))
            for row in csv.DictReader(file)
            if row["validation/accuracy"]
        ]
    results = json.loads((run / "results.json").read_text())
    best = max(accuracy for accuracy, _ in seen)
    assert len(seen) == 6
    assert results["validation"] == best
    assert results["best_step"] == min(step for accuracy, step in seen if accuracy == best)


@pytest.mark.parametrize("words", [(), ("optimizer=lars", "task.pool=class", "task.norm=batch", "freeze=all")])
def test_a_stopped_run_resumes_to_the_same_predictions(pretrained: Path, finetune: Run, monkeypatch, words):
    from unmask.training.finetune import FinetuneModule

    whole = finetune(f"backbone={pretrained}", *TUNE, *words, folder="whole")
    original, seen = FinetuneModule.training_step, []

    def step(module, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(FinetuneModule, "training_step", step)
        with pytest.raises(SystemExit) as exit_:
            finetune(f"backbone={pretrained}", *TUNE, *words, folder="stopped")
    assert exit_.value.code == 128 + signal.SIGTERM
    finetune(f"resume={whole.parent / 'stopped'}")
    for name in ("predictions.jsonl", "results.json", "model/model.safetensors"):
        assert (whole / name).read_bytes() == (whole.parent / "stopped" / name).read_bytes(), name


def test_the_second_of_two_compared_runs_is_gone_on_with(pretrained: Path, finetune: Run, monkeypatch, capsys):
    from unmask.training.finetune import FinetuneModule

    whole = finetune(f"backbone={pretrained}", *TUNE, "compare=scratch", folder="whole")
    original, seen = FinetuneModule.training_step, []

    def step(module, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == 9:  # the first has six
            os.kill(os.getpid(), signal.SIGTERM)
        return original(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(FinetuneModule, "training_step", step)
        with pytest.raises(SystemExit):
            finetune(f"backbone={pretrained}", *TUNE, "compare=scratch", folder="stopped")
    stopped = whole.parent / "stopped"
    assert f"python finetune.py resume={stopped}\n" in capsys.readouterr().out
    finetune(f"resume={stopped}")
    assert (whole / "comparison.json").read_bytes() == (stopped / "comparison.json").read_bytes()
    with pytest.raises(SystemExit):
        finetune(f"resume={stopped}")
    assert "it is done" in capsys.readouterr().err


def test_the_exported_model_reads_files(pretrained: Path, finetune: Run, tmp_path: Path):
    run = finetune(f"backbone={pretrained}", *TUNE)
    digits = Digits("test")
    for i in range(3):
        PILImage.fromarray(digits[i].value[0].numpy()).save(tmp_path / f"{i}.png")
    command = [sys.executable, "-m", "unmask.predict", str(run), *(str(tmp_path / f"{i}.png") for i in range(3))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = [json.loads(line)["prediction"] for line in done.stdout.splitlines()]
    assert said == [row["prediction"] for row in table(run)[:3]]
    missing = subprocess.run([*command, "nowhere.png"], capture_output=True, text=True, check=False)
    assert missing.returncode == 1
    assert missing.stderr.strip() == "error: nowhere.png: No such file or directory"


@pytest.mark.parametrize("task", ["linear_probe", "knn"])
def test_frozen_features_are_compared_with_fresh_ones_and_pixels(pretrained: Path, finetune: Run, task: str):
    run = finetune(f"backbone={pretrained}", f"task={task}", "data.labels=10/class", "compare=scratch", "task.test=100")
    rows = json.loads((run / "comparison.json").read_text())
    assert list(rows) == [str(pretrained), "scratch", "raw input"]
    assert rows["raw input"]["scores"]["accuracy"] > 0.5
    assert len(table(run)) == 100


MISTAKES = [
    (["backbone=nowhere"], "backbone=nowhere holds no backbone"),
    (["modality=speech"], "data=digits does not go with modality=speech"),
    (["model.width=128"], "model.width=128: the backbone brings its own"),
    (["data.labels=1000/class"], "data.labels=1000/class is more than there is: class"),
    (["data.labels=some"], "data.labels=some is no budget"),
    (["data.labels=5000"], "data.labels=5000 is 5000 samples"),
    (["data.labels=0"], "data.labels=0"),
    (["data.labels=1"], "Give more labels"),
    (["data.labels=10min"], "have no length in seconds"),
    (["data=spoken_words"], "data=spoken_words does not go with modality=image"),
    (["input.frames=8"], "only image_size, crop_scale, flip, mean, std can be changed"),
    (["input.image_size=9"], "does not divide"),
    (["task.pool=men"], "Did you mean mean?"),
    (["task.multi_label=maybe"], "task.multi_label=maybe is not possible"),
    (["task=ctc"], "task=ctc writes down speech"),
    (["freeze=most"], "none, all, or a number of blocks"),
    (["views.time=3"], "are for videos"),
    (["callbacks.evaluation=null"], "cannot do without it"),
    (["task=classificatoin"], "Did you mean classification?"),
    (["data.validation=0.9"], "a share of the labels"),
    (["augment.time_stripe=8"], "change spectrograms, and this is modality=image"),
    (["augment.rand_augment=27"], "a magnitude, at least 0 and at most 10"),
    (["compare=sratch"], "compare=sratch is not possible"),
]


@pytest.mark.parametrize(("words", "expected"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_gets_one_sentence(pretrained: Path, finetune: Run, capsys, words: list[str], expected: str):
    given = [] if words[0].startswith("backbone=") else [f"backbone={pretrained}"]
    with pytest.raises(SystemExit) as exit_:
        finetune(*given, *(word for word in TUNE if word.partition("=")[0] != words[0].partition("=")[0]), *words)
    assert exit_.value.code == 2
    error = capsys.readouterr().err.strip()
    assert expected in error
    assert len(error.splitlines()) == 1
    assert not (pretrained.parent / "tuned").exists()


def test_a_backbone_that_is_not_there_is_named(finetune: Run, capsys):
    with pytest.raises(SystemExit):
        finetune("task=classification")
    assert "backbone is not set" in capsys.readouterr().err


def make_backbone(side: int, bias: str = "none", **settings) -> Backbone:
    torch.manual_seed(0)
    image = Image(16, side, 4, 1, [0.5], [0.5], absolute_positions=bias == "none", **settings)
    return Backbone(image, Encoder(16, 1, 2, style=Style(position_bias=bias))).eval()


def test_positions_are_interpolated_for_another_size_and_stay_so_when_saved(tmp_path: Path):
    small = make_backbone(16)
    small.save(tmp_path / "small")
    large = Backbone.load(tmp_path / "small", {"image_size": 32})
    grid = sincos_2d(16, (4, 4)).T.view(1, 16, 4, 4)
    wanted = torch.nn.functional.interpolate(grid, (8, 8), mode="bicubic", align_corners=False)
    torch.testing.assert_close(large.modality.table, wanted.flatten(2)[0].T)
    large.save(tmp_path / "large")
    torch.testing.assert_close(Backbone.load(tmp_path / "large").modality.table, large.modality.table)
    same = Backbone.load(tmp_path / "small", {"image_size": 16})
    batch = Batch(torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8), torch.arange(2))
    assert torch.equal(same.eval().features(batch), small.features(batch))


def test_mean_and_deviation_may_be_those_of_another_data_set(tmp_path: Path):
    small = make_backbone(16)
    small.save(tmp_path)
    pixels = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    other = Backbone.load(tmp_path, {"mean": [0.1], "std": [0.2]})
    found = other.modality.patches(Batch(pixels, torch.arange(2)))
    wanted = (pixels.float() / 255 - 0.1) / 0.2
    torch.testing.assert_close(found.sort(1).values.flatten().sort().values, wanted.flatten().sort().values)


def test_relative_biases_are_interpolated_between_offsets(tmp_path: Path):
    small = make_backbone(16, "relative")
    with torch.no_grad():  # a bias that only knows how far down a token is, in tokens
        offsets = torch.arange(-3.0, 4.0)[:, None].expand(7, 7).flatten()
        small.position_bias.table[:-3] = offsets[:, None]
    small.save(tmp_path)
    large = Backbone.load(tmp_path, {"image_size": 32})
    table = large.position_bias.table[:-3, 0].view(15, 15)
    torch.testing.assert_close(table, table[:, :1].expand(15, 15))
    assert (table[:, 0].diff() > 0).all()
    torch.testing.assert_close(table, -table.flip(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new"), [((4,), (7,)), ((4, 4), (2, 6)), ((2, 4, 4), (4, 4, 4)), ((2, 4, 4), (3, 2, 8))]
)
def test_a_constant_table_stays_constant_at_any_size(old: tuple[int, ...], new: tuple[int, ...]):
    table = torch.arange(3.0).expand(torch.Size(old).numel(), 3)
    resized = resize_table(table, old, new)
    torch.testing.assert_close(resized, torch.arange(3.0).expand(torch.Size(new).numel(), 3))


def test_time_is_interpolated_apart_from_space():
    ramp = torch.arange(2.0)[:, None, None].expand(2, 3, 3).reshape(-1, 1)  # grows with time alone
    resized = resize_table(ramp, (2, 3, 3), (4, 3, 3)).view(4, 9)
    assert torch.equal(resized, resized[:, :1].expand(4, 9))
    torch.testing.assert_close(resized[:, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_a_task_file_runs_no_code_of_its_choice(pretrained: Path, finetune: Run):
    run = finetune(f"backbone={pretrained}", *TUNE)
    path = run / "model" / "config.json"
    path.write_text(path.read_text().replace("unmask.task.classification", "os.path"))
    with pytest.raises(ValueError, match="is not part of unmask"):
        Task.load(run / "model")
