"""What a user gets: the run folder, the loggers, the pictures, the audit, sweeps."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image as PILImage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tests.conftest import QUICK, ROOT
from unmask.backbone import Backbone
from unmask.data.digits import Digits
from unmask.schema import Batch
from unmask.task.probe import effective_rank, knn_accuracy, linear_accuracy

COLUMNS = {
    "step", "loss", "learning_rate", "grad_norm", "epoch", "samples_per_second", "visible_tokens_per_second",
    "step_seconds", "data_wait_share", "mfu", "teraflop", "memory_gb", "hidden_fraction_min", "hidden_fraction_mean",
    "hidden_fraction_max", "target_std", "prediction_std", "effective_rank", "knn_accuracy", "linear_accuracy",
}  # fmt: skip
NUMBERS = ("deviation", "size", "spread", "between_samples", "between_tokens", "rank")
COLUMNS |= {f"collapse/{view}_{name}" for view in ("local", "student") for name in NUMBERS} | {"collapse/severity"}


@pytest.fixture
def smoke(train, capsys) -> tuple[Path, str]:
    folder = train("debug=smoke", "callbacks.pictures.every=5 steps")
    return folder, capsys.readouterr().out


def test_a_run_folder_holds_everything(smoke: tuple[Path, str]):
    folder, out = smoke
    for name in (
        "config.yaml", "environment.json", "metrics.csv", "tensorboard", "probes.json", "backbone/config.json",
        "backbone/model.safetensors", "pictures/step=000000005.png", "pictures/step=000000010.png",
        "checkpoints/step=000000010.ckpt",
    ):  # fmt: skip
        assert (folder / name).exists(), name
    assert f"run:     {folder}" in out
    assert out.strip().splitlines()[-1].startswith("next:")
    assert "random encoder" in out
    assert "raw input" in out


def test_every_metric_is_written(smoke: tuple[Path, str]):
    rows = list(csv.DictReader((smoke[0] / "metrics.csv").open()))
    assert set(rows[0]) == COLUMNS
    steps = [row for row in rows if row["loss"]]
    assert [int(row["step"]) for row in steps] == list(range(1, 11))
    for row in steps:
        assert float(row["hidden_fraction_min"]) == float(row["hidden_fraction_max"]) == 0.75
        assert float(row["grad_norm"]) > 0
        assert 0 < float(row["mfu"]) < 1.5
        assert 0 <= float(row["data_wait_share"]) < 1
    assert float(steps[0]["teraflop"]) > 0
    assert float(steps[9]["teraflop"]) == pytest.approx(10 * float(steps[0]["teraflop"]))
    assert float(steps[0]["learning_rate"]) == 0  # warm-up starts at zero
    assert [row["knn_accuracy"] != "" for row in rows].count(True) >= 2
    events = EventAccumulator(str(smoke[0] / "tensorboard"))
    events.Reload()
    assert COLUMNS - {"step"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["reconstruction"]


def test_the_config_of_a_run_is_resolved_and_says_what_ran(smoke: tuple[Path, str]):
    cfg = OmegaConf.load(smoke[0] / "config.yaml")
    assert "${" not in (smoke[0] / "config.yaml").read_text()
    assert cfg.modality.image_size == 8
    assert cfg.trainer.max_steps == 10
    (environment,) = json.loads((smoke[0] / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]


def test_a_picture_shows_what_was_visible(train):
    folder = train("debug=smoke", "objective.normalize=false", "callbacks.probes=null", "callbacks.pictures.count=3")
    sheet = np.asarray(PILImage.open(folder / "pictures" / "step=000000010.png"))
    assert sheet.shape[2] == 3
    strip, caption = sheet.shape[0] // 3, 22
    rows = [sheet[i * strip + caption : i * strip + caption + 96, :96, 0].astype(int) for i in range(3)]
    given, seen, filled = (row.reshape(4, 24, 4, 24).swapaxes(1, 2) for row in rows)
    same = (given == seen).all((2, 3))
    grey = (seen == round(0.305 * 255)).all((2, 3))
    assert grey.sum() == 12  # a patch that is hidden is grey, all others are the input's
    assert (same | grey).all()
    assert (given == filled).all((2, 3))[~grey].all()


def test_the_exported_features_are_those_that_were_judged(smoke: tuple[Path, str]):
    backbone = Backbone.load(smoke[0] / "backbone")
    images = Digits("test").images[:5]
    features = backbone.features(Batch(images, torch.arange(5)))
    assert features.shape == (5, 64)
    again = Backbone.load(smoke[0]).features(Batch(images, torch.arange(5)))
    assert torch.equal(features, again)


def test_tensorboard_compares_runs_by_what_was_varied_and_what_came_out(train):
    folder = train("debug=smoke", "mask_ratio=50", "optimizer.eps=1e-7")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    plugin = {tag: HParamsPluginData.FromString(data) for tag, data in events.PluginTagToContent("hparams").items()}
    keys = plugin["_hparams_/session_start_info"].session_start_info.hparams
    assert keys["mask.ratio"].number_value == 0.5
    assert keys["optimizer.eps"].number_value == 1e-7
    assert keys["objective.name"].string_value == "mae"
    assert "optimizer.betas" not in keys
    compared = {info.name.tag for info in plugin["_hparams_/experiment"].experiment.metric_infos}
    assert {"loss", "linear_accuracy"} <= compared
    last = json.loads((folder / "probes.json").read_text())["pretrained"]["linear_accuracy"]
    assert events.Scalars("linear_accuracy")[-1].value == pytest.approx(last)


def test_of_a_resumed_run_tensorboard_compares_the_last_end(train):
    folder = train(*(word for word in QUICK if word != "logger=csv"), "trainer.max_steps=3")
    train(f"resume={folder}", "trainer.max_steps=5")
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    start = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    assert start.session_start_info.hparams["trainer.max_steps"].number_value == 5
    assert events.Scalars("loss")[-1].step == 5


def test_secrets_of_the_environment_enter_no_file(train, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_TOKEN", "hush-hush-hush")
    folder = train(*QUICK, "trainer.max_steps=3", "+note=${oc.env:MY_TOKEN}", "+other=x-hush-hush-hush-x")
    for path in folder.rglob("*"):
        assert not path.is_file() or b"hush-hush" not in path.read_bytes(), path
    assert "${oc.env:MY_TOKEN}" in (folder / "config.yaml").read_text()


def test_wandb_writes_an_offline_run_without_a_key(tmp_path: Path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    quick = [word for word in QUICK if word not in ("callbacks.pictures=null", "logger=csv")]
    result = subprocess.run(
        [sys.executable, ROOT / "train.py", *quick, "logger=wandb", "trainer.max_steps=4", f"run_dir={tmp_path}/run"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    runs = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(runs) == 1
    assert list(runs[0].rglob("*.png"))
    assert "wandb sync" in result.stdout
    records = wandb_records(*runs[0].glob("run-*.wandb"))
    (began,) = records["run"]
    assert (began["job_type"], began["run_id"]) == ("pretrain", (tmp_path / "run" / "wandb_id").read_text())
    assert records["config"][0]["update"]["seed"] == 0
    assert {"glob_name": "*", "step_metric": "trainer/global_step"}.items() <= records["metric"][1].items()
    items = [row["item"] for row in records["history"]]
    losses = {item["trainer/global_step"]: item["loss"] for item in items if "loss" in item}
    rows = csv.DictReader((tmp_path / "run" / "metrics.csv").open())
    assert losses == pytest.approx({int(row["step"]): float(row["loss"]) for row in rows if row["loss"]})


def wandb_records(log: Path) -> dict[str, list[dict]]:
    """What an offline run of W&B has written, by kind; its own reader of that format is `wandb leet inspect`."""
    wandb = Path(sys.executable).with_name("wandb")
    said = subprocess.run([wandb, "leet", "inspect", "--json", log], capture_output=True, check=True)
    found: dict[str, list[dict]] = {}
    for record in map(json.loads, said.stdout.splitlines()):
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


def test_each_arm_of_a_sweep_is_a_wandb_run_of_its_own(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    quick = [word for word in QUICK if word != "logger=csv"]
    train("-m", "run_dir=null", *quick, "trainer.max_steps=3", "logger=wandb", "seed=0,1")
    runs = sorted(tmp_path.rglob("run-*.wandb"))
    assert len({path.name for path in runs}) == 2
    assert len({path.parents[2] for path in runs}) == 2


def test_what_an_agent_of_wandb_starts_is_the_run_that_it_names(tmp_path: Path):
    """Its command line is made by W&B's own code, as an agent would, for each end of every range."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
    from wandb.sdk.lib import config_util

    sweep = yaml.safe_load((ROOT / "scripts" / "wandb_sweep.yaml").read_text())
    assert (ROOT / sweep["program"]).is_file()
    ends = {
        key: (told["values"][0], told["values"][-1]) if "values" in told else (told["min"], told["max"])
        for key, told in sweep["parameters"].items()
    }
    for end in (0, 1):
        chosen = {key: {"value": values[end]} for key, values in ends.items()}
        told = create_sweep_command_args({"args": chosen})
        told |= {"env": ["/usr/bin/env"], "interpreter": [sys.executable], "program": [str(ROOT / sweep["program"])]}
        words = [w for part in create_sweep_command(sweep["command"]) for w in told.get(part[2:-1], [part])]
        config_util.save_config_file_from_dict(str(tmp_path / f"{end}.yaml"), chosen)
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "WANDB_SWEEP_ID": "abcd1234",
            "WANDB_RUN_ID": f"run{end}", "WANDB_SWEEP_PARAM_PATH": str(tmp_path / f"{end}.yaml"),
        }  # fmt: skip
        folder = tmp_path / f"run{end}"
        quick = [word for word in QUICK if word != "logger=csv"]
        words += [*quick, "trainer.max_steps=3", f"run_dir={folder}"]
        result = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        (began,) = wandb_records(*folder.glob("wandb/offline-run-*/run-*.wandb"))["run"]
        assert (began["run_id"], began["sweep_id"]) == (f"run{end}", "abcd1234")
        assert (folder / "wandb_id").read_text() == f"run{end}"
        config = OmegaConf.load(folder / "config.yaml")
        assert {key: OmegaConf.select(config, "objective.name" if key == "objective" else key) for key in ends} == {
            key: values[end] for key, values in ends.items()
        }


