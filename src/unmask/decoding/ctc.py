"""Read CTC's log-probabilities: the best path, or a beam search that sums paths and asks a language model."""

from collections.abc import Collection
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from unmask.decoding.alphabet import BLANK, Alphabet


class LanguageModel(Protocol):
    """Scores words in order, in natural logarithms. A state says which words came before.

    Attributes:
        vocabulary: words that it knows; it may hold others that no one says, such as <unk>.
    """

    @property
    def vocabulary(self) -> Collection[str]: ...

    def start(self) -> str:
        """State at the beginning of a sentence."""
        ...

    def score(self, state: str, word: str) -> tuple[str, float]:
        """State after a word, and the word's log-probability."""
        ...

    def finish(self, state: str) -> float:
        """Log-probability that the sentence ends here."""
        ...


class Hypothesis(NamedTuple):
    """What may have been said.

    Attributes:
        ids: characters, without blanks.
        log_prob: natural logarithm of the sum over those of its alignments that stayed in the beam.
        score: what hypotheses are ranked by: `log_prob` and what the language model and the word bonus add.
    """

    ids: tuple[int, ...]
    log_prob: float
    score: float


def greedy(log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
    """Best path (Graves et al., ICML 2006): the likeliest class of every frame, repetitions merged, blanks dropped.

    Args:
        log_probs: (B, T, C); class 0 is the blank.
        lengths: (B,) frames that count.

    Returns:
        Ids of B utterances.
    """
    paths = log_probs.argmax(-1).cpu()
    merged = (path[:length].unique_consecutive() for path, length in zip(paths, lengths.tolist(), strict=True))
    return [path[path != BLANK].tolist() for path in merged]


class _Prefix:
    """A node of the tree of prefixes.

    Attributes:
        word: the unfinished one at its end.
        state: of the language model, after the whole words.
        extra: what these add to the score.
        next_state: of the language model, were the unfinished word whole.
        next_extra: what that would add.
        owed: how much of it is certain, because no known word begins so.
    """

    __slots__ = ("children", "extra", "last", "next_extra", "next_state", "owed", "parent", "state", "word")

    def __init__(self, parent: "_Prefix | None", last: int, word: str, state: str, extra: float) -> None:
        self.parent, self.last, self.children = parent, last, dict[int, _Prefix]()
        self.word, self.state, self.extra = word, state, extra
        self.next_state, self.next_extra, self.owed = state, 0.0, 0.0

    def ids(self) -> tuple[int, ...]:
        """All its characters."""
        found, node = [], self
        while node.parent is not None:
            found.append(node.last)
            node = node.parent
        return tuple(reversed(found))


class BeamSearch:
    """Prefix beam search (arXiv 1408.2873), with a model of words asked at each space and at the end.

    Alignments that spell the same prefix are summed; those that end in a blank are kept apart, since only after one
    does a repeated character count twice. A hypothesis of n words, of which those unknown to the language model have
    u characters, scores ln P_ctc + alpha ln P_lm + beta n + gamma u.

    Args:
        alphabet: of the log-probabilities; without a space in it, an utterance is one word.
        lm: None for CTC alone, without the terms beside it.
        alpha: weight of the language model, for natural logarithms.
        beta: bonus for a word; without one a language model prefers few.
        gamma: what a character of an unknown word costs, below zero; without a cost, words run together into one
            unknown word, which the language model is asked for once.
        beam: prefixes kept after a frame.
        token_threshold: a character whose log-probability at a frame is smaller begins no new prefix there, unless
            none is likelier; -inf to try all.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        lm: LanguageModel | None = None,
        alpha: float = 0.5,
        beta: float = 2.0,
        gamma: float = -1.0,
        beam: int = 50,
        token_threshold: float = -10.0,
    ) -> None:
        self.alphabet, self.lm = alphabet, lm
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.beam, self.token_threshold = beam, token_threshold
        self._words = frozenset(lm.vocabulary) if lm else frozenset()
        self._beginnings = {word[:end] for word in self._words for end in range(1, len(word) + 1)}

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """Hypotheses of B utterances, the best first, at most `beam` of each.

        Args:
            log_probs: (B, T, C) natural logarithms; class 0 is the blank.
            lengths: (B,) frames that count.
        """
        utterances = log_probs.detach().double().cpu().numpy()
        return [self._search(frames[:length]) for frames, length in zip(utterances, lengths.tolist(), strict=True)]

    def _search(self, frames: np.ndarray) -> list[Hypothesis]:
        """Go through (T, C) log-probabilities frame by frame, with all K prefixes at once."""
        prefixes = [_Prefix(None, BLANK, "", self.lm.start() if self.lm else "", 0.0)]
        blank, other = np.zeros(1), np.full(1, -np.inf)  # (K,) sums over alignments that end in a blank, in a character
        for frame in frames:
            both, last = np.logaddexp(blank, other), np.array([prefix.last for prefix in prefixes])
            tokens = self._tokens(frame)  # (V,)
            grown = np.where(last[:, None] == tokens, blank[:, None], both[:, None]) + frame[tokens]  # (K, V)
            stay_blank, stay_other = both + frame[BLANK], other + frame[last]
            row = {id(prefix): k for k, prefix in enumerate(prefixes)}
            for child, prefix in enumerate(prefixes):
                parent = row.get(id(prefix.parent))
                if parent is not None:  # both are in the beam: what grows into the child is added to it
                    before = blank[parent] if last[parent] == last[child] else both[parent]
                    stay_other[child] = np.logaddexp(stay_other[child], before + frame[last[child]])
                    grown[parent, tokens == last[child]] = -np.inf

            unfinished = np.array([prefix.extra + prefix.owed for prefix in prefixes])
            finished = np.array([prefix.extra + prefix.next_extra for prefix in prefixes])
            added = np.where(tokens == self.alphabet.space, finished[:, None], unfinished[:, None])
            ranks = np.concatenate([np.logaddexp(stay_blank, stay_other) + unfinished, (grown + added).ravel()])
            best = np.argsort(-ranks, kind="stable")[: self.beam]
            best = best[ranks[best] > -np.inf]
            stays = best[best < len(prefixes)]
            parents, columns = np.divmod(best[best >= len(prefixes)] - len(prefixes), len(tokens))
            blank = np.concatenate([stay_blank[stays], np.full(len(parents), -np.inf)])
            other = np.concatenate([stay_other[stays], grown[parents, columns]])
            new = [self._grow(prefixes[k], token) for k, token in zip(parents, tokens[columns].tolist(), strict=True)]
            prefixes = [prefixes[k] for k in stays] + new
        log_probs = np.logaddexp(blank, other).tolist()
        found = [Hypothesis(p.ids(), value, value + self._end(p)) for p, value in zip(prefixes, log_probs, strict=True)]
        return sorted(found, key=lambda hypothesis: -hypothesis.score)

    def _tokens(self, frame: np.ndarray) -> np.ndarray:
        """Characters that may begin a new prefix."""
        characters = frame[BLANK + 1 :]
        return np.flatnonzero(characters >= min(self.token_threshold, characters.max())) + BLANK + 1

    def _grow(self, prefix: _Prefix, token: int) -> _Prefix:
        """The prefix and one more character."""
        if token in prefix.children:
            return prefix.children[token]
        if token == self.alphabet.space:
            child = _Prefix(prefix, token, "", prefix.next_state, prefix.extra + prefix.next_extra)
        else:
            word = prefix.word + self.alphabet.characters[token - 1]
            child = _Prefix(prefix, token, word, prefix.state, prefix.extra)
            if self.lm is not None:
                child.next_state, log_prob = self.lm.score(prefix.state, word)
                unknown = 0 if word in self._words else len(word)
                child.next_extra = self.alpha * log_prob + self.beta + self.gamma * unknown
                child.owed = 0.0 if word in self._beginnings else child.next_extra
        prefix.children[token] = child
        return child

    def _end(self, prefix: _Prefix) -> float:
        """What the language model and the word bonus add to a whole utterance."""
        end = self.alpha * self.lm.finish(prefix.next_state) if self.lm is not None else 0.0
        return prefix.extra + prefix.next_extra + end
