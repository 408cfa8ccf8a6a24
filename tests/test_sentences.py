"""task=text: against transformers' RobertaForSequenceClassification, padding, scores, runs of the program."""

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef
from transformers import RobertaConfig, RobertaForSequenceClassification

from tests.test_table import complaint, lines, write
from tests.test_text import (
    BLOCK,
    BOS,
    DEPTH,
    EOS,
    HEADS,
    MASK,
    PAD,
    ROBERTA,
    WIDTH,
    make_backbone,
    make_texts,
    randomise,
    trunk_pairs,
)
from unmask.nn.block import Style
from unmask.predict import main as predict
from unmask.task.base import Task
from unmask.task.text import Sentences
from unmask.training.finetune import FinetuneModule
from unmask.training.schedule import Linear

Run = Callable[..., Path]
LENGTHS = [24, 7, 24, 3, 15]
NUMBERS = [0.5, 1.0, 3.0, 4.5, 5.0]


def make_task(classes: int = 3, backbone=None, **options: object) -> Sentences:
    regression = not classes
    task = Sentences(
        backbone or make_backbone(), [f"c{i}" for i in range(classes)], regression=regression, dropout=0.0, **options
    )
    return randomise(task).eval()


def make_peer(outputs: int) -> RobertaForSequenceClassification:
    config = RobertaConfig(
        vocab_size=MASK + 1, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, max_position_embeddings=BLOCK + 2, layer_norm_eps=1e-5, pad_token_id=PAD,
        bos_token_id=BOS, eos_token_id=EOS, attn_implementation="eager", num_labels=outputs,
    )  # fmt: skip
    peer = randomise(RobertaForSequenceClassification(config), seed=2).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter *= 3  # large enough for <s> to depend on the words after it
    return peer


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
@pytest.mark.parametrize("classes", [3, 0], ids=["classes", "numbers"])
def test_logits_equal_robertas(classes: int, lengths: list[int] | None):
    task, peer = make_task(classes, pool="first"), make_peer(classes or 1)
    head = [(task.head[0], peer.classifier.dense), (task.head[3], peer.classifier.out_proj)]
    with torch.no_grad():
        copied = trunk_pairs(task.backbone, peer.roberta, lambda p: p.data)
        copied += [("", getattr(a, k), getattr(b, k)) for a, b in head for k in ("weight", "bias")]
        for _, mine, theirs in copied:
            mine.copy_(theirs)
        # Theirs adds the type of every token, which is always 0; in ours it is a part of the positions.
        task.backbone.modality.positions.weight += peer.roberta.embeddings.token_type_embeddings.weight[0]
    assert sum(mine.numel() for _, mine, _ in copied) == sum(p.numel() for p in task.parameters())
    batch = make_texts(5, lengths)
    real = torch.ones_like(batch.inputs) if lengths is None else task.backbone.modality.real(batch).long()
    with torch.no_grad():
        expected = peer(batch.inputs.masked_fill(real == 0, PAD), attention_mask=real).logits
        mine = task.logits(batch)
    assert expected.std(0).min() > 0.01
    torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("style", [ROBERTA, Style()], ids=["post", "pre"])
