"""Word and character error rates: substitutions, deletions and insertions over the length of what was said."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unmask.errors import ConfigError

try:
    import jiwer
except ImportError as error:
    raise ConfigError("Error rates need jiwer, which is not installed. Run `pip install 'unmask[speech]'`.") from error


class Errors(NamedTuple):
    """How far hypotheses are from their references.

    Attributes:
        edits: least number of substitutions, deletions and insertions.
        length: words or characters of the references.
    """

    edits: int
    length: int

    @property
    def rate(self) -> float:
        """Edits over length, above one where much is inserted; without a reference, their number."""
        return self.edits / max(self.length, 1)


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> list[Errors]:
    """Errors of each utterance in words, which stand between spaces."""
    return _errors(jiwer.process_words(list(references), list(hypotheses)))


def character_errors(references: Sequence[str], hypotheses: Sequence[str]) -> list[Errors]:
    """Errors of each utterance in characters, of which the space between two words is one."""
    return _errors(jiwer.process_characters(list(references), list(hypotheses)))


def total(errors: Iterable[Errors]) -> Errors:
    """Errors of all utterances together: its rate weighs them by their length, as published rates do."""
    edits, lengths = zip(*errors, strict=True)
    return Errors(sum(edits), sum(lengths))


def _errors(output: jiwer.WordOutput | jiwer.CharacterOutput) -> list[Errors]:
    edits = (
        sum(max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx) for c in chunks if c.type != "equal")
        for chunks in output.alignments
    )
    return [Errors(count, len(reference)) for count, reference in zip(edits, output.references, strict=True)]
