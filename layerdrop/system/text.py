"""Short texts for a line of a terminal or a table."""

import re
import textwrap
from pathlib import Path

ELLIPSIS = "…"
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


def names_in(text: str | None) -> tuple[str, ...]:
    """`a, b` -> ("a", "b"). Empty for None."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def short_name(path: str) -> str:
    """Name of a model for folders and tables: the last part of its path or hub name.

    If the last part is generic, the name includes the part before it: `mpnet_rte/model` gives `mpnet_rte_model`.
    """
    folder = Path(path)
    if folder.name in ("", ".."):
        folder = folder.resolve()
    before = folder.parent.name if GENERIC.fullmatch(folder.name) else ""
    return f"{before}_{folder.name}" if before not in ("", "..") else folder.name or "model"
