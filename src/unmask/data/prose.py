"""English prose out of Python sources: docstrings without their code, tables and markup."""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator

FEWEST_WORDS = 20  # shorter paragraphs are mostly headings and "See also"
PLAIN_SHARE = 0.8  # of a paragraph's words; the rest may be names, numbers, formulas

_PLAIN = re.compile(r"""["'(]*[A-Za-z]+(?:['/-][A-Za-z]+)*[.,;:!?)'"]*""")
_ITEM = re.compile(r"(?:[-*+•]|\d{1,2}[.)]|\([a-z\d]\)) +(.*)")
_FIELD = re.compile(r"(?::\w+(?: [^:]*)?:|\*{0,2}[\w.]+(?: ?\([^)]*\))?:) +(.*)")  # Sphinx's and Google's
_NUMPY_FIELD = re.compile(r"[\w*.,'`{} -]+ : .*")
_SECTION = re.compile(r"[A-Z]\w*(?: \w+)?:")  # Google's `Args:`
_RULE = re.compile(r"""([=\-~^#*"'+.`])\1{2,}""")
_TABLE = re.compile(r"[+|].*|[=-]+( +[=-]+)+")
_DIRECTIVE = re.compile(r"\.\. (\w[\w:-]*)::")
_PROSE_DIRECTIVES = ("note", "warning", "tip", "hint", "important", "attention", "caution", "admonition")

_MARKUP = (
    (re.compile(r":[A-Za-z][\w:+-]*:`~(?:[^`<]*\.)?([^`<.]+)`"), r"\1"),  # :func:`~package.name`
    (re.compile(r":[A-Za-z][\w:+-]*:`!?([^`<]+?)(?: *<[^`]*>)?`"), r"\1"),  # :func:`name`, :ref:`title <target>`
    (re.compile(r"`([^`<]+?) *<[^`>]+>`_{1,2}"), r"\1"),  # `title <address>`_
    (re.compile(r"\[([^\]]+)\]\([^)\s]+\)"), r"\1"),  # [title](address)
    (re.compile(r" ?\[[\w-]+\]_"), ""),  # footnotes
    (re.compile(r"``(.+?)``"), r"\1"),
    (re.compile(r"`([^`]+)`_{0,2}"), r"\1"),
    (re.compile(r"\*\*(\S[^*]*)\*\*"), r"\1"),
    (re.compile(r"(?<!\w)\*(\S[^*]*)\*(?!\w)"), r"\1"),
    (re.compile(r"::$"), ":"),
    (re.compile(r"\s+"), " "),
)


def docstrings(source: bytes) -> Iterator[str]:
    """Strings that stand as statements, and those given to functions such as `add_docstring`; the code is not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's escapes
            tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a template, or a test of the parser
        return
    for node in _statements(tree):
        if not isinstance(node, ast.Expr):
            continue
        if isinstance(node.value, ast.Constant):
            parts: Iterator[ast.AST] = iter((node.value,))
        elif isinstance(node.value, ast.Call) and "doc" in ast.unparse(node.value.func):
            parts = ast.walk(node.value)
        else:
            continue
        yield from (part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All statements below a node, in order; faster by far than `ast.walk`, which visits expressions too."""
    for name in ("body", "handlers", "orelse", "finalbody"):
        for child in getattr(node, name, ()):
            yield child
            yield from _statements(child)


def paragraphs(docstring: str) -> list[str]:
    """The paragraphs of prose, each on one line: no examples, tables, formulas, headings, markup."""
    reader = _Reader()
    for line in inspect.cleandoc(docstring).splitlines():
        reader.read(line)
    reader.end_paragraph()
    return reader.found


class _Reader:
    """Line by line; a paragraph ends at an empty line, another indentation, or the next item of a list."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._lines: list[str] = []
        self._indent = 0
        self._hanging = False  # the line before began an item, whose other lines are indented
        self._literal: int | None = None  # lines indented deeper than this are no prose
        self._until: str | None = None  # how a passage of code ends: an empty line, or a fence

    def read(self, line: str) -> None:
        """Take one line."""
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if self._until is not None:
            if text.startswith(self._until) if self._until else not text:
                self._until = None
            return
        if not text:
            self.end_paragraph()
            return
        if self._literal is not None and indent > self._literal:
            return
        self._literal = None
        if text.startswith((">>>", "```")):
            self._until = "" if text.startswith(">>>") else "```"
            self.end_paragraph()
        elif text.startswith(".. "):
            self.end_paragraph()
            directive = _DIRECTIVE.match(text)
            if directive is None or directive[1] not in _PROSE_DIRECTIVES:
                self._literal = indent
        elif _RULE.fullmatch(text) or _TABLE.fullmatch(text):
            self._lines.clear()  # a heading, or the head of a table
        elif item := _ITEM.match(text) or _FIELD.match(text):
            self.end_paragraph()
            self._lines, self._indent, self._hanging = [item[1]], indent, True
        elif _NUMPY_FIELD.fullmatch(text) or _SECTION.fullmatch(text):
            self.end_paragraph()
        else:
            self._continue(text, indent)

    def _continue(self, text: str, indent: int) -> None:
        deeper = indent > self._indent
        if self._lines and (deeper != self._hanging or indent < self._indent):
            self.end_paragraph()
        self._lines.append(text)
        self._indent, self._hanging = indent, False

    def end_paragraph(self) -> None:
        """Keep what was read, if it is prose."""
        text = " ".join(self._lines)
        if text.endswith("::"):
            self._literal = self._indent
        self._lines, self._hanging = [], False
        for pattern, replacement in _MARKUP:
            text = pattern.sub(replacement, text)
        words = text.split()
        if len(words) >= FEWEST_WORDS and sum(_PLAIN.fullmatch(w) is not None for w in words) >= PLAIN_SHARE * len(
            words
        ):
            self.found.append(text)
