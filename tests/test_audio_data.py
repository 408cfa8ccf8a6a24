import itertools
import math
import os
import pickle
import subprocess
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import fetch
from unmask.data import audio, espeak
from unmask.data.audio import RATE, AudioFolder, audio_length, read_audio
from unmask.data.espeak import SpokenSentences, SpokenWords, SynthesisedSpeech, Utterance
from unmask.data.sentences import SENTENCES
from unmask.errors import BrokenSample, ConfigError

SCRIPT = "fetch_asterisk_prompts.sh"


def tone(seconds: float = 0.5, rate: int = RATE, pitch: float = 440) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def write(path: Path, value: np.ndarray | None = None, rate: int = RATE, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone() if value is None else value, rate, **options)
    return path


def pitch(value: torch.Tensor) -> float:
    """The strongest frequency, in Hz."""
    return int(torch.fft.rfft(value).abs().argmax()) * RATE / len(value)


# read_audio


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_wav_subtype_comes_back_as_float32_between_minus_one_and_one(tmp_path, subtype):
    value = read_audio(write(tmp_path / "a.wav", subtype=subtype))
    assert (value.dtype, value.shape) == (torch.float32, (8000,))
    assert np.abs(value.numpy() - tone()).max() < (0.01 if subtype == "PCM_U8" else 1e-4)


FORMATS = {
    "a.flac": {"subtype": "PCM_24"},
    "b.ogg": {"subtype": "VORBIS"},
    "c.opus": {"format": "OGG", "subtype": "OPUS"},
    "d.mp3": {},
}


@pytest.mark.parametrize("name", FORMATS)
def test_compressed_formats_keep_length_pitch_and_loudness(tmp_path, name):
    value = read_audio(write(tmp_path / name, **FORMATS[name]))
    assert len(value) == 8000
    assert pitch(value) == 440
    assert value.square().mean().sqrt() == pytest.approx(0.5 / math.sqrt(2), rel=0.05)


def test_channels_are_averaged(tmp_path):
    left, right = tone(pitch=440), tone(pitch=1000) / 3
    value = read_audio(write(tmp_path / "a.wav", np.stack([left, right], 1), subtype="FLOAT"))
    assert np.allclose(value, (left + right) / 2, atol=1e-6)


# 22,257 and 16,000 have no common divisor: exact filters for them would take gigabytes.
@pytest.mark.parametrize("rate", [8000, 11025, 22050, 22257, 44100, 48000, 96000])
def test_another_rate_is_resampled_and_the_header_tells_the_length(tmp_path, rate):
    path = write(tmp_path / "a.wav", tone(0.51, rate), rate)
    value = read_audio(path)
    assert audio_length(path) == len(value) == math.ceil(round(0.51 * rate) * RATE / rate)
    middle = value[1000:-1000]
    expected = tone(1)[1000 : 1000 + len(middle)]
    assert np.abs(middle.numpy() - expected).max() < 0.01


def test_a_rate_may_be_asked_for(tmp_path):
    assert len(read_audio(write(tmp_path / "a.wav"), rate=8000)) == 4000


