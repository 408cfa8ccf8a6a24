"""The command line: see `unmask.report`."""

import sys
from pathlib import Path

from unmask.errors import ConfigError
from unmask.report import write


def main(words: list[str]) -> None:
    """Write the report of each folder, print where."""
    if not words:
        raise ConfigError("Give the folder of a run or a sweep: python -m unmask.report FOLDER...")
    for word in words:
        print(write(Path(word)))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ConfigError, OSError) as error:
        sys.exit(f"error: {error}")
