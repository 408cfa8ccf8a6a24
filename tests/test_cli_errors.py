"""A mistake gets one sentence that names key, value, reason and way out, exit code 2, and no stack trace."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as PILImage

from tests.conftest import ROOT

MISTAKES = [
    (["modality=text", "data=digits"], "data=digits does not go with modality=text"),
    (["objective=data2vec", "objective.copied=modality"], "objective.copied=modality is not possible"),
    (["objective=data2vec", "objective.copied=[modalty]"], "the backbone has no modalty"),
    (["encoder.position_bias=alibi"], "needs a grid of one axis"),
    # Misspelt keys and options: the nearest right one is named.
    (["trainer.max_step=5"], "Did you mean trainer.max_steps?"),
    (["mask.ration=0.5"], "Did you mean mask.ratio?"),
    (["sed=1"], "Did you mean seed?"),
    (["objetive=mae"], "Did you mean objective?"),
    (["optimiser=adamw"], "Did you mean optimizer?"),
    (["data.global_batchsize=3"], "Did you mean data.global_batch_size?"),
    (["model=tinny"], "model=tinny: there is no such option. Did you mean tiny?"),
    (["mask=blok"], "Did you mean block?"),
    (["data=digit"], "Did you mean digits?"),
    (["precision=fp161"], "Did you mean fp16?"),
    (["experiment=mae_image_bas"], "Did you mean mae_image_base?"),
    (["experiment=ft_glue_rte"], "is for finetune.py. Run: python finetune.py experiment=ft_glue_rte ..."),
    (["modality=speech", "data.micro_batch_seconds=3"], "batches by samples. Use data.micro_batch_size."),
    (["modality=speech", "data.batch_seconds=9", "data.micro_batch_size=3"], "by seconds. Use"),
    (["logger=wandbb"], "Did you mean wandb?"),
    (["modality=smell"], "Choose one of audio, image"),
    (["+modality.colour=1"], "colour"),
    (["+mask.shape=round"], "shape"),
    (["mask.ratio=[0.5"], "mask.ratio=[0.5"),
    (["mask.ratio"], "mask.ratio"),
    # Numbers out of range, each before torch is imported where one number is enough.
    (["mask.ratio=1.0"], "Choose a ratio strictly between 0 and 1"),
    (["mask.ratio=0"], "Choose a ratio strictly between 0 and 1"),
    (["mask.ratio=-0.5"], "mask.ratio=-0.5 is not possible"),
    (["mask.ratio=75"], "mask.ratio=75 is not possible"),
    (["mask.ratio=most"], "mask.ratio=most is not possible"),
    (["mask.ratio=0.99"], "keeps 0 of 16 tokens"),
    (["modality.patch_size=8"], "keeps 0 of 1 tokens"),
    (["trainer.max_steps=0"], "at least 1"),
    (["trainer.max_steps=-5"], "trainer.max_steps=-5 is not possible"),
    (["trainer.max_steps=2.5"], "a whole number of optimiser steps"),
    (["trainer.max_steps=many"], "trainer.max_steps=many"),
    (["trainer.duration=0 epochs"], "less than one optimiser step"),
    (["trainer.duration=forever"], "is no duration"),
    (["trainer.duration=5 %"], "share of itself"),
    (["trainer.devices=0"], "trainer.devices=0"),
    (["trainer.gradient_clip=-1"], "trainer.gradient_clip=-1"),
    (["trainer.accelerator=abacus"], "one of auto, cpu"),
    (["scheduler.warmup=20 steps", "trainer.max_steps=10"], "so the peak is never reached"),
    (["scheduler.warmup=soon"], "scheduler.warmup=soon is no duration"),
    (["optimizer.base_lr=0"], "optimizer.base_lr=0"),
    (["optimizer.lr=fast"], "optimizer.lr=fast"),
    (["optimizer.weight_decay=-0.1"], "optimizer.weight_decay=-0.1"),
    (["data.global_batch_size=0"], "data.global_batch_size=0"),
    (["data.micro_batch_size=48"], "does not divide data.global_batch_size=128"),
    (["data.micro_batch_size=256"], "Choose 128"),
    (["data.num_workers=-1"], "data.num_workers=-1"),
    (["data.num_workers=two"], "data.num_workers=two"),
    (["data.limit=0"], "data.limit=0"),
    (["data.std=[0]"], "data.std=[0] is not possible"),
    (["optimizer.betas=[2,2]"], "beta"),
    (["precision.name=fp17"], "one of auto, fp32, bf16, fp16"),
    (["trainer.accelerator=gpu"], "torch finds no GPU here"),
    (["scheduler=constant", "scheduler.warmup=9 steps", "trainer.max_steps=5"], "the peak is never reached"),
    (["data.channels=2"], "one of 1, 3"),
    (["data.mean=[0.1,0.2]"], "Give one of each for every channel"),
    (["data.image_size=big"], "whole number of pixels"),
    (["modality.patch_size=3"], "modality.patch_size=3 does not divide data.image_size=8. Choose 2"),
    (["modality.patch_size=0"], "modality.patch_size=0"),
    (["modality.crop_scale=0"], "modality.crop_scale=0"),
    (["model.heads=5"], "model.heads=5 does not divide model.width=64"),
    (["model.width=30", "model.heads=2"], "Choose a multiple of 4"),
    (["model.decoder.heads=7"], "model.decoder.heads=7 does not divide"),
    (["model.depth=0"], "model.depth=0"),
    (["mask=block", "mask.block_size=0"], "mask.block_size=0"),
    (["seed=-1"], "seed=-1"),
    (["callbacks.metrics.every=often"], "callbacks.metrics.every=often is no duration"),
    (["callbacks.metrics.every=0"], "is no interval"),
    (["callbacks.checkpointing.keep=0"], "callbacks.checkpointing.keep=0"),
    (["callbacks.metrics=null"], "cannot do without it"),
    (["precision=fp16", "trainer.accelerator=cpu"], "Use precision=bf16, fp32 or auto"),
    # Objectives.
    (["objective=data2vec", "objective.top_k=9"], "objective.top_k=9 of model.depth=3 blocks is not possible"),
    (["objective=data2vec", "objective.top_k=0"], "objective.top_k=0 is not possible"),
    (["objective=data2vec", "objective.beta=-1"], "objective.beta=-1 is not possible"),
    (["objective=data2vec", "objective.tau_start=1.5"], "objective.tau_start=1.5 is not possible"),
    (["objective=data2vec", "objective.tau_end=-0.1"], "objective.tau_end=-0.1 is not possible"),
    (["objective=data2vec", "objective.tau_steps=soon"], "objective.tau_steps=soon is no duration"),
    (["objective=data2vec", "objective.target=blok"], "Did you mean block?"),
    (["objective=data2vec", "objective.layer_norm=batch"], "Choose one of layer, instance, none"),
    (["objective=data2vec", "objective.reduction=squared"], "Choose one of mean, root, sum"),
    (["objective=simmim", "objective.target=hgo"], "Did you mean hog?"),
    (["objective=simmim", "objective.loss=huber"], "Choose one of l1, l2"),
    # Data.
    (["data=images"], "data.root is not set. Add data.root=<folder>, with this in it: JPEG, PNG or WebP files"),
    (["data=images", "data.root={tmp}/nowhere"], "nowhere"),
    (["data=images", "data.root={tmp}/empty"], "holds no images"),
    (["data=images", "data.root={tmp}/texts"], "none ending in"),
    (["data=images", "data.root={tmp}/file.txt"], "file.txt"),
    (["data=images", "data.root={tmp}/fakes"], "samples in a row cannot be read"),
    (["data=fashion_mnist", "data.root={tmp}/empty"], "make data-fashion"),
    (["data=glyphs", "data.root={tmp}/empty"], "make data-glyphs"),
    (["modality=video", "data=camera_motion", "data.root={tmp}/empty"], "make data-photos"),
    # Run folders.
    (["resume={tmp}/nowhere"], "is not a run: it holds no overrides.json"),
    (["resume={tmp}/empty"], "is not a run"),
    (["resume={tmp}/saved", "model=small"], "model.name was tiny in"),
    (["resume={tmp}/saved", "trainer.max_step=9"], "Did you mean trainer.max_steps?"),
    (["resume={tmp}/saved", "seed=3"], "seed was 0 in"),
    (["resume={tmp}/saved", "model.width=32"], "model.width was 64 in"),
    (["resume={tmp}/saved", "optimizer.weight_decay=0.5"], "that is another run"),
    (["resume={tmp}/saved", "data.micro_batch_size=48"], "does not divide"),
    (["run_dir={tmp}/saved"], "already holds a run. Go on with resume="),
    (["run_dir={tmp}/file.txt/run"], "cannot be written to"),
    (["run_dir=/proc/run"], "cannot be written to"),
]  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that are wrong in one way each."""
    tmp = tmp_path_factory.mktemp("places")
    for name in ("empty", "texts", "fakes", "saved"):
        (tmp / name).mkdir()
    (tmp / "file.txt").write_text("text")
    (tmp / "texts" / "readme.txt").write_text("text")
    (tmp / "fakes" / "fake.jpg").write_text("text")
    config = subprocess.run(
        [sys.executable, ROOT / "train.py", "--cfg", "job", "--resolve"], capture_output=True, text=True, check=True
    )
    (tmp / "saved" / "config.yaml").write_text(config.stdout)
    (tmp / "saved" / "overrides.json").write_text("[]")
    return tmp


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: " ".join(m[0]))
def test_a_mistake_gets_one_sentence(train, places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake):
    words, expected = mistake
    words = [word.format(tmp=places) for word in words]
    everything = lambda: sorted([*places.rglob("*"), *tmp_path.rglob("*")])  # noqa: E731
    before = everything()
    with pytest.raises(SystemExit) as exit_:
        train(*words)
    error = capsys.readouterr().err.strip()
    assert exit_.value.code == 2
    assert expected in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error
    assert everything() == before  # nothing is left behind