@pytest.mark.parametrize("pool", ["mean", "first"])
def test_a_padded_sentence_gives_what_it_gives_alone(pool: str, style: Style):
    task, batch = make_task(backbone=make_backbone(style), pool=pool), make_texts(5, LENGTHS)
    with torch.no_grad():
        together = task.logits(batch)
        alone = torch.cat([task.logits(make_texts(5, LENGTHS).rows(i, i + 1)) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", ["mean", "first"])
@pytest.mark.parametrize("style", [ROBERTA, Style()], ids=["post", "pre"])
def test_every_parameter_learns(pool: str, style: Style):
    task, batch = make_task(backbone=make_backbone(style), pool=pool), make_texts(5, LENGTHS)
    task.train()(type(batch)(**(vars(batch) | {"labels": torch.tensor([0, 1, 2, 1, 0])}))).loss.backward()
    still = [name for name, p in task.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())]
    assert not still


def test_numbers_are_learned_by_squared_error_over_their_deviation():
    given = Sentences.learn((), NUMBERS)
    assert given == {"classes": [], "center": np.mean(NUMBERS), "scale": np.std(NUMBERS)}
    task, batch = make_task(0, center=given["center"], scale=given["scale"]), make_texts(5, LENGTHS)
    labels = torch.tensor(NUMBERS)
    loss = task(type(batch)(**(vars(batch) | {"labels": labels}))).loss
    said = torch.tensor([record["prediction"] for record in task.predict(batch)])
    torch.testing.assert_close(loss.detach(), ((said - labels) ** 2).mean() / labels.var(correction=0))


def records(truth: list, said: list) -> list[dict]:
    return [{"label": a, "prediction": b} for a, b in zip(truth, said, strict=True)]


def test_scores_of_numbers_are_those_of_scipy():
    said = [0.9, 0.9, 2.0, 5.5, 5.0]
    scores = make_task(0).score(records(NUMBERS, said))
    assert scores["pearson"] == pytest.approx(pearsonr(NUMBERS, said).statistic)
    assert scores["spearman"] == pytest.approx(spearmanr(NUMBERS, said).statistic)
    assert scores["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(np.subtract(NUMBERS, said)))))
    assert make_task(0).score(records(NUMBERS, [1.0] * 5))["pearson"] == 0


def test_scores_of_two_classes_are_those_of_sklearn_with_the_last_as_the_positive():
    truth, said = list("0011101"), list("0111001")
    rows = [
        row | {"probabilities": [float(row["prediction"] == "0"), float(row["prediction"] == "1")]}
        for row in records(truth, said)
    ]
    task = Sentences(make_backbone(), ["0", "1"])
    scores = task.score(rows)
    assert scores["f1"] == f1_score([int(x) for x in truth], [int(x) for x in said])
    assert scores["matthews"] == pytest.approx(matthews_corrcoef(truth, said))
    assert scores["accuracy"] == pytest.approx(5 / 7)
    assert "f1" not in make_task(3).settings["classes"]


def test_the_metric_decides_and_errors_are_better_small():
    assert [make_task(2, metric=name).decides for name in (None, "f1", "matthews")] == ["accuracy", "f1", "matthews"]
    assert (make_task(0).decides, make_task(0).larger_is_better) == ("pearson", True)
    assert not make_task(0, metric="rmse").larger_is_better
    assert "Did you mean matthews? Choose one of accuracy" in complaint(make_task, 2, metric="mathews")
    assert "no such score of these classes" in complaint(make_task, 3, metric="f1")
    assert "no such score of numbers" in complaint(make_task, 0, metric="accuracy")


def test_labels_and_task_must_agree():
    backbone = make_backbone()
    assert "learns numbers, and these labels are classes, such as a." in complaint(
        Sentences, backbone, ["a"], regression=True
    )
    assert "Numbers want task.regression=true" in complaint(Sentences, backbone, [])
    assert "there is no such option. Did you mean first?" in complaint(Sentences, backbone, ["a", "b"], pool="firt")


def test_a_task_of_texts_is_loaded_as_it_was_saved(tmp_path: Path):
    task, batch = make_task(0, center=2.0, scale=3.0, metric="rmse"), make_texts(5, LENGTHS)
    task.save(tmp_path)
    again = Task.load(tmp_path)
    assert again.decides == "rmse"
    assert again.predict(batch) == task.predict(batch)


def test_the_rate_falls_in_a_straight_line():
    rate = Linear(peak=2.0, warmup=10, total=110)
    assert [rate(step) for step in (0, 5, 10, 60, 110)] == [0, 1.0, 2.0, 1.0, 0]
    assert Linear(2.0, 0, 4, min_lr=1.0)(2) == 1.5
    assert "the peak is never reached" in complaint(Linear, 1.0, 5, 5)


# The program

ANIMALS, TOOLS = ("cat", "dog", "horse", "cow"), ("saw", "hammer", "drill", "axe")
QUICK = (
    "task=text", "backbone=scratch", "modality=text", "data=table", "model.width=16", "model.depth=1",
    "model.heads=2", "data.global_batch_size=8", "data.num_workers=0", "data.vocab_size=320", "data.block_size=24",
    "trainer.max_steps=20", "callbacks.metrics.every=1 steps", "logger=csv", "precision=fp32",
)  # fmt: skip


def sentences(root: Path, count: int = 60) -> Path:
    """Sentences about animals and tools; the number counts the words."""
    rows = []
    for i in range(count):
        names = ANIMALS if i % 2 else TOOLS
        words = [names[i * k % 4] for k in range(1, 3 + i % 3)]
        text = f"{i} " + " and a ".join(words)
        rows.append({"text": text, "again": "a " + words[0], "label": "animal" if i % 2 else "tool", "n": len(words)})
    return write(root, train_jsonl=lines(*rows[10:]), test_jsonl=lines(*rows[:10]))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "cache"))
    return f"data.root={sentences(tmp_path / 'set')}"


def test_sentences_are_learned_and_a_file_is_predicted_line_by_line(finetune: Run, root: str, capsys):
    folder = finetune(*QUICK, root, "trainer.max_steps=60", "optimizer.lr=0.01")
    results = json.loads((folder / "results.json").read_text())
    assert list(results["scores"]) == ["accuracy", "macro_f1", "matthews", "f1"]
    assert results["scores"]["accuracy"] == 1
    assert [row["label"] for row in table(folder)] == ["tool", "animal"] * 5
    assert (folder / "confusion.png").is_file()
    said = folder / "said.txt"
    said.write_text("3 horse and a cow\n\n4 saw and a drill\n")
    capsys.readouterr()
    predict([str(folder), str(said)])
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["file"][-6:], row["prediction"]) for row in shown] == [("line 1", "animal"), ("line 3", "tool")]


