"""CTC fine-tuning: equal to transformers' Data2VecAudioForCTC, padding changes nothing, errors are counted right."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from transformers import Data2VecAudioConfig, Data2VecAudioForCTC

from tests.conftest import QUICK
from tests.test_speech import CHANNELS, DEPTH, GROUPS, HEADS, WIDTH, alone, make_backbone, make_batch, pairs, randomise
from unmask.decoding.ngram import estimate, write_arpa
from unmask.errors import ConfigError
from unmask.masking.span import SpanMask
from unmask.modality.image import Image
from unmask.nn.encoder import Encoder
from unmask.schema import Batch
from unmask.task.ctc import CTC

CHARACTERS = " abc"


def make_task(**settings) -> CTC:
    return CTC(make_backbone(), CHARACTERS, **settings)


def make_pair() -> tuple[CTC, Data2VecAudioForCTC]:
    """Ours and theirs with the same random weights."""
    config = Data2VecAudioConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
        conv_dim=(CHANNELS,) * 7, num_conv_pos_embedding_groups=GROUPS, hidden_dropout=0.0, attention_dropout=0.0,
        feat_proj_dropout=0.0, final_dropout=0.0, layerdrop=0.0, layer_norm_eps=1e-5, vocab_size=5, pad_token_id=0,
        ctc_loss_reduction="sum", attn_implementation="eager",
    )  # fmt: skip
    peer, ours = Data2VecAudioForCTC(config).eval(), make_task().eval()
    randomise(peer)
    with torch.no_grad():
        for _, mine, theirs in pairs(
            ours.backbone, nn.Parameter(torch.zeros(1, 1, WIDTH)), peer.data2vec_audio, lambda p: p.data
        ):
            mine.copy_(theirs)
        ours.head.load_state_dict(peer.lm_head.state_dict())
    return ours, peer


def with_labels(batch: Batch, *texts: str, task: CTC) -> Batch:

    ids = [task.encode_label(text) for text in texts]
    lengths = torch.tensor([len(one) for one in ids])
    return replace(batch, labels=nn.utils.rnn.pad_sequence(ids, batch_first=True), label_lengths=lengths)


def test_logits_and_loss_equal_transformers():
    ours, peer = make_pair()
    batch = make_batch(ours.backbone.modality, 11_111, 11_111)
    labels = torch.tensor([[2, 3, 4, 1, 2], [3, 3, 1, -100, -100]])
    theirs = peer(batch.inputs, labels=labels)
    log_probs, lengths = ours.log_probs(batch)
    assert lengths.tolist() == [34, 34]
    torch.testing.assert_close(log_probs, theirs.logits.log_softmax(-1), rtol=1e-5, atol=1e-5)
    output = ours(with_labels(batch, "abc a", "bb ", task=ours))  # a trailing space is dropped by normalising
    labels[1, 2] = -100
    expected = peer(batch.inputs, labels=labels).loss
    torch.testing.assert_close(output.loss * 2, expected, rtol=1e-5, atol=1e-5)


def test_loss_and_text_of_a_padded_batch_are_those_of_each_clip_alone():
    task = make_task().eval()
    randomise(task)
    batch = with_labels(make_batch(task.backbone.modality, 9000, 16_000, 4000), "ab", "c a b", "a", task=task)
    together = task(batch).loss * 3
    parts, texts = [], []
    for row, text in enumerate(("ab", "c a b", "a")):
        one = with_labels(alone(batch, row), text, task=task)
        parts.append(task(one).loss)
        texts += task.predict(one)
    torch.testing.assert_close(together, torch.stack(parts).sum(), rtol=1e-5, atol=1e-4)
    assert task.predict(batch) == texts


def test_a_clip_shorter_than_its_transcript_does_not_count():
    task = make_task().eval()
    batch = make_batch(task.backbone.modality, 1000, 16_000)
    loss = task(with_labels(batch, "abcabcabc", "a", task=task)).loss
    alone_loss = task(with_labels(alone(batch, 1), "a", task=task)).loss
    assert loss.isfinite()
    torch.testing.assert_close(loss * 2, alone_loss, rtol=1e-4, atol=1e-4)


def test_the_convolutions_do_not_learn_and_all_else_does():
    task = make_task(channel_ratio=0.5, channel_length=4).train()
    randomise(task)
    batch = with_labels(make_batch(task.backbone.modality, 16_000, 16_000), "ab c", "ba", task=task)
    mask = SpanMask(0.4, 3).draw(0, batch.positions, (49,))
    task(batch, mask).loss.backward()
    for name, parameter in task.named_parameters():
        learns = not name.startswith("backbone.modality.conv.") and name != "backbone.class_token"
        assert (parameter.grad is not None and bool(parameter.grad.any())) == learns, name


def test_spans_of_channels_are_zero_in_all_frames_of_a_clip():
    task = make_task(channel_ratio=0.5, channel_length=4).train()
    torch.manual_seed(0)
    hidden = task._channels_hidden(torch.ones(64, 7, WIDTH))
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    runs = (hidden[:, 0] == 0).float()
    assert ((runs.sum(1) >= 4) & (runs.sum(1) <= 16)).all()  # four spans of four, which may overlap
    assert 0.25 < runs.mean() < 0.5
    assert not torch.equal(runs[0], runs[1])
    assert torch.equal(task.eval()._channels_hidden(torch.ones(2, 7, WIDTH)), torch.ones(2, 7, WIDTH))


def test_error_rates_weigh_clips_by_their_length():
    task = make_task()
    records = [
        task.compared({"index": 0, "label": "a b c", "prediction": "a c"}),
        task.compared({"index": 1, "label": "a", "prediction": "a"}),
        task.compared({"index": 2, "label": "b", "prediction": ""}),
    ]
    assert records[0]["word_errors"] == 1
    assert task.score(records) == {"wer": 2 / 5, "cer": 3 / 7}


def test_a_language_model_changes_what_is_written(tmp_path: Path):
    path = tmp_path / "words.arpa"
    write_arpa(estimate(["ab ab ab", "ab ab"], order=2), path)
    plain, helped = make_task(), make_task(language_model=str(path), alpha=3.0, beam=20)
    frames = torch.full((1, 5, 5), -9.0)
    for time, character in enumerate((2, 0, 3, 0, 0)):  # a, b; c is nearly as likely as b
        frames[0, time, character] = -0.1
    frames[0, 2, 4] = -0.05
    for task in (plain, helped):
        task.log_probs = lambda batch: (frames.log_softmax(-1), torch.tensor([5]))
    assert plain.predict(None)[0]["prediction"] == "ac"
    assert helped.predict(None)[0]["prediction"] == "ab"


def test_other_modalities_are_refused():
    from unmask.backbone import Backbone

    image = Backbone(Image(16, 16, 4, 1, [0.5], [0.5]), Encoder(16, 1, 2))
    for refused in (lambda: CTC(image, CHARACTERS), lambda: CTC.fits(image)):  # the latter before data is made
        with pytest.raises(ConfigError, match="task=ctc writes down speech, and this backbone is of modality=image"):
            refused()


Run = Callable[..., Path]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Notes and what they are called."""
    notes = {"do": 300, "re": 600, "mi": 1200}
    for split, count in (("train", 24), ("val", 6)):
        for i in range(count):
            names = [list(notes)[(i + j) % 3] for j in range(1 + i % 3)]
            time = np.arange(4800) / 16_000
            wave = np.concatenate([0.5 * np.sin(2 * np.pi * notes[name] * time) for name in names])
            path = tmp_path / "clips" / split / f"{i:02d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, wave + 0.01 * np.random.default_rng(i).standard_normal(len(wave)), 16_000)
            path.with_suffix(".txt").write_text(" ".join(names))
    return tmp_path / "clips"


