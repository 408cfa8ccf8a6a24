"""Synthetic speech with true transcripts and speakers: espeak-ng says it once, into a cache.

espeak-ng (GPL-3) comes by `espeakng-loader` from the extra `speech`, and runs in a process of its own: it keeps global
state, from which its voices flutter, and a crash in it must end in a sentence. So what is said is the same bit for
bit on one machine, as a whole list in its order, and the cache is named by the list.
"""

import ctypes
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from unmask.address import Permutation, address, noise
from unmask.data.audio import RATE
from unmask.data.folder import check_split, made_whole
from unmask.data.sentences import SENTENCES
from unmask.errors import BrokenSample, ConfigError
from unmask.schema import Sample

WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("yes", "no", "up", "down", "left", "right", "stop", "go"),
    *("red", "blue", "green", "yellow", "orange", "purple"),
)
# Of Great Britain, Scotland, Lancaster, the West Midlands, received pronunciation, the USA, New York, the Caribbean.
ACCENTS = ("en", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us", "en-us-nyc", "en-029")
# Variants are speakers. Those left out whisper, croak, are robots or hard to understand; namesakes stand on one side.
TRAIN_VARIANTS = (
    *("Alex", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo", "Jacky", "Lee"),
    *("Mario", "Nguyen", "Reed", "adam", "anika", "announcer", "antonio", "aunty", "benjamin", "boris", "caleb"),
    *("david", "edward", "edward2", "f1", "f2", "f3", "f5", "grandpa", "gustave", "ian", "iven", "iven2", "klatt"),
    *("klatt2", "klatt3", "klatt4", "m1", "m2", "m3", "m5", "m6", "m8", "marcelo", "max", "michel", "miguel"),
    *("pablo", "paul", "pedro", "robert", "shelby", "steph", "steph2", "travis"),
)
TEST_VARIANTS = (
    *("Michael", "belinda", "f4", "grandma", "john", "linda", "m4", "m7", "mike2", "norbert", "quincy"),
    *("rob", "sandro", "victor"),
)
SPEAKERS = (  # of the sentences: accent and variant
    *("en+m1", "en+f2", "en-us+m3", "en-us+f3", "en-gb-scotland+m5", "en-gb-scotland+f1", "en-gb-x-rp+Andy"),
    *("en-gb-x-rp+f4", "en-029+m7", "en-029+linda", "en-us-nyc+klatt2", "en-us-nyc+belinda", "en-gb-x-gbclan+grandpa"),
    *("en-gb-x-gbclan+aunty", "en-gb-x-gbcwmd+Lee", "en-gb-x-gbcwmd+anika"),
)
SENTENCES_HELD_OUT = 20

_OUTPUT_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _SPEED, _PITCH = 2, 0x8000, 1, 1, 3  # from espeak-ng/speak_lib.h
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_RECORDINGS = "or use recordings: data=audio data.root=FOLDER"


class Utterance(NamedTuple):
    """What is said, and how it sounds.

    Attributes:
        text: small letters.
        label: number of the word, or of the speaker.
        voice: accent and variant.
        speed: words a minute.
        pitch: 0 to 99, 50 as the variant is meant.
        snr: decibels from the speech to the white noise under it.
        peak: the loudest sample, 1 is full scale.
        before: seconds of noise alone that come first.
        after: seconds of noise alone that come last.
    """

    text: str
    label: int
    voice: str
    speed: int
    pitch: int
    snr: float
    peak: float
    before: float
    after: float


class SynthesisedSpeech:
    """Utterances that were said into a cache, or are now.

    Args:
        name: of the cache's folder, before the hash of the list.
        classes: names of the labels.
        utterances: what is said.
        cache: where the folder lies.

    Attributes:
        classes: names of the labels 0, 1, ...
        lengths: samples at 16 kHz of every clip.

    Raises:
        ConfigError: espeakng-loader is missing, espeak-ng fails, or the cache cannot be written.
    """

    def __init__(self, name: str, classes: tuple[str, ...], utterances: list[Utterance], cache: str | Path) -> None:
        self.classes, self._utterances = classes, utterances
        digest = hashlib.sha256(json.dumps(utterances).encode()).hexdigest()[:12]
        folder = Path(cache).expanduser().absolute() / f"{name}-{digest}"
        if not folder.exists():
            _synthesise(utterances, folder)
        # One file that any player plays. Not kept open: workers would share its place, or be sent it.
        self._path = folder / "speech.wav"
        try:
            self.lengths = array("q", np.load(folder / "lengths.npy", allow_pickle=False).tolist())
            whole = soundfile.info(self._path).frames == sum(self.lengths) and len(self.lengths) == len(utterances)
        except (OSError, ValueError, EOFError, soundfile.LibsndfileError) as error:
            raise _damaged(folder) from error
        if not whole:
            raise _damaged(folder)
        self._ends = array("q", np.cumsum(self.lengths).tolist())

    def __len__(self) -> int:
        return len(self._utterances)

    def __getitem__(self, index: int) -> Sample:
        """float32 (samples,) at 16 kHz in [-1, 1], and its label."""
        i = range(len(self))[index]
        try:
            start = self._ends[i] - self.lengths[i]
            value, _ = soundfile.read(self._path, self.lengths[i], start, dtype="float32")
        except soundfile.LibsndfileError as error:
            raise BrokenSample(str(self._path), str(error.error_string).rstrip(".")) from error
        return Sample(torch.from_numpy(value), self._utterances[i].label)

    def text(self, index: int) -> str | None:
        """What is said in a clip."""
        return self._utterances[index].text


class SpokenWords(SynthesisedSpeech):
    """Single words, each clip with its own voice, speed, pitch, loudness and noise; the label is the word.

    57 speakers in 8 accents say the training clips, 14 others the test clips. A clip is the word, of 0.25 to 1 s,
    between pauses of up to 0.1 s. White noise lies 20 to 40 dB below the word throughout, so that features have
    something to be robust against.

    Args:
        cache: folder for the synthesised clips: 90 MB for 5,000.
        split: train or test.
        words: the vocabulary, equally often each.
        train_clips: clips to train on.
        test_clips: held-out clips.
    """

    def __init__(
        self,
        cache: str | Path,
        split: str = "train",
        words: Sequence[str] = WORDS,
        train_clips: int = 4000,
        test_clips: int = 1000,
    ) -> None:
        check_split(split)
        variants = TRAIN_VARIANTS if split == "train" else TEST_VARIANTS
        utterances = []
        for i in range(train_clips if split == "train" else test_clips):
            draw = _Draw("spoken words " + split, i)
            voice = f"{draw.choice(ACCENTS)}+{draw.choice(variants)}"
            label = i % len(words)
            utterances.append(_utterance(draw, words[label], label, voice, speeds=(100, 190), pitches=(25, 75)))
        super().__init__(f"spoken_words_{split}", tuple(words), utterances, cache)


class SpokenSentences(SynthesisedSpeech):
    """Sentences of 3 to 6 seconds by 16 speakers; the label is the speaker, whose other sentences are for testing.

    No speaker says a sentence twice. Speed and pitch vary by a tenth about the speaker's own; white noise lies 20
    to 40 dB below the speech.

    Args:
        cache: folder for the synthesised clips: 150 MB for 1,200.
        split: train or test.
        train_clips: clips to train on, at most 1,600.
        test_clips: held-out clips, at most 320.
    """

    def __init__(self, cache: str | Path, split: str = "train", train_clips: int = 1000, test_clips: int = 200) -> None:
        check_split(split)
        train = split == "train"
        sentences = SENTENCES[:-SENTENCES_HELD_OUT] if train else SENTENCES[-SENTENCES_HELD_OUT:]
        pairs = Permutation(len(sentences) * len(SPEAKERS), address(0, "spoken sentences " + split))
        key, clips = ("train_clips", train_clips) if train else ("test_clips", test_clips)
        if clips > pairs.n:
            raise ConfigError(f"data.source.{key}={clips} is more than the {pairs.n} there are. Ask for fewer.")
        utterances = []
        for i in range(clips):
            text, label = divmod(pairs[i], len(SPEAKERS))
            draw = _Draw("spoken sentences " + split, i)
            spoken = _utterance(draw, sentences[text], label, SPEAKERS[label], speeds=(115, 145), pitches=(45, 55))
            utterances.append(spoken)
        super().__init__(f"spoken_sentences_{split}", SPEAKERS, utterances, cache)


class _Draw:
    """Addressed draws for one utterance, each the next word of its address."""

    def __init__(self, purpose: str, index: int) -> None:
        self._purpose, self._index, self._drawn = purpose, index, 0

    def uniform(self, low: float, high: float) -> float:
        """In [low, high), to four places: the list is hashed."""
        self._drawn += 1
        share = address(0, self._purpose, self._index, self._drawn) / 2**64
        return round(low + (high - low) * share, 4)

    def choice(self, options: Sequence[str]) -> str:
        """One of them."""
        self._drawn += 1
        return options[address(0, self._purpose, self._index, self._drawn) % len(options)]


def _utterance(
    draw: _Draw, text: str, label: int, voice: str, speeds: tuple[int, int], pitches: tuple[int, int]
) -> Utterance:
    return Utterance(
        text,
        label,
        voice,
        speed=int(draw.uniform(*speeds)),
        pitch=int(draw.uniform(*pitches)),
        snr=draw.uniform(20, 40),
        peak=draw.uniform(0.2, 0.9),
        before=draw.uniform(0, 0.1),
        after=draw.uniform(0, 0.1),
    )


def _synthesise(utterances: list[Utterance], folder: Path) -> None:
    """Make the folder of a list."""
    if importlib.util.find_spec("espeakng_loader") is None:
        reason = "is made by espeakng-loader, which is not installed"
        raise ConfigError(f"data.source={folder.name} {reason}. Run `pip install 'unmask[speech]'`, {_RECORDINGS}.")
    print(f"Synthesising {len(utterances)} clips of speech into {folder}, once", file=sys.stderr, flush=True)
    with made_whole(folder) as aside:
        (aside / "utterances.json").write_text(json.dumps([u._asdict() for u in utterances]) + "\n")
        command = [sys.executable, "-m", "unmask.data.espeak", str(aside)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise ConfigError(_failure(folder, done.returncode, done.stderr))


def _failure(folder: Path, code: int, complaint: str) -> str:
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
    last = (complaint.strip().splitlines() or ["without a word"])[-1].rstrip(".")
    way_out = f"Run `pip install --force-reinstall espeakng-loader`, {_RECORDINGS}."
    return f"data.source={folder.name}: espeak-ng ended by {ended}: {last}. {way_out}"


def _damaged(folder: Path) -> ConfigError:
    return ConfigError(f"data.source.cache={folder.parent}: its folder {folder.name} is damaged. Delete that.")


class _Espeak:
    """The library, in the one process that may use it.

    Attributes:
        rate: samples a second of what it says.
    """

    def __init__(self) -> None:
        import espeakng_loader  # type: ignore[import-not-found, import-untyped, unused-ignore]

        data = espeakng_loader.get_data_path()
        self._variants = Path(data, "voices", "!v")
        self._said = bytearray()
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
            *(ctypes.c_void_p, ctypes.c_void_p),
        ]
        self.rate = int(self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, os.fsencode(data), _DO_NOT_EXIT))
        if self.rate <= 0:
            sys.exit(f"it does not start with the voices in {data}")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(0))  # of the breath of some voices; else it is the time
        self._callback = _CALLBACK(self._hear)  # kept: the library has only its address
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, utterance: Utterance) -> Tensor:
        """float32 (samples,), in [-1, 1]."""
        self._said.clear()
        variant = utterance.voice.partition("+")[2]  # it takes an unknown one for none
        known = (self._variants / variant).is_file()
        if not known or self._library.espeak_SetVoiceByName(utterance.voice.encode()):
            sys.exit(f"it has no voice {utterance.voice}")
        self._library.espeak_SetParameter(_SPEED, utterance.speed, 0)
        self._library.espeak_SetParameter(_PITCH, utterance.pitch, 0)
        text = utterance.text.encode() + b"\0"
        self._library.espeak_Synth(text, len(text), 0, 0, 0, _UTF8, None, None)
        value = torch.frombuffer(self._said, dtype=torch.int16).float() / 2**15 if self._said else torch.zeros(1)
        if not value.any():
            sys.exit(f"it says nothing for '{utterance.text}' in the voice {utterance.voice}")
        return value

    def _hear(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: int | None) -> int:
        """Called by the library with the next samples; 0 to go on."""
        if samples and count > 0:
            self._said += ctypes.string_at(samples, 2 * count)
        return 0