def test_overshoot_is_clipped(tmp_path):
    value = read_audio(write(tmp_path / "a.wav", 3 * tone(), subtype="FLOAT"))
    assert (value.min(), value.max()) == (-1, 1)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def damaged(path: Path, start: int, data: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[start : start + len(data)] = data
    path.write_bytes(whole)


NAN = np.where(np.arange(8000) == 4000, np.nan, tone())
BROKEN = {
    "empty.wav": (lambda p: p.touch(), "the file is empty"),
    "text.wav": (lambda p: p.write_text("This is no sound.\n" * 100), "not audio"),
    "text.mp3": (lambda p: p.write_text("This is no sound.\n" * 100), "not audio"),
    "no_samples.wav": (lambda p: write(p, tone(0)), "has 0 samples at 16000 Hz, fewer than 400"),
    "short.wav": (lambda p: write(p, tone()[:399]), "has 399 samples at 16000 Hz, fewer than 400"),
    "zeros.wav": (lambda p: write(p, np.zeros(8000)), "is silent: every sample has the same value"),
    "constant.wav": (lambda p: write(p, np.full(24000, 0.1), 48000), "is silent: every sample has the same value"),
    "opposite.wav": (lambda p: write(p, np.stack([tone(), -tone()], 1), subtype="FLOAT"), "is silent"),
    "nan.wav": (lambda p: write(p, NAN, subtype="FLOAT"), "holds samples that are not finite"),
    "loud.wav": (lambda p: write(p, 30000 * tone(), subtype="FLOAT"), "its loudest sample is 1.5e+04, and 1 is full"),
    "header.wav": (lambda p: damaged(write(p), 8, b"\xff" * 12), "not audio"),
    "header.flac": (lambda p: damaged(write(p), 4, b"\xff" * 40), "flac decoder"),
    "rate.wav": (lambda p: damaged(write(p), 24, b"\x01\0\0\0"), "its header says 1 samples a second"),
    "cut.flac": (lambda p: cut(write(p), 0.5), "flac decoder lost sync"),
    "hole.flac": (lambda p: damaged(write(p), 2000, bytes(400)), "flac decoder lost sync"),
    "cut.mp3": (lambda p: cut(write(p, tone(3)), 0.5), "stops early"),
    "cut.ogg": (lambda p: cut(write(p, tone(3)), 0.5), "malformed"),
    "gone.wav": (lambda p: None, "No such file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_not_whole_sound_is_a_broken_sample_with_a_reason(tmp_path, name):
    make, reason = BROKEN[name]
    make(tmp_path / name)
    with pytest.raises(BrokenSample) as caught:
        read_audio(tmp_path / name)
    assert caught.value.name == str(tmp_path / name)
    assert reason in caught.value.reason
    assert not caught.value.reason.endswith(".")


@pytest.mark.parametrize(("samples", "whole"), [(1198, True), (1197, False)])
def test_the_shortest_clip_is_measured_after_resampling(tmp_path, samples, whole):
    path = write(tmp_path / "a.flac", tone(1, 48000)[:samples], 48000)
    assert audio_length(path) == (400 if whole else 399)
    if whole:
        assert len(read_audio(path)) == 400
    else:
        with pytest.raises(BrokenSample, match="has 399 samples"):
            read_audio(path)


def test_a_header_that_claims_days_takes_no_memory(tmp_path):
    path = write(tmp_path / "a.flac")
    data = bytearray(path.read_bytes())
    data[21] |= 0x0F  # STREAMINFO: the count of samples has 36 bits from here
    data[22:26] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(BrokenSample, match="its header says 68719476735 samples in 1 channels"):
        read_audio(path)
    assert audio_length(path) == 0


# AudioFolder


def labels(source: AudioFolder) -> list[str | None]:
    """Class names, where there are."""
    return [None if label is None else source.classes[label] for _, label in source]


def test_lengths_are_those_of_the_samples_in_every_format(tmp_path):
    for i, (name, options) in enumerate(FORMATS.items()):
        write(tmp_path / name, tone(0.5 + 0.1 * i), **options)
    write(tmp_path / "e.WAV", tone(0.3, 8000), 8000)
    source = AudioFolder(tmp_path)
    assert source.classes == ()
    assert list(source.lengths) == [8000, 9600, 11200, 12800, 4800]
    assert [len(sample.value) for sample in source] == list(source.lengths)
    assert labels(source) == [None] * 5


def test_class_folders_label_their_clips_and_hold_out_every_tenth(tmp_path):
    for name, i in itertools.product(("cat", "dog"), range(11)):
        write(tmp_path / name / f"{i:02}.wav", tone(0.2 + 0.01 * i))
    train, test = AudioFolder(tmp_path), AudioFolder(tmp_path, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert labels(train) == ["cat"] * 9 + ["dog"] * 9
    assert list(test.lengths) == [3200, 4800] * 2


@pytest.mark.parametrize("held_out", ["val", "validation", "dev", "test"])
def test_a_held_out_folder_is_the_test_set(tmp_path, held_out):
    for i, path in enumerate(["train/a/1.wav", "train/b/2.wav", f"{held_out}/a/3.wav", f"{held_out}/b/4.wav"]):
        write(tmp_path / path, tone(0.2 + 0.1 * i))
    assert list(AudioFolder(tmp_path).lengths) == [3200, 4800]
    assert list(AudioFolder(tmp_path, "test").lengths) == [6400, 8000]


def librispeech(root: Path, *subsets: str, clips: int = 1) -> Path:
    """Each subset: two speakers of its own, one chapter each."""
    for number, subset in enumerate(subsets):
        for speaker in (f"{number}7", f"{number}8"):
            chapter, lines = root / subset / speaker / "100", ""
            for i in range(clips):
                write(chapter / f"{speaker}-100-{i:04}.flac", tone(0.2 + 0.01 * i))
                lines += f"{speaker}-100-{i:04} SPEAKER {speaker} SAYS {i}\n"
            (chapter / f"{speaker}-100.trans.txt").write_text(lines)
    return root


@pytest.mark.parametrize("inside", ["", "LibriSpeech"])
def test_librispeech_speakers_are_classes_and_its_subsets_the_splits(tmp_path, inside):
    librispeech(tmp_path / inside, "train-clean-100", "train-other-500", "dev-clean", "test-other")
    train, test = AudioFolder(tmp_path), AudioFolder(tmp_path, "test")
    assert train.classes == test.classes == ("07", "08", "17", "18")
    assert labels(train) == ["07", "08", "17", "18"]
    assert labels(test) == [None] * 4  # nobody knows them
    assert [test.text(i) for i in range(4)] == [f"SPEAKER {speaker} SAYS 0" for speaker in ("27", "28", "37", "38")]


@pytest.mark.parametrize("root", [".", "train-clean-100"])
def test_librispeech_without_test_subsets_holds_out_clips_of_each_speaker(tmp_path, root):
    librispeech(tmp_path, "train-clean-100", clips=11)
    train, test = AudioFolder(tmp_path / root), AudioFolder(tmp_path / root, "test")
    assert (len(train), labels(test)) == (18, ["07", "07", "08", "08"])
    assert [test.text(i) for i in range(4)] == [f"SPEAKER {s} SAYS {i}" for s in ("07", "08") for i in (0, 10)]


def test_librispeech_whose_subset_is_empty_says_so(tmp_path):
    librispeech(tmp_path, "train-clean-100")
    (tmp_path / "dev-clean").mkdir()
    with pytest.raises(ConfigError, match=r"has no test clips in dev-clean, train-clean-100\. Unpack "):
        AudioFolder(tmp_path, "test")


def test_a_text_beside_a_clip_is_its_transcript_and_others_are_ignored(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.wav")
    (tmp_path / "a.txt").write_text("\ufeffgrün  ist\ngut \n", encoding="utf-8")
    (tmp_path / "c.txt").write_text("c")
    (tmp_path / "README.txt").touch()
    source = AudioFolder(tmp_path)
    assert [source.text(i) for i in range(3)] == ["grün ist gut", None, "c"]


TRANSCRIPTS = {
    "a.txt is empty. Write into it what is said, or delete it.": ("a.txt", b" \n"),
    "a.txt is not UTF-8. Save it as UTF-8.": ("a.txt", b"gr\xfcn"),
    "x.trans.txt says nothing for a. Complete it, or delete it.": ("x.trans.txt", b"b WORDS\n\na \n"),
}


@pytest.mark.parametrize("complaint", TRANSCRIPTS)
def test_a_transcript_without_words_is_named(tmp_path, complaint):
    name, data = TRANSCRIPTS[complaint]
    write(tmp_path / "speaker" / "a.wav")
    (tmp_path / "speaker" / name).write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        AudioFolder(tmp_path)
    assert str(caught.value) == f"data.root={tmp_path}: its transcript speaker/{complaint}"


def test_a_broken_file_is_kept_with_length_zero_and_reported_when_its_turn_comes(tmp_path):
    write(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_text("text")
    source = AudioFolder(tmp_path)
    assert list(source.lengths) == [8000, 0]
    with pytest.raises(BrokenSample, match=r"b\.wav: not audio"):
        source[1]


def test_clips_outside_the_limits_are_left_out_and_the_rest_keeps_its_label_and_text(tmp_path):
    for seconds, name in ((0.05, "a/1"), (0.5, "a/2"), (2, "a/3"), (0.6, "b/4")):
        write(tmp_path / f"{name}.wav", tone(seconds)).with_suffix(".txt").write_text(name)
    (tmp_path / "val").mkdir()
    os.renames(tmp_path / "a", tmp_path / "train" / "a")
    os.renames(tmp_path / "b", tmp_path / "train" / "b")
    for name in ("a", "b"):
        write(tmp_path / "val" / name / "5.wav")
    source = AudioFolder(tmp_path, max_seconds=1)
    assert (list(source.lengths), labels(source)) == ([8000, 9600], ["a", "b"])
    assert [source.text(i) for i in range(2)] == ["a/2", "b/4"]


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        (
            {"min_seconds": 0.6, "max_seconds": 1.0},
            "data.root={} has no train clip of data.min_seconds=0.6 or more, data.max_seconds=1.0 or less: "
            "they last 0.5 to 0.5 s. Move the limits.",
        ),
        (
            {"max_seconds": 0.1},
            "data.max_seconds=0.1 is not above data.min_seconds=0.1. Give a higher one, or null for no limit.",
        ),
    ],
)
def test_limits_that_leave_nothing_say_so(tmp_path, limits, complaint):
    write(tmp_path / "a.wav")
    with pytest.raises(ConfigError) as caught:
        AudioFolder(tmp_path, **limits)
    assert str(caught.value) == complaint.format(tmp_path)


WAY_OUT = "Give a folder of audio files or of class folders."
FOLDERS = {
    "missing": ([], f" cannot be read: no such file or directory. {WAY_OUT}"),
    "empty": (
        ["empty/notes.txt"],
        f" holds no audio files: 1 file, none ending in .wav, .flac, .ogg, .opus or .mp3. {WAY_OUT}",
    ),
    "mixed": (["mixed/1.wav", "mixed/a/2.wav"], " holds both 1.wav and a. Move audio files or folders away."),
    "lone": (
        ["lone/train/a/1.wav", "lone/val/b/1.wav"],
        ": its folder val has not the classes of train: a is in one of the two. Give both the same class folders.",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_cannot_be_used_says_why_in_one_sentence(tmp_path, case):
    files, complaint = FOLDERS[case]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ConfigError) as caught:
        AudioFolder(tmp_path / case)
    assert str(caught.value) == f"data.root={tmp_path / case}{complaint}"


def test_a_misspelt_split_names_the_right_one(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.split=tset is neither train nor test\. Did you mean test\?"):
        AudioFolder(tmp_path, "tset")


def test_a_source_that_is_sent_to_a_worker_reads_the_same(tmp_path):
    write(tmp_path / "a" / "1.wav").with_suffix(".txt").write_text("tone")
    write(tmp_path / "b" / "2.wav", tone(pitch=880))
    source = AudioFolder(tmp_path)
    sent = pickle.loads(pickle.dumps(source))
    assert [torch.equal(ours.value, theirs.value) for ours, theirs in zip(source, sent, strict=True)] == [True] * 2
    assert (labels(sent), sent.text(0), sent.text(1)) == (["a", "b"], "tone", None)


def test_lengths_of_many_files_are_remembered_until_one_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "CACHED_FROM", 2)
    files = [write(tmp_path / "clips" / f"{i}.wav", tone(0.2 + 0.1 * i)) for i in range(3)]
    asked = []
    monkeypatch.setattr(audio, "audio_length", lambda path: asked.append(path) or audio_length(path))

    def lengths() -> list[int]:
        asked.clear()
        return list(AudioFolder(tmp_path / "clips", cache=tmp_path / "cache").lengths)

    assert (lengths(), len(asked)) == ([3200, 4800, 6400], 3)
    assert (lengths(), len(asked)) == ([3200, 4800, 6400], 0)
    write(files[1], tone(1))
    assert (lengths(), len(asked)) == ([3200, 16000, 6400], 3)
    files[2].unlink()
    assert (lengths(), len(asked)) == ([3200, 16000], 2)  # too few to be worth it
    kept = list((tmp_path / "cache" / "audio_lengths").iterdir())
    assert {path.suffix for path in kept} == {".npy"}
    write(files[2], tone(0.4))
    for path in kept:
        path.write_bytes(b"damaged")
    assert lengths() == [3200, 16000, 6400]


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "CACHED_FROM", 0)
    write(tmp_path / "clips" / "a.wav")
    (tmp_path / "cache").touch()
    assert list(AudioFolder(tmp_path / "clips", cache=tmp_path / "cache").lengths) == [8000]


# Manifests


def manifest(root: Path, text: str | bytes, name: str = "list.tsv") -> Path:
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root / name


def test_a_manifest_gives_labels_texts_seconds_and_splits(tmp_path):
    for name in ("x/a.wav", "b.flac", "c.wav"):
        write(tmp_path / name)
    outside = write(tmp_path.parent / f"{tmp_path.name}.wav", tone(0.7))
    lines = [
        "\ufeffpath\tseconds\tlabel\ttext\tsplit",
        "x/a.wav\t0.5\tyes\tYes, please.\ttrain",
        "b.flac\t0.25\tno\tnö\ttrain\r",
        f"{outside}\t0.7\t\tperhaps\ttrain",
        "",
        "c.wav\t0.5\tnever\t never \ttest",
    ]
    path = manifest(tmp_path, "\n".join(lines))
    train, test = AudioFolder(path), AudioFolder(path, "test")
    assert train.classes == test.classes == ("never", "no", "yes")
    assert [(train.text(i), label) for i, label in enumerate(labels(train))] == [
        ("perhaps", None),
        ("nö", "no"),
        ("Yes, please.", "yes"),
    ]
    assert list(train.lengths) == [11200, 4000, 8000]  # seconds are taken at their word
    assert (test.text(0), labels(test)) == ("never", ["never"])


def test_a_folder_with_a_manifest_is_read_by_it(tmp_path):
    write(tmp_path / "listed" / "a.wav", tone(0.3))
    write(tmp_path / "not_listed.wav")
    manifest(tmp_path, "path\nlisted/a.wav\n", "manifest.tsv")
    source = AudioFolder(tmp_path)
    assert (list(source.lengths), source.classes, source.text(0)) == ([4800], (), None)


def test_a_manifest_without_splits_holds_out_every_tenth_of_a_label(tmp_path):
    for i in range(11):
        write(tmp_path / f"{i}.wav", tone(0.2 + 0.1 * i))
    rows = "".join(f"{i}.wav\t{'ab'[i % 2]}\n" for i in range(11))
    path = manifest(tmp_path, f"path\tlabel\n{rows}")
    assert list(AudioFolder(path, "test").lengths) == [3200, 4800]
    assert labels(AudioFolder(path)) == ["a"] * 5 + ["b"] * 4


COLUMNS = "Name its tab-separated columns there: path, seconds, label, text, split; all but path may be left out."
MANIFESTS = {
    "no column path": ("file\ttext\na.wav\thello\n", f"has no column path in its first line. {COLUMNS}"),
    "nothing": ("", f"has no column path in its first line. {COLUMNS}"),
    "an unknown column": (
        "path\tlable\na.wav\tx\n",
        "has an unknown column 'lable' in its first line. Did you mean label?",
    ),
    "a strange column": ("path\tage\na.wav\t9\n", f"has an unknown column 'age' in its first line. {COLUMNS}"),
    "a column twice": ("path\tpath\na.wav\ta.wav\n", f"names a column twice in its first line. {COLUMNS}"),
    "a missing file": (
        "path\na.wav\nb.wav\n",
        "names b.wav in line 3, which is no file. Give its path from the manifest on, or the absolute one.",
    ),
    "an empty transcript": (
        "path\ttext\na.wav\t \n",
        "has an empty text in line 2 (a.wav). Fill it, or delete the line.",
    ),
    "no path": ("path\ttext\n\thello\n", "has an empty path in line 2 (). Fill it, or delete the line."),
    "a tab in a text": (
        "path\ttext\na.wav\thello\tyou\n",
        "has 3 columns in line 2, its first line names 2. Put one tab between two columns, and none into a text.",
    ),
    "seconds that are none": ("path\tseconds\na.wav\t1:20\n", "has the seconds 1:20 in line 2. Give a number above 0."),
    "endless seconds": ("path\tseconds\na.wav\tinf\n", "has the seconds inf in line 2. Give a number above 0."),
    "negative seconds": ("path\tseconds\na.wav\t-1\n", "has the seconds -1 in line 2. Give a number above 0."),
    "an unknown split": (
        "path\tsplit\na.wav\ttrian\n",
        "has the split trian in line 2, which is neither train nor test. Did you mean train?",
    ),
    "no line of the split": (
        "path\tsplit\na.wav\ttest\n",
        "lists nothing to train on. Add lines, or mark some of them train.",
    ),
    "no lines": ("path\n", "lists nothing to train on. Add lines."),
    "Latin-1": ("path\ttext\na.wav\tgrün\n".encode("latin-1"), "is not UTF-8. Save it as UTF-8."),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_mistake_in_a_manifest_is_one_sentence_with_its_line(tmp_path, case):
    text, complaint = MANIFESTS[case]
    write(tmp_path / "a.wav")
    path = manifest(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        AudioFolder(path)
    assert str(caught.value) == f"data.root={path} {complaint}"


def test_a_manifest_of_single_clips_has_no_test_set_and_says_so(tmp_path):
    write(tmp_path / "a.wav")
    path = manifest(tmp_path, "path\tlabel\na.wav\tx\n")
    with pytest.raises(ConfigError) as caught:
        AudioFolder(path, "test")
    assert str(caught.value) == f"data.root={path} lists nothing to test on. Add lines, or a column split."


def test_a_manifest_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"list\.tsv cannot be read: no such file or directory\. Give a folder"):
        AudioFolder(tmp_path / "list.tsv")


# The script that fetches Asterisk's prompts, with apt played by one-line programs


PROMPTS = {
    "added": "Added.",
    "digits/1": "one",
    "digits/2": "two",
    "letters/at": "at [@]",
    "beep": "[a beep tone]",
    "silence/1": "(1 second of silence)",
}


def package(tmp_path: Path) -> None:
    share = tmp_path / "package"
    for i, name in enumerate(PROMPTS):
        write(share / f"asterisk/sounds/en_US_f_Allison/{name}.wav", tone(0.5 + 0.1 * i, 8000), 8000)
    for name in ("asterisk-core-sounds-en", "asterisk-core-sounds-en-wav"):
        (share / "doc" / name).mkdir(parents=True)
        (share / "doc" / name / "copyright").write_text("CC-BY-SA-3.0")
    text = "; a comment: first\n\nnot-there: No file.\n" + "".join(f"{k}: {v}\n" for k, v in PROMPTS.items())
    transcripts = share / "doc/asterisk-core-sounds-en/core-sounds-en.txt"
    transcripts.write_text(text)
    subprocess.run(["gzip", str(transcripts)], check=True)


def test_the_script_writes_a_manifest_of_what_is_spoken_and_names_the_licence(tmp_path):
    package(tmp_path)
    assert "CC BY-SA 3.0" in fetch(SCRIPT, tmp_path).stdout
    folder = tmp_path / "a cache" / "set"
    assert sorted(os.listdir(folder)) == ["LICENSE", "manifest.tsv", "sounds"]
    assert os.listdir(tmp_path / "a cache") == ["set"]
    rows = [line.split("\t") for line in (folder / "manifest.tsv").read_text().splitlines()]
    assert [row[:4] for row in rows] == [
        ["path", "seconds", "label", "text"],
        ["sounds/added.wav", "0.500000", "prompts", "Added."],
        ["sounds/digits/1.wav", "0.600000", "digits", "one"],
        ["sounds/digits/2.wav", "0.700000", "digits", "two"],
        ["sounds/letters/at.wav", "0.800000", "letters", "at"],
    ]
    source = AudioFolder(folder)
    assert [len(sample.value) for sample in source] == list(source.lengths)
    again = fetch(SCRIPT, tmp_path, apt_cache="exit 1", apt_get="exit 1")
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.parametrize(
    ("apt", "reason"),
    [
        ({"apt_cache": "exit 100"}, "apt does not know asterisk-core-sounds-en-wav. Run 'apt-get update' as root"),
        ({"apt_get": "exit 100"}, "the download failed."),
        ({}, "does not hold its files where it used to."),
    ],
)
def test_the_script_leaves_nothing_behind_when_it_fails_and_says_why(tmp_path, apt, reason):
    (tmp_path / "package").mkdir()
    result = fetch(SCRIPT, tmp_path, **apt)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert reason in result.stderr
    assert not list(tmp_path.glob("a cache/*"))


# Synthetic speech


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader")
    return tmp_path_factory.mktemp("cache")


VOCABULARY = ("stop", "yellow", "one")


def few_words(cache: Path, split: str = "train") -> SpokenWords:
    return SpokenWords(cache, split, VOCABULARY, train_clips=24, test_clips=12)


def test_spoken_words_are_of_a_word_s_length_loud_and_labelled_by_the_word(cache):
    source = few_words(cache)
    assert (len(source), source.classes) == (24, VOCABULARY)
    assert [source.text(i) for i in range(4)] == ["stop", "yellow", "one", "stop"]
    for i, (value, label) in enumerate(source):
        assert source.classes[label] == source.text(i)
        assert (value.dtype, len(value)) == (torch.float32, source.lengths[i])
        assert 0.2 * RATE < len(value) < 1.3 * RATE
        assert 0.19 < value.abs().max() < 0.91
        assert value.square().mean().sqrt() > 0.01
    with pytest.raises(IndexError):
        source[24]


# The first two variants breathe, at random: the library would seed that by the clock.
BREATH = [Utterance("yes", 0, f"en+{name}", 150, 50, 30.0, 0.5, 0.0, 0.0) for name in ("victor", "sandro", "f1")]


def same(first: SynthesisedSpeech, second: SynthesisedSpeech) -> bool:
    return all(torch.equal(ours.value, theirs.value) for ours, theirs in zip(first, second, strict=True))


def test_speech_is_the_same_bit_for_bit_when_it_is_made_again(cache, tmp_path):
    first, second = (SynthesisedSpeech("test", ("yes",), BREATH, tmp_path / name) for name in "ab")
    assert same(first, second)
    assert not torch.equal(first[0].value[:999], first[2].value[:999])


def test_processes_that_synthesise_into_one_cache_agree(cache, tmp_path):
    with ThreadPoolExecutor() as threads:  # each waits for a process of its own
        ours, theirs = threads.map(lambda _: SynthesisedSpeech("test", ("yes",), BREATH, tmp_path), range(2))
    assert same(ours, theirs)
    assert len(os.listdir(tmp_path)) == 1


def test_speech_that_was_made_is_read_from_the_cache_without_the_library(cache, monkeypatch):
    expected = few_words(cache)[5].value
    monkeypatch.setattr(espeak.importlib.util, "find_spec", lambda name: None)
    assert torch.equal(few_words(cache)[5].value, expected)
    assert not list(cache.glob(".part-*"))


def test_every_variant_is_known():
    known = os.listdir(Path(pytest.importorskip("espeakng_loader").get_data_path(), "voices", "!v"))
    variants = [speaker.partition("+")[2] for speaker in espeak.SPEAKERS]
    assert {*espeak.TRAIN_VARIANTS, *espeak.TEST_VARIANTS, *variants} <= set(known)


def spectrum(value: torch.Tensor) -> torch.Tensor:
    """12 x 16 log energies, over the word's own time."""
    power = torch.stft(value, 400, 160, window=torch.hann_window(400), return_complex=True).abs().square()
    bands = torch.nn.functional.adaptive_avg_pool2d(power[None, 1:120], (12, 16))[0].log()
    return (bands - bands.mean()).flatten() / bands.std()


def test_words_of_unheard_speakers_are_nearest_to_the_same_words(cache):
    train, test = few_words(cache), few_words(cache, "test")
    heard = torch.stack([spectrum(sample.value) for sample in train])
    means = torch.stack([heard[i::3].mean(0) for i in range(3)])
    right = sum(int((means @ spectrum(value)).argmax()) == label for value, label in test)
    assert right >= 9  # of 12; by chance 4


def test_the_noise_lies_as_far_below_the_speech_as_it_is_said(cache, tmp_path):
    spoken = [Utterance("yes", 0, "en+m3", 150, 50, snr, 0.5, 0.5, 0.0) for snr in (20.0, 40.0)]
    for utterance, sample in zip(spoken, SynthesisedSpeech("noise", ("yes",), spoken, tmp_path), strict=True):
        pause, speech = sample.value[: RATE // 2 - 200], sample.value[RATE // 2 :]
        ratio = 10 * math.log10(speech.square().mean() / pause.square().mean())
        assert ratio == pytest.approx(utterance.snr, abs=0.5)


def test_sentences_last_seconds_and_are_labelled_by_their_speaker(cache):
    source = SpokenSentences(cache, "test", test_clips=6)
    assert len(source) == 6
    for i, (value, label) in enumerate(source):
        assert 2.5 * RATE < len(value) < 7 * RATE
        assert source.classes[label] == source._utterances[i].voice


@pytest.fixture
def listed(monkeypatch, tmp_path):
    """What a source would say, without saying it."""

    def utterances(kind: type[SynthesisedSpeech], *args: object, **options: object) -> list[Utterance]:
        monkeypatch.setattr(SynthesisedSpeech, "__init__", lambda self, *args: made.append(args[2]))
        made: list[list[Utterance]] = []
        kind(tmp_path, *args, **options)
        return made[0]

    return utterances


def test_sentences_are_held_out_and_their_speakers_are_not(listed):
    train, test = (listed(SpokenSentences, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1000, 200)
    assert {spoken.text for spoken in train} <= set(SENTENCES[:100])
    assert {spoken.text for spoken in test} <= set(SENTENCES[100:])
    assert {spoken.voice for spoken in train} == {spoken.voice for spoken in test} == set(espeak.SPEAKERS)


def test_no_test_speaker_is_heard_in_training(listed):
    train, test = (listed(SpokenWords, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (4000, 1000)
    heard, unheard = ({spoken.voice.partition("+")[2] for spoken in said} for said in (train, test))
    assert (len(heard), len(unheard), heard & unheard) == (57, 14, set())
    assert {spoken.text for spoken in test} == set(espeak.WORDS)


def test_sentences_are_transcripts_as_they_stand():
    assert len(set(SENTENCES)) == 120
    assert not set("".join(SENTENCES)) - set("abcdefghijklmnopqrstuvwxyz' ")


def test_no_speaker_says_a_sentence_twice_and_more_than_there_are_is_refused(listed):
    said = listed(SpokenSentences, train_clips=1600)
    assert len({(spoken.text, spoken.voice) for spoken in said}) == 1600
    with pytest.raises(
        ConfigError, match=r"data\.source\.train_clips=1601 is more than the 1600 there are\. Ask for f"
    ):
        listed(SpokenSentences, train_clips=1601)


def test_without_the_library_the_way_to_get_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(espeak.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        SpokenWords(tmp_path)
    assert str(caught.value).endswith(
        " is made by espeakng-loader, which is not installed. "
        "Run `pip install 'unmask[speech]'`, or use recordings: data=audio data.root=FOLDER."
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "ended"),
    [("kill -SEGV $$", "by signal SIGSEGV: without a word"), ("echo 'no voice.' >&2; exit 3", "by code 3: no voice")],
)
def test_a_crash_of_the_library_becomes_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, line, ended):
    pytest.importorskip("espeakng_loader")
    (tmp_path / "python").write_text(f"#!/bin/sh\n{line}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(espeak.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError) as caught:
        few_words(tmp_path / "cache")
    assert f": espeak-ng ended {ended}. Run `pip install --force-reinstall espeakng-loader`, or" in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("voice", ["en+nobody", "nowhere+m1"])
def test_an_unknown_voice_is_named_and_not_replaced(cache, tmp_path, voice):
    spoken = [Utterance("one", 0, voice, 150, 50, 30.0, 0.5, 0.0, 0.0)]
    with pytest.raises(
        ConfigError, match=rf"espeak-ng ended by code 1: it has no voice {voice.replace('+', '.')}\. Run"
    ):
        SynthesisedSpeech("test", ("one",), spoken, tmp_path)


def test_a_text_that_gives_no_sound_is_named(cache, tmp_path):
    spoken = [Utterance("", 0, "en+m1", 150, 50, 30.0, 0.5, 0.0, 0.0)]
    with pytest.raises(ConfigError, match=r"it says nothing for '' in the voice en\+m1\. Run"):
        SynthesisedSpeech("test", ("one",), spoken, tmp_path)


def test_a_cache_that_cannot_be_written_is_named(cache, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"data\.source\.cache=.*/file cannot be written: .*\. Set paths\.cache to a f"
    ):
        few_words(tmp_path / "file")


@pytest.mark.parametrize("name", ["speech.wav", "lengths.npy"])
@pytest.mark.parametrize("damage", [os.unlink, lambda path: cut(Path(path), 0.7)])
def test_a_damaged_cache_says_what_to_delete(cache, tmp_path, name, damage):
    source = few_words(cache)
    copy = tmp_path / source._path.parent.name
    copy.mkdir()
    for file in source._path.parent.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    damage(copy / name)
    with pytest.raises(ConfigError, match=rf"data\.source\.cache=.* its folder {copy.name} is damaged\. Delete that\."):
        few_words(tmp_path)


def test_the_whole_recording_can_be_listened_to(cache):
    source = few_words(cache)
    with wave.open(str(source._path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (RATE, 1, sum(source.lengths))