def test_the_program_writes_down_what_it_hears(train: Run, finetune: Run, clips: Path):
    pretrained = train(
        *QUICK, "modality=speech", "data=audio", f"data.root={clips}", "data.crop_seconds=0.5", "trainer.max_steps=3"
    )
    words = (
        f"backbone={pretrained}", "task=ctc", "data.labels=8s", "trainer.max_steps=4", "scheduler.warmup=1 steps",
        "data.num_workers=0", "logger=csv", "precision=fp32", "task.channel_length=4",
    )  # fmt: skip
    run = finetune(*words)
    settings = json.loads((run / "model" / "config.json").read_text())
    assert settings["backbone"]["modality"]["crop_seconds"] == pytest.approx(0.9)  # no clip is cut
    assert settings["task"]["characters"] == " deimor"
    scores = json.loads((run / "results.json").read_text())["scores"]
    assert set(scores) == {"wer", "cer"}
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines][:3] == ["do", "re mi", "mi do re"]


def test_characters_that_training_never_saw_are_named_and_clips_without_a_transcript_are_refused(
    train: Run, finetune: Run, clips: Path, capsys
):
    pretrained = train(
        *QUICK, "modality=speech", "data=audio", f"data.root={clips}", "data.crop_seconds=0.5", "trainer.max_steps=3"
    )
    words = (
        f"backbone={pretrained}", "task=ctc", "trainer.max_steps=2", "scheduler.warmup=1 steps", "logger=csv",
        "data.num_workers=0", "task.channel_length=4",
    )  # fmt: skip
    (clips / "val" / "00.txt").write_text("do zu")
    finetune(*words)
    assert "note: test transcripts hold u z, which no training transcript does" in capsys.readouterr().out
    for path in (clips / "val").glob("*.txt"):
        path.unlink()
    with pytest.raises(SystemExit):
        finetune(*words, folder="again")
    assert "no clip has one" in capsys.readouterr().err