def test_a_mistake_is_found_before_torch_is_imported():
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["train.py", "mask.ratio=2"]
from train import main
try:
    main()
except SystemExit as exit_:
    assert exit_.code == 2
assert "torch" not in sys.modules and "lightning" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "mask.ratio=2 is not possible" in result.stderr


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"]])
def test_help_and_config_never_load_torch(words: list[str]):
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["train.py", *{words!r}]
from train import main
try:
    main()
finally:
    assert "torch" not in sys.modules and "lightning" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "mask_ratio" in result.stdout or "ratio: 0.75" in result.stdout


def test_debug_shows_the_stack(train, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        train("mask.ratio=2", "debug=traceback")
    assert "Traceback" in capsys.readouterr().err


def test_pictures_of_every_kind_and_a_truncated_one_are_trained_on(train, tmp_path: Path, capsys):
    folder = tmp_path / "photos"
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for i, mode in enumerate(("RGB", "L", "RGBA", "P", "RGB", "I;16", "LA", "CMYK", "RGB", "RGB", "RGB")):
            suffix = "jpg" if mode == "CMYK" else "webp" if i == 4 else "png" if i else "jpg"
            PILImage.new(mode, (40 + i, 30)).save(folder / label / f"{i}.{suffix}")
    whole = (folder / "cat" / "0.jpg").read_bytes()
    (folder / "cat" / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    run = train(
        "data=images", f"data.root={folder}", "debug=smoke", "data.image_size=32", "data.global_batch_size=16",
        "model.width=16", "model.heads=2", "model.depth=1", "callbacks.broken_samples.most=0.2", "logger=csv",
        "callbacks.probes.labels=20", "callbacks.probes.test=10", "modality.patch_size=8",
    )  # fmt: skip
    assert "broken.jpg" in (run / "broken_samples.txt").read_text()
    assert "1 samples could not be read" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        train(
            "data=images", f"data.root={folder}", "debug=smoke", "data.image_size=32", "data.global_batch_size=16",
            "callbacks.probes=null", "logger=csv", "modality.patch_size=8", folder="strict",
        )  # fmt: skip
    assert "over callbacks.broken_samples.most=0.01" in capsys.readouterr().err
