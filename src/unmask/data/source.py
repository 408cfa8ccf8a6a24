"""What every data source offers."""

from typing import Protocol

from unmask.errors import BrokenSample
from unmask.schema import Label, Sample


class Source(Protocol):
    """A finite collection of samples, readable in any order from any process.

    Attributes:
        classes: names of the labels 0, 1, ...; empty without labels.
    """

    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """One sample.

        Raises:
            BrokenSample: it cannot be read.
        """
        ...


def label_of(source: Source, index: int) -> Label | None:
    """A sample's label, without reading the sample where the source can tell; None too where it cannot be read."""
    if hasattr(source, "label"):
        known: Label | None = source.label(index)
        return known
    try:
        return source[index].label
    except BrokenSample:
        return None
