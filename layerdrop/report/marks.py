"""A fixed color and marker for each strategy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layerdrop.criteria.table import STRATEGIES
from layerdrop.report.table_row import TableRow

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's palette, which is safe for color-blind readers."""
MARKERS = "osD^vP*X"
GREY = "#333333"
"""Color of the full model."""
USUAL = ("top", "bottom", "symmetric", "contribution", "block-influence", "random")
PLAIN = {name: i for i, name in enumerate(dict.fromkeys((*USUAL, *STRATEGIES)))}
"""Strategy -> number of its mark (color and marker). The usual strategies have the most visible colors."""
Marks = Mapping[str, int]
"""Name in a legend -> number of its mark, from 0."""
N_MARKS = len(COLORS) * len(MARKERS)


def marks_of(rows: Iterable[TableRow]) -> Marks:
    """Assign a mark to the name of each row.

    A strategy has the same mark in all figures. A training variant has the same mark in all figures of these rows. Its
    color is the least used color.
    """
    names = sorted({row.legend for row in rows})
    marks = {name: PLAIN[name] for name in names if name in PLAIN}
    for name in (name for name in names if name not in PLAIN):
        colors = [i % len(COLORS) for i in marks.values()]
        free = [i for i in range(N_MARKS) if i not in {*PLAIN.values(), *marks.values()}] or range(N_MARKS)
        marks[name] = min(free, key=lambda i: colors.count(i % len(COLORS)))
    return marks


def style_of(i: int) -> dict[str, str]:
    """Mark i for matplotlib. Each pair of color and marker occurs once among N_MARKS."""
    return {"color": COLORS[i % len(COLORS)], "marker": MARKERS[(i + i // len(COLORS)) % len(MARKERS)]}
