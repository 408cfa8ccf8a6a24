import dataclasses
import gzip
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.data.sentences import SENTENCES
from unmask.decoding.alphabet import Alphabet, normalise
from unmask.decoding.ctc import BeamSearch, greedy
from unmask.decoding.ngram import NGram, estimate, read_arpa, write_arpa
from unmask.decoding.wer import Errors, character_errors, total, word_errors
from unmask.errors import ConfigError

AB = Alphabet("ab")
ARPA = """made for this test

\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-99\t<s>\t-0.3
-1.0\t</s>
-2.0\t<unk>
-0.5\tThe\t-0.25
-0.75\tcat\t-0.125

\\2-grams:
-0.2\t<s> The\t-0.1
-0.4\tThe cat
-0.6\tcat </s>

\\3-grams:
-0.05\t<s> The cat

\\end\\
"""


def emissions(frames: int, classes: int, seed: int, batch: int = 1) -> Tensor:
    """Random log-probabilities (B, T, C)."""
    return torch.randn(batch, frames, classes, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    """What an alignment spells."""
    return tuple(token for token, _ in itertools.groupby(path) if token != 0)


def summed(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """Log-probability of everything that (T, C) can spell: the sum over all C**T alignments."""
    frames, classes = log_probs.shape
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(classes), repeat=frames):
        probability = math.exp(sum(log_probs[t, token].item() for t, token in enumerate(path)))
        found[collapse(path)] = found.get(collapse(path), 0.0) + probability
    return {spelt: math.log(probability) for spelt, probability in found.items()}


def spoken(text: str, alphabet: Alphabet, sure: float = 0.9) -> Tensor:
    """(1, T, C) of a text whose every character takes a frame, and a blank the next."""
    probabilities = torch.full((2 * len(text), len(alphabet)), (1 - sure) / (len(alphabet) - 1))
    for place, token in enumerate(alphabet.encode(text)):
        probabilities[2 * place, token] = probabilities[2 * place + 1, 0] = sure
    return probabilities.log()[None]


def lengths(log_probs: Tensor) -> Tensor:
    return torch.full((len(log_probs),), log_probs.shape[1])


# --- alphabet


def test_a_transcript_is_small_letters_digits_apostrophes_and_single_spaces():
    assert normalise("  Well-known: DON\u2019T\tpay 3.50,\nRené! ") == "well known don't pay 3 50 rené"
    assert normalise("Rene\u0301") == "ren\u00e9"
    assert normalise("नमस्ते") == "नमस्ते"  # vowels are marks, and stay
    assert normalise("Well-known:  DON\u2019T!", punctuation=True) == "well-known: don't!"


def test_characters_are_numbered_in_order_after_the_blank():
    alphabet = Alphabet.of(["Cab!", "a bad"])
    assert alphabet == Alphabet(" abcd")
    assert len(alphabet) == 6
    assert alphabet.space == 1
    assert Alphabet.of(["cab"]).space is None
    assert Alphabet.of(["Cab!"], punctuation=True).characters == "!abc"


def test_a_text_comes_back_from_its_ids_through_json():
    alphabet = Alphabet.of(SENTENCES)
    again = Alphabet(**json.loads(json.dumps(dataclasses.asdict(alphabet))))
    for text in SENTENCES:
        assert 0 not in alphabet.encode(text)
        assert again.decode(alphabet.encode(text.upper() + ".")) == text
    assert alphabet.decode([1, 1, *alphabet.encode("a"), 1, 1, *alphabet.encode("b"), 1]) == "a b"


def test_a_character_that_training_never_saw_is_named_with_its_transcript():
    with pytest.raises(ConfigError, match=r"The transcript 'Cab, Zoë' holds 'z', .*Leave the clip out"):
        Alphabet.of(["a cab", "oë"]).encode("Cab, Zoë")
    with pytest.raises(ConfigError, match="hold no letter"):
        Alphabet.of(["", " ... "])


# --- greedy


def test_the_best_path_is_that_of_a_plain_loop():
    log_probs, counts = emissions(40, 4, 0, batch=5), [40, 13, 1, 0, 27]
    for found, frames, count in zip(greedy(log_probs, torch.tensor(counts)), log_probs, counts, strict=True):
        expected, before = [], 0
        for frame in frames[:count]:
            token = int(frame.argmax())
            if token not in (0, before):
                expected.append(token)
            before = token
        assert found == expected


# --- beam search


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("frames", "classes"), [(1, 2), (4, 4), (6, 3), (7, 2)])
def test_a_beam_that_drops_nothing_finds_every_text_with_the_sum_over_its_alignments(frames, classes, seed):
    log_probs = emissions(frames, classes, seed)
    search = BeamSearch(Alphabet("abc"[: classes - 1]), beam=100_000, token_threshold=-math.inf)
    (found,) = search(log_probs, lengths(log_probs))
    expected = summed(log_probs[0])
    assert {h.ids: h.log_prob for h in found} == pytest.approx(expected, abs=1e-6)
    assert [h.score for h in found] == sorted((h.log_prob for h in found), reverse=True)
    assert found[0].ids == max(expected, key=expected.__getitem__)


