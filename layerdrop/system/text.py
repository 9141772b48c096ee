"""Short texts for a line of a terminal or a table."""

import re
import textwrap
from pathlib import Path

ELLIPSIS = "…"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, separators of lines, and changes of the direction of writing."""
MARKUP = re.compile(r"[\\`*<>|\[\]]")
"""Characters that are markup within a line of Markdown."""
FORMULA = re.compile(r"[=+@\t\r]|-(?![\d.,]*$)")
"""Beginning of a text that spreadsheets execute. A negative number is not a formula."""
GENERIC = re.compile(r"model|checkpoint(-\d+)?|export", re.IGNORECASE)
"""Generic folder names, which do not identify a model."""


def one_line(text: str | None, width: int | None = None) -> str:
    """Join a text into one line with single blanks. None gives an empty line.

    width: cut a longer text between two words, with an ellipsis at the end. A first word that is too long is cut.
    """
    line = " ".join((text or "").split())
    if width is None or len(line) <= width:
        return line
    short = textwrap.shorten(line, width, placeholder=ELLIPSIS, break_on_hyphens=False)
    return short if short != ELLIPSIS else line[: width - len(ELLIPSIS)] + ELLIPSIS


def cut_middle(line: str, width: int = 2000) -> str:
    """Replace the middle of a line longer than `width` by an ellipsis: a message ends with its advice."""
    half = (width - len(ELLIPSIS)) // 2
    return line if len(line) <= width else f"{line[:half]}{ELLIPSIS}{line[-half:]}"


def printable(text: str) -> str:
    """Replace control characters other than line ends and tabs, which could command a terminal, by their escapes."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def markdown(text: str, code: bool = False) -> str:
    """A text as one line of Markdown without markup. code: for a code span between backticks."""
    line = printable(one_line(text))
    return line.replace("`", "'") if code else MARKUP.sub(r"\\\g<0>", line)


def csv_cell(value: object) -> object:
    """A cell that a spreadsheet shows as text: an apostrophe precedes a text that would be a formula."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def names_in(text: str | None) -> tuple[str, ...]:
    """`a, b` -> ("a", "b"). Empty for None and for blanks."""
    return tuple(name.strip() for name in text.split(",")) if text and text.strip() else ()


def short_name(path: str) -> str:
    """Name of a model for folders and tables: the last part of its path or hub name.

    If the last part is generic, the name includes the part before it: `mpnet_rte/model` gives `mpnet_rte_model`.
    """
    folder = Path(path)
    if folder.name in ("", ".."):
        folder = folder.resolve()
    before = folder.parent.name if GENERIC.fullmatch(folder.name) else ""
    return f"{before}_{folder.name}" if before not in ("", "..") else folder.name or "model"
