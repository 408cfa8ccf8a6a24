"""A trained run looks at files of one's own, and fills gaps in recordings."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as PILImage

from unmask.data.audio import read_audio
from unmask.errors import BrokenSample, ConfigError
from unmask.modality.audio import HOP, RATE, WINDOW, Audio, fbank
from unmask.modality.gap import Gap
from unmask.reconstruct import main

from .conftest import QUICK
from .test_product import clips, texts
from .test_resume import Train


def tones(seconds: float) -> torch.Tensor:
    """Two tones that rise and fall in loudness."""
    time = torch.arange(round(seconds * RATE)) / RATE
    return (torch.sin(2 * math.pi * 440 * time) + torch.sin(2 * math.pi * 1700 * time)) * (
        0.3 + 0.1 * torch.sin(3 * time)
    )


@pytest.fixture
def audio_run(train: Train, tmp_path: Path) -> Path:
    return train(
        *QUICK, "modality=audio", "data=audio", f"data.root={clips(tmp_path / 'clips')}", "data.crop_seconds=0.64",
        "data.mean=[-5]", "data.std=[4]", "trainer.max_steps=3",
    )  # fmt: skip


def test_pictures_and_sounds_of_ones_own_files(audio_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    soundfile.write(tmp_path / "mine.flac", tones(1.0).numpy(), RATE)
    capsys.readouterr()
    main([str(audio_run), str(tmp_path / "mine.flac"), "mask.ratio=0.5", f"out={tmp_path / 'shown'}"])
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == ["mine-picture.png", "mine-input.wav", "mine-reconstruction.wav"]
    assert PILImage.open(written[0]).size[1] > 100
    assert soundfile.info(written[1]).duration > 0.6


@pytest.mark.parametrize("modality", ["image", "speech", "text"])
def test_other_modalities_draw(train: Train, tmp_path: Path, modality: str, capsys: pytest.CaptureFixture[str]):
    words = {
        "image": (),
        "speech": ("data=audio", f"data.root={tmp_path / 'clips'}", "data.crop_seconds=1"),
        "text": ("data=text", f"data.root={texts(tmp_path / 'texts')}", "data.block_size=16",
                 "data.tokenizer.vocab_size=300", f"paths.cache={tmp_path / 'cache'}"),
    }[modality]  # fmt: skip
    if modality == "speech":
        clips(tmp_path / "clips")
    run = train(*QUICK, *words, f"modality={modality}", "trainer.max_steps=3")
    file = tmp_path / {"image": "mine.png", "speech": "mine.wav", "text": "mine.txt"}[modality]
    if modality == "image":
        PILImage.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 30)).save(file)
    elif modality == "speech":
        soundfile.write(file, tones(1.0).numpy(), RATE)
    else:
        file.write_text("the wave of the tree, and of the sea")
    capsys.readouterr()
    main([str(run), str(file)])
    more = {"image": [], "speech": ["mine-input.wav", "mine-reconstruction.wav"], "text": ["mine-guesses.txt"]}[
        modality
    ]
    names = ["mine-picture.png", *more]
    assert capsys.readouterr().out.splitlines() == [str(run / "reconstructions" / name) for name in names]
    if modality == "text":
        said = (run / "reconstructions" / "mine-guesses.txt").read_text()
        assert said.startswith("text 1: ")
        assert said.count("%") == 3 * int(re.match(r"text 1: (\d+) of", said)[1])


def test_a_gap_is_filled_and_nothing_else_is_touched(
    audio_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    wave = tones(3.0)
    soundfile.write(tmp_path / "call.wav", wave.numpy(), RATE, "FLOAT")
    capsys.readouterr()
    main([str(audio_run), str(tmp_path / "call.wav"), "hide=1.2s-1.35s"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["model", "straight", "silence"]
    repaired = read_audio(lines[-1])
    fade = RATE // 200
    first, last = round(1.2 * RATE) - fade, round(1.35 * RATE) + fade
    changed = (repaired - wave).abs() > 1e-3
    assert changed[first + fade : last - fade].float().mean() > 0.5
    assert not changed[:first].any()
    assert not changed[last:].any()
    assert repaired[first + fade : last - fade].abs().max() > 0.01


@pytest.mark.parametrize("normalized", [True, False])
def test_what_was_in_the_gap_does_not_matter_and_the_truth_has_no_distance(normalized: bool):
    audio, wave = Audio(32, 0.64, 16, [-5.0], [4.0]), tones(2.0)
    other = wave.clone()
    other[16_000:18_000] = torch.randn(2000)
    gap, same = Gap(audio, wave, 1.0, 1.125), Gap(audio, other, 1.0, 1.125)
    # The loudness of the whole is known: the mean that is taken off may differ, and nothing else.
    assert torch.allclose(gap.batch.inputs, same.batch.inputs, atol=0.3)
    begin = gap._begin
    truth = fbank(wave[begin : begin + 63 * HOP + WINDOW] - wave.mean())[None]
    hidden = audio.spectrogram(gap.mask.is_hidden(32)[..., None].expand(-1, -1, 256).float())[0, :, 0] > 0
    frames = torch.arange(64) * HOP + begin
    assert torch.equal(hidden.view(4, 16).any(1), ((frames < 18_000) & (frames + WINDOW > 16_000)).view(4, 16).any(1))
    patches = (truth - audio.mean) / (2 * audio.std)
    prediction = audio.patches(type(gap.batch)(truth, gap.batch.positions))[:, gap.mask.hidden[0]]
    assert patches.shape == (1, 64, 128)
    if not normalized:
        assert gap.distances(prediction, normalized=False)["model"] < 1e-3
    assert gap.fill(prediction, normalized).isfinite().all()


def test_mistakes_get_a_sentence(audio_run: Path, tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", tones(1.0).numpy(), RATE)
    (tmp_path / "b.wav").write_text("no sound")
    for words, reason in (
        (["hide=2-1"], "no stretch of time"),
        (["hide=0.5s-3s"], "ends after the recording, which lasts 1.00 s"),
        (["hide=0s-0.9s"], "hides all of the 0.66 s"),
        (["maks.ratio=3"], "only seed, mask.ratio can be changed"),
        (["mask.ratio=[["], "is no value"),
        (["mask.ratio=1"], "strictly between 0 and 1"),
    ):
        with pytest.raises(ConfigError, match=reason):
            main([str(audio_run), str(tmp_path / "a.wav"), *words])
    for file, reason in (("b.wav", "not audio"), ("c.wav", "No such file")):
        with pytest.raises(BrokenSample, match=reason):
            main([str(audio_run), str(tmp_path / file)])
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        main([str(tmp_path), str(tmp_path / "a.wav")])
    with pytest.raises(ConfigError, match="at least one file"):
        main([str(audio_run)])


def test_what_fills_a_short_clip_up_is_no_sound():
    audio, wave = Audio(32, 0.64, 16, [-5.0], [4.0]), tones(0.4)
    gap = Gap(audio, wave, 0.25, 0.35)
    energies = fbank(wave - wave.mean())
    bridged = gap._bridged()[0, : len(energies)]
    assert (bridged.mean(1) < energies.mean(1).max() + 1).all()
    with pytest.raises(ConfigError, match="hides all"):
        Gap(audio, wave, 0.0, 0.4)
