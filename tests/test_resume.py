"""The same weights, bit for bit: any number of workers, any accumulation of stops, any kind of stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import QUICK, ROOT
from unmask.files import written_whole
from unmask.training.checkpoint import AtomicCheckpointIO, newest_checkpoint

Train = Callable[..., Path]
STEPS = "trainer.max_steps=8"
SMOOTH = "optimizer.eps=1"  # else Adam makes steps of one size out of rounding errors


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Everything in the last checkpoint: model and optimiser state."""
    path = newest_checkpoint(folder)
    assert path is not None
    saved = torch.load(path, weights_only=True)
    flat = dict(saved["state_dict"])
    for index, state in saved["optimizer_states"][0]["state"].items():
        flat |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    return flat


def assert_bit_equal(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert len(first) > 50
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture
def whole(train: Train) -> Path:
    return train(*QUICK, STEPS, folder="whole")


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_same_weights(train: Train, whole: Path, workers: int):
    assert_bit_equal(whole, train(*QUICK, STEPS, f"data.num_workers={workers}", folder="workers"))


def test_another_seed_gives_other_weights(train: Train, whole: Path):
    other = weights(train(*QUICK, STEPS, "seed=1", folder="other"))
    assert not all(torch.equal(v, other[k]) for k, v in weights(whole).items())


class StopAfter:
    """Send this process a signal after so many micro-batches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, micro_batches: int, number: signal.Signals) -> None:
        from unmask.training.module import PretrainModule

        original, seen = PretrainModule.training_step, []

        def step(module, batch, batch_idx):
            seen.append(batch_idx)
            if len(seen) == micro_batches:
                os.kill(os.getpid(), number)
            return original(module, batch, batch_idx)

        monkeypatch.setattr(PretrainModule, "training_step", step)


@pytest.mark.parametrize("stop", [1, 3, 7])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_resumed_run_ends_like_an_uninterrupted_one(
    train: Train, whole: Path, capsys: pytest.CaptureFixture[str], stop: int, number: signal.Signals
):
    folder = whole.parent / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        StopAfter(patch, stop, number)
        with pytest.raises(SystemExit) as exit_:
            train(*QUICK, STEPS, folder="stopped")
    assert exit_.value.code == 128 + number
    assert f"after step {stop} of 8" in capsys.readouterr().out
    train(f"resume={folder}")
    assert_bit_equal(whole, folder)
    with (folder / "metrics.csv").open() as file:
        assert file.readline().startswith("step,")


def test_a_stop_in_the_middle_of_an_accumulation_waits_for_the_step(train: Train):
    accumulate = (*QUICK, STEPS, "data.micro_batch_size=4")
    whole = train(*accumulate, folder="whole")
    with pytest.MonkeyPatch.context() as patch:
        StopAfter(patch, 10, signal.SIGTERM)  # the second of four micro-batches of the third step
        with pytest.raises(SystemExit):
            train(*accumulate, folder="stopped")
    stopped = whole.parent / "stopped"
    assert newest_checkpoint(stopped).name == "step=000000003.ckpt"
    train(f"resume={stopped}")
    assert_bit_equal(whole, stopped)


def test_resuming_with_another_micro_batch_sees_the_same_samples(train: Train):
    whole = train(*QUICK, STEPS, SMOOTH, folder="whole")
    with pytest.MonkeyPatch.context() as patch:
        StopAfter(patch, 5, signal.SIGTERM)
        with pytest.raises(SystemExit):
            train(*QUICK, STEPS, SMOOTH, "data.micro_batch_size=8", folder="stopped")  # in the third step
    stopped = whole.parent / "stopped"
    train(f"resume={stopped}", "data.micro_batch_size=16")
    resumed = weights(stopped)
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, resumed[name], rtol=1e-4, atol=1e-6)


def test_accumulation_gives_the_gradient_of_the_whole_batch(train: Train):
    whole = weights(train(*QUICK, STEPS, SMOOTH, folder="whole"))
    parts = weights(train(*QUICK, STEPS, SMOOTH, "data.micro_batch_size=4", folder="parts"))
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mask", ["bert", "wav2vec"])
def test_accumulation_weighs_each_hidden_token_alike_where_counts_differ(train: Train, tmp_path: Path, mask: str):
    text = tmp_path / "texts"
    text.mkdir()
    for i in range(40):
        (text / f"{i}.txt").write_text(" ".join(f"word{n * (i + 3) % 17} of" for n in range(40)))
    words = (
        *QUICK, STEPS, SMOOTH, "modality=text", "data=text", f"data.root={text}", "data.block_size=16", f"mask={mask}",
        "data.tokenizer.vocab_size=300", f"paths.cache={tmp_path / 'cache'}", "objective=mlm", "mask.ratio=0.3",
        *(["mask.length=3"] if mask == "wav2vec" else []),
    )  # fmt: skip
    whole = weights(train(*words, folder="whole"))
    parts = weights(train(*words, "data.micro_batch_size=2", folder="parts"))
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], rtol=1e-4, atol=1e-6)


def start(folder: Path, *words: str) -> subprocess.Popen:
    """The program in a process of its own."""
    command = [sys.executable, str(ROOT / "train.py"), f"run_dir={folder}", *QUICK, *words]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(folder: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not (found := newest_checkpoint(folder)) or int(found.stem[5:]) < step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_kill_9_in_the_middle_of_training_loses_nothing_but_time(train: Train, tmp_path: Path):
    steps = ("trainer.max_steps=60", "data.micro_batch_size=8", "callbacks.checkpointing.every=1 steps")
    whole = train(*QUICK, *steps, folder="whole")
    process = start(tmp_path / "killed", *steps)
    wait_for(tmp_path / "killed", 7, process)
    process.kill()
    process.wait()
    # Saving at every step, the kill lands in a save or between two; either way the newest file is whole.
    assert 7 <= int(newest_checkpoint(tmp_path / "killed").stem[5:]) < 60
    train(f"resume={tmp_path / 'killed'}")
    assert_bit_equal(whole, tmp_path / "killed")


def test_ctrl_c_on_a_terminal_reaches_workers_too_and_still_saves(train: Train, tmp_path: Path):
    steps = ("trainer.max_steps=2000", "data.num_workers=2", "callbacks.checkpointing.every=5 steps")
    process = start(tmp_path / "stopped", *steps)
    wait_for(tmp_path / "stopped", 5, process)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, error
    assert "Traceback" not in error
    assert (tmp_path / "stopped" / "backbone" / "model.safetensors").exists()


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path: Path):
    script = f"""
import sys, os
from pathlib import Path
import torch
from unmask.training.checkpoint import AtomicCheckpointIO
folder = Path({str(tmp_path)!r}) / "checkpoints"
io = AtomicCheckpointIO()
io.save_checkpoint({{"x": torch.ones(10)}}, folder / "step=000000001.ckpt")
io.save_checkpoint({{"x": torch.ones(10)}}, folder / "step=000000002.ckpt")
real = torch.save
def dying(value, path):
    real(value, path)
    with open(path, "r+b") as file:
        file.truncate(100)
    os.kill(os.getpid(), 9)
torch.save = dying
io.save_checkpoint({{"x": torch.zeros(10)}}, folder / "step=000000003.ckpt")
"""
    result = subprocess.run([sys.executable, "-c", script], check=False)
    assert result.returncode == -signal.SIGKILL
    newest = newest_checkpoint(tmp_path)
    assert newest.name == "step=000000002.ckpt"
    assert torch.equal(AtomicCheckpointIO().load_checkpoint(newest)["x"], torch.ones(10))
    assert (tmp_path / "checkpoints" / "step=000000003.ckpt.tmp").exists()


def test_a_file_is_whole_or_not_there(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as aside:
        aside.write_text(f"half {1 / 0}")
    assert path.read_text() == "old"
    with written_whole(path) as aside:
        aside.write_text("new")
    assert path.read_text() == "new"


def test_checkpoints_hold_plain_types_and_the_newest_few_are_kept(train: Train):
    folder = train(*QUICK, STEPS, "callbacks.checkpointing.every=2 steps")
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["step=000000006.ckpt", "step=000000008.ckpt"]
    saved = torch.load(folder / "checkpoints" / names[-1], weights_only=True)
    assert saved["global_step"] == 8


def test_the_exported_backbone_is_the_trained_one(train: Train):
    from unmask.backbone import Backbone

    folder = train(*QUICK, STEPS)
    exported = load_file(folder / "backbone" / "model.safetensors")
    saved = torch.load(newest_checkpoint(folder), weights_only=True)["state_dict"]
    for name, value in exported.items():
        assert torch.equal(value, saved[f"objective.backbone.{name}"])
    backbone = Backbone.load(folder)
    assert sum(p.numel() for p in backbone.parameters()) == sum(v.numel() for v in exported.values())


def test_a_longer_training_can_be_resumed_from_a_finished_one(train: Train, capsys: pytest.CaptureFixture[str]):
    folder = train(*QUICK, STEPS)
    with pytest.raises(SystemExit):
        train(f"resume={folder}")
    assert "it is done" in capsys.readouterr().err
    train(f"resume={folder}", "trainer.max_steps=12")
    assert newest_checkpoint(folder).name == "step=000000012.ckpt"
    rows = (folder / "config.yaml").read_text()
    assert "max_steps: 12" in rows


@pytest.mark.parametrize(("added", "what"), [(8, "has "), (0, "is read otherwise")])
def test_a_corpus_that_changed_under_a_run_is_not_gone_on_with(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], added: int, what: str
):
    root = tmp_path / "texts"
    root.mkdir()
    words = ["a word", "another one", "of which", "there are", "some more", "here"]
    for number in range(20):
        (root / f"{number:02}.txt").write_text(" ".join(words[(number + i) % 6] for i in range(60)))
    folder = train(
        *QUICK, STEPS, "modality=text", "data=text", f"data.root={root}", "data.block_size=16", "data.vocab_size=270",
        f"paths.cache={tmp_path / 'cache'}",
    )  # fmt: skip
    before = newest_checkpoint(folder).read_bytes()
    for number in range(20, 20 + added):
        (root / f"{number:02}.txt").write_text("something else " * 30)
    if not added:
        kept = json.loads((folder / "data.json").read_text())
        (folder / "data.json").write_text(json.dumps(kept | {"preprocessing": "another"}))
    with pytest.raises(SystemExit) as exit_:
        train(f"resume={folder}", "trainer.max_steps=12")
    error = capsys.readouterr().err.strip()
    assert exit_.value.code == 2
    assert f"data=text {what}" in error
    assert len(error.splitlines()) == 1
    assert newest_checkpoint(folder).read_bytes() == before