def _clips(utterances: list[Utterance]) -> Iterator[Tensor]:
    """Each utterance as int16 (samples,) at 16 kHz."""
    espeak = _Espeak()
    resample = Resample(espeak.rate, RATE)
    for i, utterance in enumerate(utterances):
        speech = resample(espeak.say(utterance))
        clip = torch.zeros(round(utterance.before * RATE) + len(speech) + round(utterance.after * RATE))
        clip[round(utterance.before * RATE) :][: len(speech)] = speech
        white = (noise(0, "white noise", torch.tensor([i]), len(clip))[0] - 0.5) * 12**0.5  # uniform, deviation 1
        clip += white * speech.square().mean().sqrt() * 10 ** (-utterance.snr / 20)
        yield (clip * (utterance.peak / clip.abs().max()) * 2**15).round().to(torch.int16)


def main(folder: Path) -> None:
    """Say what `utterances.json` in a folder lists, into `speech.wav` and `lengths.npy` beside it."""
    utterances = [Utterance(**fields) for fields in json.loads((folder / "utterances.json").read_text())]
    torch.set_num_threads(1)  # clips are short: threads would only wait for each other
    lengths = []
    with soundfile.SoundFile(folder / "speech.wav", "w", RATE, 1, "PCM_16") as file:
        for clip in _clips(utterances):
            file.write(clip.numpy())
            lengths.append(len(clip))
    np.save(folder / "lengths.npy", np.array(lengths, np.int64))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