def test_the_probability_of_the_best_hypothesis_is_what_ctc_loss_says():
    log_probs, counts = emissions(12, 3, 1, batch=4), torch.tensor([12, 9, 5, 2])
    for row, found in enumerate(BeamSearch(AB, beam=100_000, token_threshold=-math.inf)(log_probs, counts)):
        best = found[0]
        target = torch.tensor([best.ids])
        frames = log_probs[row : row + 1].transpose(0, 1)
        loss = F.ctc_loss(frames, target, counts[row : row + 1], torch.tensor([len(best.ids)]), reduction="sum")
        assert best.log_prob == pytest.approx(-loss.item(), abs=1e-5)


def test_many_weak_alignments_beat_the_best_path():
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()  # "a" by three paths: .64, nothing by one: .36
    assert greedy(log_probs, torch.tensor([2])) == [[]]
    best = BeamSearch(Alphabet("a"))(log_probs, torch.tensor([2]))[0][0]
    assert best.ids == (1,)
    assert best.log_prob == pytest.approx(math.log(0.64))


def test_a_character_counts_twice_only_after_a_blank():
    together, apart = torch.full((1, 3, 3), 0.05), torch.full((1, 3, 3), 0.05)
    together[0, :, 1] = apart[0, [0, 2], 1] = apart[0, 1, 0] = 0.9
    search = BeamSearch(AB)
    assert search(together.log(), torch.tensor([3]))[0][0].ids == (1,)
    assert search(apart.log(), torch.tensor([3]))[0][0].ids == (1, 1)


def test_an_utterance_ends_at_its_length_and_may_be_empty():
    log_probs = emissions(6, 3, 2, batch=2)
    short = BeamSearch(AB)(log_probs, torch.tensor([3, 0]))
    assert short[0] == BeamSearch(AB)(log_probs[:1, :3], torch.tensor([3]))[0]
    assert [(h.ids, h.log_prob) for h in short[1]] == [((), 0.0)]


def test_the_beam_and_the_threshold_drop_what_is_unlikely():
    log_probs = torch.tensor([[[0.1, 0.89, 0.01], [0.98, 0.01, 0.01]]]).log()
    search = BeamSearch(AB, beam=2)
    assert [h.ids for h in search(log_probs, torch.tensor([2]))[0]] == [(1,), ()]
    search = BeamSearch(AB, token_threshold=math.log(0.05))  # at the second frame none is likelier: both may begin
    assert {h.ids for h in search(log_probs, torch.tensor([2]))[0]} == {(), (1,), (2,), (1, 2)}


def test_a_prefix_that_drops_out_and_comes_back_is_still_one_prefix():
    for seed in range(20):  # in the last of these one comes back while what grew from it is in the beam
        log_probs = (3 * emissions(20, 3, seed)).log_softmax(-1)
        (found,) = BeamSearch(AB, beam=6)(log_probs, lengths(log_probs))
        assert len({h.ids for h in found}) == len(found) == 6


def test_a_space_is_charged_for_the_word_before_it_at_once():
    model, alphabet = estimate(["ab ab", "b"]), Alphabet(" ab")
    log_probs = torch.tensor([[[0.01, 0.01, 0.97, 0.01], [0.2, 0.43, 0.02, 0.35], [0.97, 0.01, 0.01, 0.01]]]).log()
    count = lengths(log_probs)
    assert BeamSearch(alphabet, beam=1)(log_probs, count)[0][0].ids == (2, 1)
    assert BeamSearch(alphabet, model, beam=1)(log_probs, count)[0][0].ids == (2, 3)  # "a" is no word


