"""Color and marker of each strategy, the same in every picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from zlib import crc32

from layerdrop.criteria.table import STRATEGIES
from layerdrop.report.table_row import TableRow

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's palette, which is safe for color-blind readers."""
MARKERS = "osD^vP*X"
GREY = "#333333"
"""Color of the full model."""
USUAL = ("top", "bottom", "symmetric", "contribution", "block-influence", "random")
PLAIN = {name: i for i, name in enumerate(dict.fromkeys((*USUAL, *STRATEGIES)))}
"""Strategy -> number of its mark. The usual strategies have the most visible colors."""
Marks = Mapping[str, int]
"""Name in a legend -> number of its mark, from 0."""
MARKS_OF_ALL = len(COLOURS) * len(MARKERS)


def name_of(row: TableRow) -> str:
    """The name of a row in the legend, without K and layers."""
    return replace(row, layers=()).words[0]


def marks_of(rows: Iterable[TableRow]) -> Marks:
    """Assign a mark to each row's name.

    A strategy has the same mark in all pictures. Training variants and ways to score have the same mark in all pictures
    of these rows: the hash of the name chooses among the least used colors.
    """
    names = sorted(set(map(name_of, rows)))
    marks = {name: PLAIN[name] for name in names if name in PLAIN}
    for name in names:
        if name in marks:
            continue
        colours = Counter(i % len(COLOURS) for i in marks.values())
        free = [i for i in range(MARKS_OF_ALL) if i not in {*PLAIN.values(), *marks.values()}] or range(MARKS_OF_ALL)
        first = crc32(name.encode())
        marks[name] = min(free, key=lambda i: (colours[i % len(COLOURS)], (i - first) % MARKS_OF_ALL))
    return marks


def marker(i: int) -> str:
    """The marker of mark i. Each pair of color and marker occurs once among MARKS_OF_ALL."""
    return MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]


def style_of(i: int) -> dict[str, str]:
    """A mark for matplotlib."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": marker(i)}
