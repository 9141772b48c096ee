"""Text for one line of a terminal or a table."""

import re
import textwrap
from pathlib import Path

ELLIPSIS = "…"
EVERYBODYS = re.compile(r"model|checkpoint(-\d+)?|export", re.IGNORECASE)
"""Generic folder names, which do not identify a model."""


def one_line(text: str | None, width: int | None = None) -> str:
    """Text on one line, with single blanks; where it is longer than `width` characters, cut between two words, with an
    ellipsis at the end. A first word that is too long is cut itself. None: empty."""
    line = " ".join((text or "").split())
    if width is None or len(line) <= width:
        return line
    short = textwrap.shorten(line, width, placeholder=ELLIPSIS, break_on_hyphens=False)
    return short if short != ELLIPSIS else line[: width - len(ELLIPSIS)] + ELLIPSIS


def short_name(path: str) -> str:
    """The name of a model for folders and tables: the last part of its path or hub name, with the part before it for
    `mpnet_rte/model` and `mpnet_rte/checkpoint-500`."""
    place = Path(path)
    if place.name in ("", ".."):
        place = place.resolve()
    before = place.parent.name if EVERYBODYS.fullmatch(place.name) else ""
    return f"{before}_{place.name}" if before not in ("", "..") else place.name or "model"