def test_a_language_model_changes_what_is_heard():
    model = estimate(["two cats", "two cats", "red hats"], order=2)
    alphabet = Alphabet.of(["two cats", "red hats"])
    log_probs = spoken("two cats", alphabet)
    at = 2 * "two cats".index("c")
    c, h = alphabet.encode("c")[0], alphabet.encode("h")[0]
    log_probs[0, at, [c, h]] = torch.tensor([0.4, 0.5]).log()  # an unclear consonant
    count = lengths(log_probs)
    assert alphabet.decode(BeamSearch(alphabet)(log_probs, count)[0][0].ids) == "two hats"
    assert alphabet.decode(BeamSearch(alphabet, model)(log_probs, count)[0][0].ids) == "two cats"
    assert alphabet.decode(BeamSearch(alphabet, model, alpha=0.0)(log_probs, count)[0][0].ids) == "two hats"


def test_a_score_is_of_ctc_of_the_words_of_their_number_and_of_unknown_characters():
    model = estimate(["a b", "b a a"], order=2)
    alphabet, log_probs = Alphabet(" ab"), emissions(5, 4, 3)
    search = BeamSearch(alphabet, model, alpha=0.7, beta=0.3, gamma=-0.2, beam=100_000, token_threshold=-math.inf)
    (found,) = search(log_probs, lengths(log_probs))
    assert len(found) == len(summed(log_probs[0]))
    for hypothesis in found:
        words = alphabet.decode(hypothesis.ids).split()
        unknown = sum(len(word) for word in words if word not in ("a", "b"))
        expected = hypothesis.log_prob + 0.7 * model.sentence(words) + 0.3 * len(words) - 0.2 * unknown
        assert hypothesis.score == pytest.approx(expected, abs=1e-9)


def test_words_are_not_run_together_to_be_one_unknown_word():
    text = "we measured the garden wall with a piece of yellow string"
    model, alphabet = estimate(SENTENCES, order=2), Alphabet.of(SENTENCES)
    log_probs = spoken(text, alphabet)
    for place in (place for place, character in enumerate(text) if character == " "):
        log_probs[0, 2 * place, [alphabet.space, *alphabet.encode("x")]] = torch.tensor([0.3, 0.3]).log()
    found = {
        gamma: BeamSearch(alphabet, model, alpha=1.0, beta=0.0, gamma=gamma)(log_probs, lengths(log_probs))[0][0]
        for gamma in (0.0, -1.0)
    }
    assert alphabet.decode(found[0.0].ids).endswith("measuredxthexgardenxwallxwithxaxpiecexofxyellowxstring")
    assert alphabet.decode(found[-1.0].ids) == text


# --- n-grams


@pytest.fixture
def model(tmp_path: Path) -> NGram:
    (tmp_path / "lm.arpa").write_text(ARPA)
    return read_arpa(tmp_path / "lm.arpa")


@pytest.mark.parametrize(
    ("words", "decimal"),
    [
        ("the cat", -0.2 - 0.05 - 0.6),  # <s> the | trigram | "the cat </s>" is unknown, no weight: cat </s>
        ("cat the", (-0.3 - 0.75) + (-0.125 - 0.5) + (-0.25 - 1.0)),  # every bigram backs off
        ("the dog cat", -0.2 + (-0.1 - 0.25 - 2.0) - 0.75 - 0.6),  # <unk> after both contexts' weights; it has none
        ("", -0.3 - 1.0),
    ],
)
def test_sentences_score_as_reckoned_by_hand(model, words, decimal):
    assert model.order == 3
    assert model.sentence(words.split()) == pytest.approx(decimal * math.log(10))


def test_a_state_is_no_more_words_than_matter(model):
    after_two, _ = model.score(model.score(model.start(), "the")[0], "cat")
    assert model.score(after_two, "cat")[0] == model.score("the cat", "cat")[0] == "cat cat"
    assert estimate(["a b"], order=1).score("", "a")[0] == ""


def test_a_compressed_file_reads_the_same(model, tmp_path):
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress(ARPA.encode()))
    again = read_arpa(tmp_path / "lm.arpa.gz")
    assert (again.log_probs, again.backoffs) == (model.log_probs, model.backoffs)


