"""Back-off n-gram models of words: read from and written to ARPA files, estimated from transcripts."""

import gzip
import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from unmask.errors import ConfigError
from unmask.files import written_whole

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
_DECIMAL = math.log(10)  # ARPA files hold decimal logarithms
_HEADER, _TITLE = re.compile(r"ngram\s+\d+\s*=\s*(\d+)"), re.compile(r"\\(\d+)-grams:")
_NEVER = -99 * _DECIMAL  # the format's word for a probability of zero: that of <s>, and of <unk> where there is none


class NGram:
    """Log-probability of a word after others, natural: of the longest n-gram that is known, or backed off.

    ln P(w | h) is that of the n-gram `h w` if it is known, else the back-off weight of h and ln P(w | h without its
    first word). A state is the last words, joined by spaces.

    Args:
        log_probs: natural logarithms by n-gram, words joined by spaces, with </s> and, as a rule, <unk>.
        backoffs: natural logarithms by context; 0 where it is missing.
    """

    def __init__(self, log_probs: dict[str, float], backoffs: dict[str, float]) -> None:
        self.log_probs, self.backoffs = log_probs, backoffs
        self.order = 1 + max((ngram.count(" ") for ngram in log_probs), default=0)

    @property
    def vocabulary(self) -> list[str]:
        """What may come next: words, </s> and <unk>."""
        return [ngram for ngram in self.log_probs if " " not in ngram and ngram != BEGIN]

    def start(self) -> str:
        """State at the beginning of a sentence."""
        return BEGIN if self.order > 1 else ""

    def score(self, state: str, word: str) -> tuple[str, float]:
        """State after a word, and the word's log-probability; a word that is not known counts as <unk>."""
        word = word if word in self.log_probs else UNKNOWN
        after = f"{state} {word}".lstrip()
        if after.count(" ") >= self.order - 1:
            after = after.partition(" ")[2]
        return after, self._log_prob(state, word)

    def finish(self, state: str) -> float:
        """Log-probability that the sentence ends here."""
        return self._log_prob(state, END)

    def sentence(self, words: Sequence[str]) -> float:
        """Log-probability of a whole sentence, with its end."""
        state, total = self.start(), 0.0
        for word in words:
            state, log_prob = self.score(state, word)
            total += log_prob
        return total + self.finish(state)

    def _log_prob(self, context: str, word: str) -> float:
        backed_off = 0.0
        while context:
            known = self.log_probs.get(f"{context} {word}")
            if known is not None:
                return backed_off + known
            backed_off += self.backoffs.get(context, 0.0)
            context = context.partition(" ")[2]
        return backed_off + self.log_probs.get(word, _NEVER)


def estimate(transcripts: Iterable[str], order: int = 3) -> NGram:
    """Witten-Bell's model (IEEE Trans. Inf. Theory 37(4), 1991), which needs no tuning and suits little text.

    After h, seen c(h) times and followed by t(h) different words, P(w | h) = (c(h w) + t(h) P(w | h')) / (c(h) + t(h)),
    h' without the first word of h, and at last one over the vocabulary. So a word that never followed h has the share
    t(h) / (c(h) + t(h)) of its probability after h': as a back-off model it is the same and sums to one exactly.

    Args:
        transcripts: normalised; a word is what stands between spaces.
        order: words that an n-gram has at most.

    Raises:
        ConfigError: there are no words.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by context, shorter ones first
    sentences = [words for words in (text.split() for text in transcripts) if words]
    if not sentences:
        raise ConfigError("The training transcripts hold no word to estimate a language model from. Add transcripts.")
    for size in range(order):
        for words in sentences:
            padded = [BEGIN, *words, END]
            for place in range(max(size, 1), len(padded)):
                counts[" ".join(padded[place - size : place])][padded[place]] += 1

    log_probs, backoffs = {BEGIN: _NEVER}, dict[str, float]()
    counts[""][UNKNOWN] = 0
    for context, following in counts.items():
        seen, kinds = following.total(), sum(count > 0 for count in following.values())
        for word, count in following.items():
            shorter = context.partition(" ")[2]
            lower = math.exp(log_probs[f"{shorter} {word}".strip()]) if context else 1 / len(following)
            log_probs[f"{context} {word}".strip()] = math.log((count + kinds * lower) / (seen + kinds))
        if context:
            backoffs[context] = math.log(kinds / (seen + kinds))
    return NGram(log_probs, backoffs)


def write_arpa(model: NGram, path: Path) -> None:
    """Write an ARPA file, compressed if its name ends in .gz."""
    sizes: list[list[str]] = [[] for _ in range(model.order)]
    for ngram in sorted(model.log_probs):
        sizes[ngram.count(" ")].append(ngram)
    lines = ["\\data\\", *(f"ngram {size}={len(ngrams)}" for size, ngrams in enumerate(sizes, start=1)), ""]
    for size, ngrams in enumerate(sizes, start=1):
        lines.append(f"\\{size}-grams:")
        for ngram in ngrams:
            columns = [f"{model.log_probs[ngram] / _DECIMAL:.7f}", ngram]
            if ngram in model.backoffs:
                columns.append(f"{model.backoffs[ngram] / _DECIMAL:.7f}")
            lines.append("\t".join(columns))
        lines.append("")
    text = "\n".join([*lines, "\\end\\", ""]).encode()
    with written_whole(path) as aside:
        aside.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def read_arpa(path: str | Path) -> NGram:
    """Read an ARPA file, plain or .gz.

    Words become small letters, as those of transcripts do; of n-grams that are then the same the likeliest counts.

    A million n-grams take some 150 MB.

    Raises:
        ConfigError: it cannot be read, or is not a whole ARPA file.
    """
    opened = gzip.open if str(path).endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            return _parse(lines)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"The language model {path} is no whole ARPA file: {reason}. Give one, or none.") from error


def _parse(lines: Iterable[str]) -> NGram:
    """The model in the lines of an ARPA file; ValueError says what is wrong with them."""
    log_probs, backoffs = dict[str, float](), dict[str, float]()
    promised, found, size = 0, 0, 0
    for number, line in enumerate(lines, start=1):
        words = line.lower().split()
        if not words or line.startswith("\\data\\"):
            continue
        if words[0] == "\\end\\":
            break
        if title := _TITLE.match(line):
            size = int(title[1])
        elif size == 0:
            header = _HEADER.match(line)
            promised += int(header[1]) if header else 0
        else:
            if len(words) - size not in (1, 2):
                raise ValueError(f"line {number} is no {size}-gram between a probability and a back-off weight")
            ngram, found = " ".join(words[1 : size + 1]), found + 1
            log_probs[ngram] = max(float(words[0]) * _DECIMAL, log_probs.get(ngram, _NEVER))
            if len(words) - size == 2:
                backoffs[ngram] = float(words[-1]) * _DECIMAL
    if found != promised or not found:
        raise ValueError(f"it holds {found} n-grams of {promised}")
    return NGram(log_probs, backoffs)
