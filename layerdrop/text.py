"""Text for one line of a terminal or a table."""

import textwrap

ELLIPSIS = "…"


def one_line(text: str | None, width: int | None = None) -> str:
    """Text on one line, with single blanks; where it is longer than `width` characters, cut between two words, with an
    ellipsis at the end. A first word that is too long is cut itself. None: empty."""
    line = " ".join((text or "").split())
    if width is None or len(line) <= width:
        return line
    short = textwrap.shorten(line, width, placeholder=ELLIPSIS, break_on_hyphens=False)
    return short if short != ELLIPSIS else line[: width - len(ELLIPSIS)] + ELLIPSIS