def test_of_words_that_differ_in_case_the_likeliest_counts(tmp_path):
    lines = ["\\data\\", "ngram 1=3", "\\1-grams:", "-2 May", "-1 may", "-3 MAY", "\\end\\"]
    (tmp_path / "lm.arpa").write_text("\n".join(lines))
    assert read_arpa(tmp_path / "lm.arpa").log_probs == {"may": pytest.approx(-math.log(10))}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[: text.index("\\3-grams")], "holds 8 n-grams of 9"),
        (lambda text: text.replace("-0.4\tThe cat", "-0.4\tThe"), "line 17 is no 2-gram"),
        (lambda text: text.replace("-0.5\tThe", "half\tThe"), "half"),
        (lambda text: "", "holds 0 n-grams"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path, change, reason):
    (tmp_path / "lm.arpa").write_text(change(ARPA))
    with pytest.raises(ConfigError, match=f"lm.arpa is no whole ARPA file: .*{reason}"):
        read_arpa(tmp_path / "lm.arpa")


def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_arpa(tmp_path / "none.arpa")
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress(ARPA.encode())[:-20])
    with pytest.raises(ConfigError, match="is no whole ARPA file"):
        read_arpa(tmp_path / "lm.arpa.gz")


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_an_estimated_model_sums_to_one_after_anything(order):
    model = estimate(SENTENCES[:6], order)
    assert model.order == order
    seen = [words[:end] for words in (text.split() for text in SENTENCES[:6]) for end in range(len(words) + 1)]
    unseen = [["dog"], ["the", "dog"], ["dog", "the"], ["the", "the", "the"], ["winter", "winter"]]
    for words in seen + unseen:
        state = model.start()
        for word in words:
            state, _ = model.score(state, word)
        probabilities = [math.exp(model.score(state, word)[1]) for word in model.vocabulary]
        assert math.fsum(probabilities) == pytest.approx(1.0, abs=1e-9)
        assert min(probabilities) > 0
        assert math.exp(model.finish(state)) == probabilities[model.vocabulary.index("</s>")]


def test_witten_and_bells_estimate_is_as_reckoned_by_hand():
    model = estimate(["a b", "a a"], order=2)
    # Words: a 3, b 1, </s> 2: six of three kinds; four words are possible, with <unk>.
    a, b, end, unknown = ((count + 3 * 0.25) / 9 for count in (3, 1, 2, 0))
    after_a = [(1 + 3 * a) / 6, (1 + 3 * b) / 6, (1 + 3 * end) / 6, 3 / 6 * unknown]  # a, b and </s> once each
    for word, probability in zip(["a", "b", "</s>", "zebra"], after_a, strict=True):
        assert math.exp(model.score("a", word)[1]) == pytest.approx(probability)
    assert math.exp(model.sentence(["a"])) == pytest.approx((2 + a) / 3 * after_a[2])


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_an_estimated_model_comes_back_from_its_file(tmp_path, name):
    model = estimate(SENTENCES)
    write_arpa(model, tmp_path / name)
    again = read_arpa(tmp_path / name)
    assert again.log_probs == pytest.approx(model.log_probs, abs=1e-6)
    assert again.backoffs == pytest.approx(model.backoffs, abs=1e-6)
    assert again.order == 3


def test_there_must_be_words_to_estimate_from():
    with pytest.raises(ConfigError, match="hold no word"):
        estimate(["", " "])


# --- error rates


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "characters"),
    [
        ("the cat sat", "the cat sat", (0, 3), (0, 11)),
        ("the cat sat", "the hat", (2, 3), (5, 11)),  # one wrong, one missing; c and four characters
        ("the cat", "the the cat", (1, 2), (4, 7)),
        ("the cat", "thecat", (2, 2), (1, 7)),
        ("the cat", "", (2, 2), (7, 7)),
        ("", "the cat", (2, 0), (7, 0)),
        ("", "", (0, 0), (0, 0)),
    ],
)
def test_errors_of_an_utterance_are_as_counted_by_hand(reference, hypothesis, words, characters):
    assert word_errors([reference], [hypothesis]) == [Errors(*words)]
    assert character_errors([reference], [hypothesis]) == [Errors(*characters)]


def test_the_overall_rate_weighs_utterances_by_their_length():
    errors = word_errors(["a b c d e f g h", "x", ""], ["a b c d e f g h", "y", "z"])
    assert [error.rate for error in errors] == [0.0, 1.0, 1.0]
    assert total(errors) == Errors(2, 9)
    assert total(errors).rate == pytest.approx(2 / 9)