def test_scratch_is_a_wandb_run_beside_that_of_its_fine_tuning(train, finetune, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    quick = ["trainer.max_steps=2", "data.labels=20", "scheduler.warmup=0", "callbacks.metrics.every=1 steps"]
    folder = finetune(f"backbone={train(*QUICK, 'trainer.max_steps=3')}", *quick, "compare=scratch", "logger=wandb")
    for place in (folder, folder / "scratch"):
        records = wandb_records(*(place / "wandb").glob("offline-run-*/*.wandb"))
        assert {run["job_type"] for run in records["run"] if "job_type" in run} == {"finetune"}
        told = {key: value for row in records["history"] for key, value in row["item"].items()}
        scores = json.loads((place / "results.json").read_text())["scores"]
        assert told["test/accuracy"] == pytest.approx(scores["accuracy"])


def test_a_run_is_one_run_of_mlflow_also_after_a_resume(train, tmp_path: Path):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    uri = f"sqlite:///{tmp_path}/database/mlflow.db"
    quick = [word for word in QUICK if word != "logger=csv"]
    folder = train(*quick, "trainer.max_steps=3", "logger=mlflow", f"logger.mlflow.tracking_uri={uri}")
    train(f"resume={folder}", "trainer.max_steps=5")
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("unmask").experiment_id])
    assert run.info.run_id == (folder / "mlflow_id").read_text()
    assert run.data.params["mask/ratio"] == "0.75"
    losses = {row.step: row.value for row in client.get_metric_history(run.info.run_id, "loss")}
    rows = csv.DictReader((folder / "metrics.csv").open())
    assert losses == pytest.approx({int(row["step"]): float(row["loss"]) for row in rows if row["loss"]})


