"""An HTML page as a browser's parser sees it: what it refers to, its tables, its charts, its words."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        references: (tag, address) of everything that a browser would fetch, or go to.
        scripts: the text of each script that runs.
        charts: by title what is drawn.
        tables: rows of the cells' words, by the id or class of the table.
        words: all text that is shown.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.charts: dict[str, dict[str, Any]] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.text: list[str] = []
        self.handlers: list[str] = []
        self._table = ""
        self._within: str | None = None
        self.feed(path.read_text())
        self.words = _plain(" ".join(self.text))
        self.tables = {name: [[_plain(cell) for cell in row] for row in rows] for name, rows in self.tables.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.references += [(tag, given[name]) for name in ("src", "href", "srcset", "poster", "data") if name in given]
        self.handlers += [name for name in given if name.startswith("on")]
        if tag == "table":
            self._table = given.get("id") or given.get("class", "")
            self.tables.setdefault(self._table, [])
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
            self._within = "cell"
        elif tag == "script":
            self._within = "json" if given.get("type") == "application/json" else "script"
        elif tag == "style":
            self._within = "style"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "script", "style"):
            self._within = None

    def handle_data(self, data: str) -> None:
        if self._within == "json":
            chart = json.loads(data)
            self.charts[chart["title"]] = chart
        elif self._within == "script":
            self.scripts.append(data)
        elif self._within != "style":
            self.text.append(data)
            if self._within == "cell":
                self.tables[self._table][-1][-1] += data


def _plain(text: str) -> str:
    return " ".join(text.split())
