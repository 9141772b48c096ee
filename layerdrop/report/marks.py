"""A color and a marker for each strategy and training variant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layerdrop.report.table_row import TableRow

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's palette, which is safe for color-blind readers. The last colors are the least visible on white, or
close to GREY."""
MARKERS = "osD^vP*X"
GREY = "#333333"
"""Color of the full model."""
USUAL = {"top": 0, "bottom": 1, "symmetric": 2, "contribution": 3, "block-influence": 4, "random": 5}
"""Strategy -> number of its mark (color and marker) in all figures."""
Marks = Mapping[str, int]
"""Name in a legend -> number of its mark, from 0."""
N_MARKS = len(COLORS) * len(MARKERS)


def marks_of(rows: Iterable[TableRow]) -> Marks:
    """Assign a mark to the name of each row.

    A usual strategy has the same mark in all figures. Any other strategy and a training variant have the same mark in
    all figures of these rows: the color that the fewest of these rows' names have.
    """
    names = sorted({row.legend for row in rows})
    marks = {name: USUAL[name] for name in names if name in USUAL}
    for name in (name for name in names if name not in USUAL):
        colors = [i % len(COLORS) for i in marks.values()]
        free = [i for i in range(N_MARKS) if i not in {*USUAL.values(), *marks.values()}] or range(N_MARKS)
        marks[name] = min(free, key=lambda i: (colors.count(i % len(COLORS)), i % len(COLORS)))
    return marks


def style_of(i: int) -> dict[str, str]:
    """Mark i for matplotlib. Each pair of color and marker occurs once among N_MARKS."""
    return {"color": COLORS[i % len(COLORS)], "marker": MARKERS[(i + i // len(COLORS)) % len(MARKERS)]}