def test_the_audit_draws_and_judges_ten_thousand_masks(train, capsys: pytest.CaptureFixture[str]):
    folder = train("mask_audit=true", "mask=inverse_block")
    out = capsys.readouterr().out
    assert "no bias found" in out
    assert "0.7500 / 0.7500 / 0.7500" in out
    shade = np.asarray(PILImage.open(folder / "pictures" / "coverage.png"))
    assert shade.shape == (96, 96)
    assert 150 < shade.mean() < 230


def test_the_audit_draws_along_one_axis(train, capsys: pytest.CaptureFixture[str]):
    folder = train("mask_audit=true", "modality=speech")
    assert "masks of SpanMask on 49 tokens" in capsys.readouterr().out
    assert np.asarray(PILImage.open(folder / "pictures" / "coverage.png")).shape == (24, 49 * 24)


def test_a_sweep_gives_each_arm_a_folder(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    train("-m", "run_dir=null", *QUICK, "trainer.max_steps=3", "mask_ratio=15,75", "seed=0,1")
    folders = sorted(path.parent for path in tmp_path.rglob("config.yaml"))
    settings = [OmegaConf.load(folder / "config.yaml") for folder in folders]
    assert [(s.mask.ratio, s.seed) for s in settings] == [(0.15, 0), (0.15, 1), (0.75, 0), (0.75, 1)]
    assert all((folder / "backbone" / "model.safetensors").exists() for folder in folders)


FINETUNING = ("ft_", "linprobe_")  # see test_recipes.py
RECIPES = [path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")]
EXPERIMENTS = sorted(name for name in RECIPES if not name.startswith(FINETUNING))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name: str):
    program = ["finetune.py", "backbone=scratch"] if name.startswith("ft_") else ["train.py"]
    words = [*program, f"experiment={name}", "++data.root=here", "--cfg", "job", "--resolve"]
    result = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    cfg = OmegaConf.create(result.stdout)
    for key, published in (cfg.paper.settings if cfg.get("paper") else {}).items():
        if key != "precision.name":  # the one deviation, printed at the start of each such run
            assert OmegaConf.select(cfg, key) == published, key


def test_papers_settings_are_those_of_the_recipe():
    cfg = OmegaConf.load(ROOT / "conf" / "experiment" / "mae_image_large.yaml")
    assert cfg.optimizer.base_lr * cfg.data.global_batch_size / 256 == pytest.approx(2.4e-3)
    assert cfg.paper.learning_rate == 2.4e-3


def test_deviations_from_the_paper_are_printed(train, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        PILImage.new("RGB", (40, 30), (60 * i, 0, 0)).save(folder / f"{i}.jpg")
    train(
        "experiment=mae_image_base", f"data.root={folder}", "trainer.max_steps=1", "scheduler.warmup=0",
        "data.global_batch_size=2", "data.micro_batch_size=1", "data.num_workers=0", "logger=csv", "model.width=16",
        "model.depth=1", "model.heads=2", "data.image_size=32", "callbacks.pictures=null", "callbacks.probes=null",
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "batch 2 = 1 device(s) x 1 samples x 2 accumulated; learning rate 1.17e-06" in out
    assert "paper: arXiv 2111.06377, table 8; batch 4096, learning rate 0.0024" in out
    assert "differs from the paper: data.global_batch_size=2, published 4096" in out
    assert "differs from the paper: modality.image_size=32, published 224" in out


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "debug").glob("*.yaml")))
def test_every_debug_mode_runs(train, name: str):
    folder = train(
        f"debug={name}", "trainer.max_steps=12", "logger=csv", "callbacks.probes=null", "callbacks.pictures=null"
    )
    assert (folder / "backbone" / "model.safetensors").exists()


def test_probes_know_good_features_from_noise():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    good = np.eye(4)[labels] + 0.1 * rng.standard_normal((200, 4))
    noise = rng.standard_normal((200, 4))
    for judge in (knn_accuracy, linear_accuracy):
        assert judge(good[:100], labels[:100], good[100:], labels[100:]) > 0.95
        assert judge(noise[:100], labels[:100], noise[100:], labels[100:]) < 0.5


def test_effective_rank_counts_directions():
    rng = np.random.default_rng(0)
    line = rng.standard_normal((500, 1)) @ rng.standard_normal((1, 8))
    assert effective_rank(line) == pytest.approx(1, abs=0.01)
    assert effective_rank(rng.standard_normal((5000, 8))) == pytest.approx(8, abs=0.1)
