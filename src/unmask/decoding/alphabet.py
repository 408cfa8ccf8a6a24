"""Characters as numbers for CTC, from the transcripts of the training set."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unmask.errors import ConfigError

BLANK = 0  # the id that says nothing: characters begin after it
_KEPT = ("L", "M", "Nd")  # Unicode's letters, the marks on them (vowels, in Indic scripts), decimal digits


def normalise(text: str, punctuation: bool = False) -> str:
    """Small letters, digits and apostrophes, one space between words: what a transcript is reduced to.

    Characters are composed (NFC), a typographic apostrophe becomes the plain one, and all else becomes a space, so
    that `well-known` is two words.

    Args:
        text: anything.
        punctuation: keep all else, too, as it stands.
    """
    text = unicodedata.normalize("NFC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower()
    if not punctuation:
        text = "".join(c if c == "'" or unicodedata.category(c).startswith(_KEPT) else " " for c in text)
    return " ".join(text.split())


@dataclass(frozen=True)
class Alphabet:
    """Ids of characters: 0 is CTC's blank, then those of `characters` in order. `dataclasses.asdict` is plain JSON.

    Args:
        characters: each once; a space among them if there are transcripts of more than one word.
        punctuation: as in `normalise`, which every text to be encoded goes through.
    """

    characters: str
    punctuation: bool = False

    @classmethod
    def of(cls, transcripts: Iterable[str], punctuation: bool = False) -> "Alphabet":
        """The characters of normalised transcripts, sorted.

        Raises:
            ConfigError: there are none.
        """
        found = set().union(*(normalise(text, punctuation) for text in transcripts))
        if not found:
            raise ConfigError("The training transcripts hold no letter. CTC needs clips with transcripts: add them.")
        return cls("".join(sorted(found)), punctuation)

    def __len__(self) -> int:
        """Classes that a CTC head tells apart: the characters and the blank."""
        return len(self.characters) + 1

    @property
    def space(self) -> int | None:
        """Id of the space between words, if there is one."""
        return self.characters.index(" ") + 1 if " " in self.characters else None

    def encode(self, text: str) -> list[int]:
        """Ids of a normalised transcript, without blanks.

        Raises:
            ConfigError: a character did not occur in the training transcripts.
        """
        ids = {character: number for number, character in enumerate(self.characters, start=1)}
        normal = normalise(text, self.punctuation)
        unseen = next((character for character in normal if character not in ids), None)
        if unseen is not None:
            raise ConfigError(
                f"The transcript {text!r} holds {unseen!r}, which no training transcript does, so it cannot be "
                "learnt. Leave the clip out, spell it otherwise, or train on transcripts that hold it."
            )
        return [ids[character] for character in normal]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without blanks; spaces at the ends and double ones, which a decoder may give, are dropped."""
        return " ".join("".join(self.characters[number - 1] for number in ids).split())
