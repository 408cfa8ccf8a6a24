"""Times, metrics and values as people read them."""

import json
import re
import shlex
from collections.abc import Iterable
from datetime import datetime
from typing import Any

NOTHING = "\N{EN DASH}"  # stands where there is no value


def when(started: float) -> str:
    """Of seconds since 1970 the local time."""
    return f"{datetime.fromtimestamp(started):%Y-%m-%d %H:%M}" if started else NOTHING


def lasting(seconds: float | None) -> str:
    """`42 s`, `3 min 5 s`, `2 h 7 min`."""
    if seconds is None:
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def command(words: Iterable[str]) -> str:
    """Words of a command line as one line for a shell, which reads the same words out of it."""
    return " ".join(f'"{w}"' if "'" in w and not re.search(r'["$`!\\]', w) else shlex.quote(w) for w in words)


def plain(value: Any) -> str:
    """A value of a config."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def shown(name: str | None, value: float | None) -> str:
    """A metric as people write it: shares of the right answers in per cent."""
    if value is None or name is None:
        return NOTHING
    if name.endswith(("accuracy", "macro_f1", "wer", "cer", "map")) and abs(value) <= 10:
        return f"{100 * value:.1f} %"
    return f"{value:.4g}"
