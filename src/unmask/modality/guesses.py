"""Hidden tokens and what a model would put in their place, as lines to read."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

WIDTH, COLUMN, INDENT = 100, 22, "  "  # characters


class Guess(NamedTuple):
    """A hidden token and the likeliest ones for its place.

    Attributes:
        hidden: what stood there, as its text alone.
        likeliest: (text, probability) of each, the likeliest first.
        right: which of them stood there; None for none. Texts do not tell: parts of characters have the same.
    """

    hidden: str
    likeliest: Sequence[tuple[str, float]]
    right: int | None


def guesses(name: str, pieces: Sequence[str], places: Sequence[int], made: Sequence[Guess]) -> str:
    """A text with its hidden tokens numbered, and below it a line for each: what it was, what it was taken for.

    Args:
        name: of the text.
        pieces: what each token adds to it.
        places: which of them are hidden, ascending.
        made: the guesses at these places.
    """
    numbers = {place: number for number, place in enumerate(places, 1)}
    marked = []
    for index, piece in enumerate(pieces):
        if index in numbers:
            bare = piece.lstrip(" ")
            piece = f"{piece[: len(piece) - len(bare)]}[{numbers[index]} {bare}]"
        marked.append(piece.replace("\n", "\\n"))
    first = sum(guess.right == 0 for guess in made)
    any_ = sum(guess.right is not None for guess in made)
    head = f"{name}: {len(made)} of {len(pieces)} tokens hidden; {first} right (*), {any_} among the likeliest"
    text = textwrap.fill(
        "".join(marked), WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False
    )
    lines = [_line(number, guess) for number, guess in enumerate(made, 1)]
    return "\n".join([head, "", text, "", *lines, ""])


def _line(number: int, guess: Guess) -> str:
    cells = [
        f"{_shown(text)} {share:.0%}{'*' if index == guess.right else ''}"
        for index, (text, share) in enumerate(guess.likeliest)
    ]
    return "".join(f"{cell:<{COLUMN}}" for cell in (f"{number:>4}  {_shown(guess.hidden)}", *cells)).rstrip()


def _shown(text: str) -> str:
    """A token's text on one line; a space that begins a word is SentencePiece's mark of one."""
    return (f"\u2581{text[1:]}" if text.startswith(" ") else text).replace("\n", "\\n")
