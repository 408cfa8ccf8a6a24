"""Pairs of WordNet's glosses: is the second a more general kind of the first?"""

import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from unmask.address import address
from unmask.data.folder import check_split
from unmask.data.labelled_texts import Row, Rows
from unmask.data.table_file import read_table
from unmask.errors import ConfigError

FILE = "nouns.tsv"  # what scripts/fetch_wordnet.sh writes


class Synset(NamedTuple):
    """A noun's sense."""

    category: str
    split: str  # train, test, or nothing where another synset has the same gloss
    above: tuple[str, ...]  # hypernyms
    gloss: str


class WordNetPairs(Rows):
    """Each noun's gloss twice: with that of a hypernym (`yes`), and of another noun's hypernym that is none of its
    ancestors, of the same category (`no`).

    Second sentences are drawn from the same pool for both answers, so that alone they tell nothing. Both synsets of a
    pair are of its split, so no gloss is in both.

    Args:
        root: the folder of `make data-wordnet`.
        seed: draws.

    Raises:
        ConfigError: it is not there.
    """

    classes = ("no", "yes")

    def __init__(self, root: str | Path, seed: int = 0) -> None:
        self._path, self._seed = Path(root).expanduser() / FILE, seed
        if not self._path.is_file():
            raise ConfigError(f"data.root={root}: there is no {FILE}. Run `make data-wordnet`, which fetches it.")

    def rows(self, split: str) -> Iterator[Row]:
        """The pairs, noun by noun."""
        check_split(split)
        pool: dict[str, list[str]] = {}  # of each category, the hypernyms of its nouns, as often as they are one
        mine = {key: synset for key, synset in self._synsets.items() if synset.split == split}
        for synset in mine.values():
            pool.setdefault(synset.category, []).extend(above for above in synset.above if above in mine)
        for key, synset in mine.items():
            above = next((above for above in synset.above if above in mine), None)
            other = above and self._other(key, pool[synset.category])
            if above and other:
                yield Row(synset.gloss, mine[above].gloss, 1)
                yield Row(synset.gloss, mine[other].gloss, 0)

    def fingerprint(self) -> str:
        """The size and time of the file."""
        stat = self._path.stat()
        return repr((FILE, stat.st_size, stat.st_mtime_ns, self._seed))

    def _other(self, key: str, pool: list[str]) -> str | None:
        """One of the pool that is neither the noun itself nor above it; None if a few draws find none."""
        above, draws = self._ancestors(key), random.Random(address(self._seed, "pairs", int(key)))
        return next((other for other in draws.choices(pool, k=20) if other not in above), None)

    def _ancestors(self, key: str) -> set[str]:
        found, left = set[str](), [key]
        while left:
            key = left.pop()
            if key not in found:
                found.add(key)
                left += self._synsets[key].above
        return found

    @cached_property
    def _synsets(self) -> dict[str, Synset]:
        _, rows = read_table(self._path, header=True)
        return {
            row["synset"]: Synset(row["category"], row["split"], tuple(row["hypernyms"].split()), row["gloss"])
            for _, row in rows
        }
