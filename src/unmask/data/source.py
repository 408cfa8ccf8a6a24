"""What every data source offers."""

from typing import Protocol

from unmask.schema import Sample


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
