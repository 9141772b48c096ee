"""The colour and the marker of a strategy: the same in every picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from zlib import crc32

from layerdrop.report.table_row import TableRow
from layerdrop.strategies import STRATEGIES

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's, which colour-blind readers can tell apart."""
MARKERS = "osD^vP*X"
GREY = "#333333"
"""Of the full model."""
USUAL = ("top", "bottom", "symmetric", "contribution", "block-influence", "random")
PLAIN = {name: i for i, name in enumerate(dict.fromkeys((*USUAL, *STRATEGIES)))}
"""Strategy -> its mark; the usual ones have the colours that are seen best."""
Marks = Mapping[str, int]
"""Name in a legend -> number of its mark, from 0."""
MARKS_OF_ALL = len(COLOURS) * len(MARKERS)


def name_of(row: TableRow) -> str:
    """The name of a row in the legend: all but its K and its layers."""
    return replace(row, layers=()).words[0]


def marks_of(rows: Iterable[TableRow]) -> Marks:
    """The marks of some rows. A strategy has its own in all pictures; a training variant, or a way to score, has its
    own in all pictures of these rows: of the colours that the fewest others have, one that its name decides."""
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
    """No pair of colour and marker comes twice among MARKS_OF_ALL."""
    return MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]


def style_of(i: int) -> dict[str, str]:
    """A mark for matplotlib."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": marker(i)}