def test_a_line_with_a_tab_is_predicted_as_the_pair_it_was_in_the_table(finetune: Run, root: str, capsys):
    folder = finetune(*QUICK, root, "data.pair=again")
    first = json.loads((Path(root.partition("=")[2]) / "test.jsonl").read_text().splitlines()[0])
    said = folder / "said.txt"
    said.write_text(f"{first['text']}\t{first['again']}\n")
    capsys.readouterr()
    predict([str(folder), str(said)])
    shown = json.loads(capsys.readouterr().out)
    [saved, *_] = map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
    assert shown["probabilities"] == pytest.approx(saved["probabilities"], abs=1e-6)


def test_numbers_are_predicted_and_correlated(finetune: Run, root: str):
    folder = finetune(*QUICK, root, "data.label=n", "task.regression=true", "trainer.max_steps=60", "optimizer.lr=0.01")
    results = json.loads((folder / "results.json").read_text())
    assert (results["decides"], list(results["scores"])) == ("pearson", ["pearson", "spearman", "rmse"])
    assert results["scores"]["pearson"] > 0.5
    assert abs(np.mean([float(row["prediction"]) for row in table(folder)]) - 3) < 1
    assert not (folder / "confusion.png").exists()


@pytest.mark.parametrize(("budget", "learned", "held"), [("10/class", 18, 2), ("20", 18, 2), ("50 %", 22, 3)])
def test_a_budget_of_labels_is_what_is_learned_from(finetune: Run, root: str, capsys, budget, learned, held):
    finetune(*QUICK, root, f"data.labels='{budget}'", "trainer.max_steps=2", "scheduler.warmup=1 steps")
    assert f"{learned} labelled samples, {held} more held out" in capsys.readouterr().out


def test_a_run_that_was_stopped_predicts_what_an_uninterrupted_one_does(finetune: Run, root: str):
    words = (*QUICK, root, "compare=null", "callbacks.evaluation.every=3 steps")
    whole = finetune(*words, folder="whole")
    original, seen = FinetuneModule.training_step, []

    def step(module, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(module, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FinetuneModule, "training_step", step)
        with pytest.raises(SystemExit) as stopped:
            finetune(*words, folder="stopped")
    assert (stopped.value.code, len(seen)) == (128 + signal.SIGTERM, 7)
    folder = whole.parent / "stopped"
    assert not (folder / "predictions.csv").exists()
    finetune(f"resume={folder}")
    assert (folder / "predictions.jsonl").read_text() == (whole / "predictions.jsonl").read_text()
    assert (folder / "results.json").read_text() == (whole / "results.json").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.text=sentence"], "train.jsonl has no column sentence (data.text), but text, again, label, n."),
        (["data.label=text"], "which is none of train's"),
        (["task.regression=true"], "has the label tool, which is no number (task.regression=true)"),
        (["data.classes=[tool]"], "data.classes=['tool'] is not possible. It must be a list of two or more"),
        (["task.metric=pearson"], "there is no such score of these classes. Choose one of accuracy"),
        (["data.block_size=2"], "has no room: 2 tokens are special"),
        (["task.pool=class"], "this backbone has none"),
    ],
)
def test_a_mistake_is_one_sentence_before_training(finetune: Run, root: str, capsys, words, said):
    with pytest.raises(SystemExit) as error:
        finetune(*QUICK, root, *words)
    assert error.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert said in told[0]


def test_one_class_only_is_said(finetune: Run, tmp_path: Path, root: str, capsys):
    text = lines(*({"text": f"s {i}", "label": "same"} for i in range(30)))
    with pytest.raises(SystemExit):
        finetune(*QUICK, f"data.root={write(tmp_path / 'one', train_jsonl=text, test_jsonl=text)}")
    assert "leaves 27 sample(s) with one label, same." in capsys.readouterr().err


def test_pretraining_on_a_table_hands_on_its_columns(train: Run, finetune: Run, root: str, capsys):
    few = [word for word in QUICK if not word.startswith(("task=", "backbone="))]
    run = train(*few, root, "data.pair=again", "objective=mlm", "callbacks.probes=null", "callbacks.pictures=null")
    folder = finetune(f"backbone={run}", "task=text", "data.num_workers=0", "trainer.max_steps=2", "logger=csv",
                      "scheduler.warmup=0", folder="tuned")  # fmt: skip
    config = (folder / "config.yaml").read_text()
    assert "pair: again" in config
    assert len(table(folder)) == 10
