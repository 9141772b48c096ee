"""Analyses of layers as pictures at column width: lines by layer, heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from layerdrop.report.figures import STYLE, WIDTH
from layerdrop.report.marks import COLOURS, MARKERS

Series = Sequence[float | None]


def lines(
    series: Mapping[str, tuple[Sequence[int], Series]],
    y: str,
    *,
    spread: Mapping[str, Series] | None = None,
    levels: Sequence[float] = (),
    shade_below: float | None = None,
    x: str = "layer",
) -> plt.Figure:
    """A line for each name; means (by the end of their names) are black. series: name -> (x values, y values); -1 on
    the x axis is the embeddings. spread: name -> half heights of a band, for some names. levels: dashed horizontal
    lines."""
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 2.2))
        for i, (name, (at, values)) in enumerate(series.items()):
            values = np.array([np.nan if value is None else value for value in values], dtype=float)
            is_mean = name.endswith("mean")
            colour = "black" if is_mean else COLOURS[i % len(COLOURS)]
            axes.plot(at, values, color=colour, marker=MARKERS[i % len(MARKERS)], ms=3, lw=1 + is_mean, label=name)
            if spread and name in spread:
                half = np.array(spread[name], dtype=float)
                axes.fill_between(at, values - half, values + half, color=colour, alpha=0.15, lw=0)
        for level in levels:
            axes.axhline(level, color="#333333", lw=0.6, ls="--")
        if shade_below is not None:
            low, high = axes.get_ylim()
            axes.axhspan(min(low, shade_below), shade_below, color="#DDDDDD", alpha=0.5, lw=0)
            axes.set_ylim(min(low, shade_below), high)
        places = sorted({place for at, _ in series.values() for place in at})
        axes.set_xticks(places, ["emb" if place < 0 else str(place) for place in places])
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if len(series) > 1:
            figure.legend(loc="outside upper center", ncols=min(3, len(series)), fontsize=6)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.08 * -(-len(series) // 3) * (len(series) > 1)))
        return figure


def heat(
    panels: Mapping[str, Sequence[Series]], x: str, y: str, *, names: Sequence = (), columns: Sequence = ()
) -> plt.Figure:
    """A heat map for each name, each with its own scale, dark is high; rows that are shorter end early. names,
    columns: of rows and columns, instead of their numbers."""
    with plt.style.context(STYLE):
        n = len(panels)
        figure, grid = plt.subplots(1, n, figsize=(WIDTH if n == 1 else 2.1 * n, 2.3), squeeze=False)
        for axes, (name, rows) in zip(grid[0], panels.items(), strict=True):
            width = max(map(len, rows))
            cells = [[np.nan if v is None else v for v in row] + [np.nan] * (width - len(row)) for row in rows]
            image = axes.imshow(np.array(cells, dtype=float), cmap="cividis_r", aspect="auto")
            axes.set_title(name, fontsize=7)
            axes.set_xlabel(x)
            axes.set_xticks(range(width), columns or range(width))
            axes.set_yticks(range(len(rows)), names or range(len(rows)))
            axes.tick_params(labelsize=5 if width <= 10 else 4)
            figure.colorbar(image, ax=axes, fraction=0.046).ax.tick_params(labelsize=5)
        grid[0][0].set_ylabel(y)
        figure.tight_layout()
        return figure
