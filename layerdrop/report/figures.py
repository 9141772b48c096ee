"""Figures at column width: scores by strategy and K, scores against speed-up, lines, heat maps."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.path import Path as LinePath
from matplotlib.transforms import Bbox

from layerdrop.report.marks import COLORS, GREY, MARKERS, Marks, marks_of, style_of
from layerdrop.report.model_results import ModelResults, Summary, metric_word, model_results, task_name
from layerdrop.report.notes import busy
from layerdrop.report.table_row import TableRow, full_models, lines_of
from layerdrop.system.files import refuse_foreign, write_atomically

WIDTH = 3.35
"""Inches of a column."""
LEAST_SPAN = 4.0
"""Smallest span of a score axis in points. On a smaller span, noise between seeds looks like a trend."""
HIGHEST = 100.0
"""End of a score axis. No metric exceeds it."""
CLOSE = 5.0
"""Distance of two dots in typographic points below which they share a label."""
AROUND = ((1, 1), (0, 1), (1, 0), (1, -1), (0, -1), (-1, 1), (-1, 0), (-1, -1))
"""Places of a label relative to its dots: (right or left, above or below). The first free place is used."""
STYLE = {
    "font.size": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "text.parse_math": False,
}
FIGURE_MARK = rb"Software\x00layerdrop|/Creator \(layerdrop\)"
"""Pattern that every PNG and PDF of `save_figure` contains."""
FULL_NAME = "full model"
Series = Sequence[float | None]


def draw(runs: pd.DataFrame, folder: str, tasks: list[str] | None = None) -> tuple[list[Path], list[str]]:
    """Write the figures of every model into a folder, as PNG and PDF. Returns (files, notes on missing figures)."""
    written, notes = [], []
    uses: Counter[str] = Counter()
    marks = marks_of(runs["row"])
    for results in model_results(runs):
        columns = results.columns(tasks)
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", results.title).strip("_")
        uses[name] += 1
        name += f"_{uses[name]}" if uses[name] > 1 else ""
        kinds = {
            "strategies": (strategies(results, columns, marks), "a run with dropped layers"),
            "speed": (speed(results, columns, marks), "the plain full model, and a K > 0 with runs on every task"),
        }
        for kind, (figure, needs) in kinds.items():
            if figure is None:
                notes.append(f"{results.title}: no figure '{kind}', which needs {needs}")
            else:
                written += save_figure(figure, folder, f"{name}_{kind}")
    return written, notes


def save_figure(figure: plt.Figure, folder: str, name: str) -> list[Path]:
    """Write a figure as PNG and PDF into an existing folder, and close it. Raises UserError if a file of that name is
    not an earlier figure."""
    written = [Path(folder) / f"{name}.{ending}" for ending in ("png", "pdf")]
    for path, key in zip(written, ("Software", "Creator"), strict=True):
        refuse_foreign("--figures", path, FIGURE_MARK)
        content = io.BytesIO()
        with plt.style.context(STYLE):
            figure.savefig(content, format=path.suffix[1:], dpi=300, metadata={key: "layerdrop"})
        write_atomically(path, content.getvalue())
    plt.close(figure)
    return written


def _legend_columns(names: list[str]) -> int:
    return max(1, min(3, int(WIDTH // (0.25 + 0.042 * max(map(len, names))))))


def _legend_height(names: list[str]) -> float:
    """Height of a legend in inches."""
    return 0.1 + 0.13 * math.ceil(len(names) / _legend_columns(names))


def _legend(figure: plt.Figure, handles: list, names: list[str], title: str | None = None) -> None:
    """Put a legend below the panels, in a smaller font if a name does not fit."""
    size = 6 * min(1, (WIDTH - 0.25) / (0.048 * max(map(len, names))))
    where = {"loc": "outside lower center", "ncols": _legend_columns(names)}
    figure.legend(handles, names, **where, fontsize=size, handlelength=1.2, title=title, title_fontsize=5.5)


def _title(figure: plt.Figure, title: str) -> None:
    """Put a title above the panels, in lines of whole settings. Each line after the first makes the figure higher."""
    settings = title.replace(" ", "\0").replace(",\0", ", ").replace("\0(", " (")
    text = textwrap.fill(settings, 58, break_on_hyphens=False).replace("\0", " ")
    figure.suptitle(text, fontsize=7)
    figure.set_figheight(figure.get_figheight() + 0.12 * text.count("\n"))


def _limit(axes: plt.Axes) -> None:
    """Extend the axis of scores to LEAST_SPAN points, and end it at HIGHEST."""
    low, high = axes.get_ylim()
    high = min(HIGHEST, max(high, (low + high + LEAST_SPAN) / 2))
    axes.set_ylim(min(low, high - LEAST_SPAN), high)


# ---- score by strategy and K, as Sajjad et al.'s Figure 2 ------------------------------------------------------------
@plt.style.context(STYLE)
def strategies(results: ModelResults, columns: list[str], marks: Marks | None = None) -> plt.Figure | None:
    """A panel for each task, with a dot for each strategy and K: the median over seeds.

    Whiskers reach from the lowest to the highest seed. The full model of the differences is a dashed line, and a band
    from its lowest to its highest seed. marks: colors and markers; None: chosen for these rows. Returns None if no run
    has dropped layers.
    """
    rows = [row for row in results.rows if row.k not in ("", "0") and not row.from_scratch]
    if not rows:
        return None
    names, all_k = list(dict.fromkeys(row.legend for row in rows)), sorted({int(row.k) for row in rows})
    marks = marks or marks_of(results.rows)
    across = min(2, len(columns))
    down = math.ceil(len(columns) / across)
    full = [_name_of_full(results.only_full_model)] if results.only_full_model else []
    height = 1.5 * down + 0.45 + _legend_height([*names, *full])
    figure, grid = plt.subplots(down, across, figsize=(WIDTH, height), squeeze=False)
    gaps = [_panel(axes, results, c, rows, all_k, marks) for axes, c in zip(grid.flat, columns, strict=False)]
    for axes in list(grid.flat)[len(columns) :]:
        axes.set_axis_off()
    handles = [plt.Line2D([], [], **style_of(marks[name]), ls="", markersize=3) for name in names]
    handles += [plt.Line2D([], [], color=GREY, linewidth=0.8, linestyle="--") for _ in full]
    missing = "; no dot: not run, or impossible" if any(gaps) else ""
    spread = "median over seeds, whiskers and band from lowest to highest" if results.seeds > 1 else "one seed"
    _legend(figure, handles, [*names, *full], f"{spread}{missing}")
    _title(figure, results.title)
    return figure


def _name_of_full(row: TableRow) -> str:
    return FULL_NAME if row.is_full else row.legend


def _panel(
    axes: plt.Axes, results: ModelResults, column: str, rows: list[TableRow], all_k: list[int], marks: Marks
) -> bool:
    """Draw the dots of a task. Returns whether a strategy has no dot at some K."""
    (cell,), names = results.main_cells([column]), list(dict.fromkeys(row.legend for row in rows))
    dots = [(row.legend, int(row.k), dot) for row in rows if (dot := _drawable(results.summary(row, cell)))]
    step = min(0.12, 0.7 / max(1, len(names) - 1))  # dots of the same K are closer than dots of different K
    for name, k, dot in dots:
        at_k = [other for other in names if any(d[:2] == (other, k) for d in dots)]
        at = all_k.index(k) + (at_k.index(name) - (len(at_k) - 1) / 2) * step
        whiskers = [[dot.median - _low(dot)], [dot.high - dot.median]]
        axes.errorbar(at, dot.median, yerr=whiskers, **style_of(marks[name]), ls="", ms=3, lw=0.7, clip_on=False)
    full = _drawable(results.only_full_model and results.summary(results.only_full_model, cell))
    if full:
        axes.axhline(full.median, color=GREY, linewidth=0.8, linestyle="--", zorder=0.5)
        axes.axhspan(_low(full), full.high, color=GREY, alpha=0.15, linewidth=0, zorder=0.4)
    if not dots and not full:
        axes.text(0.5, 0.5, "missing", ha="center", va="center", transform=axes.transAxes)
    axes.margins(y=0.12)
    _limit(axes)
    axes.set_xlim(-0.5, len(all_k) - 0.5)
    axes.set_xticks(range(len(all_k)), all_k)
    axes.set_xlabel("K", labelpad=1)
    axes.set_title(task_name(column), fontsize=7, pad=5)
    axes.set_ylabel(f"{metric_word(cell)}, points")
    return len({(name, k) for name, k, _ in dots}) < len(names) * len(all_k)


def _low(summary: Summary) -> float:
    """The lowest score. The median if a seed has constant predictions without a score."""
    return summary.median if math.isnan(summary.low) else summary.low


def _drawable(summary: Summary | None) -> Summary | None:
    return None if summary is None or math.isnan(summary.median) else summary


# ---- score against speed-up, as Peer et al.'s Figure 1 ---------------------------------------------------------------
@plt.style.context(STYLE)
def speed(results: ModelResults, columns: list[str], marks: Marks | None = None) -> plt.Figure | None:
    """The mean score over tasks against the fine-tuning speed-up, with a line for each strategy.

    A line starts at K = 0 of its training variant. Without such a run, it starts at the plain full model, or at its
    first K if all K are of one training. marks: as for `strategies`. Returns None unless the full model and another
    row have all tasks and seconds.
    """
    marks = marks or marks_of(results.rows)
    points: dict[TableRow, tuple[float, float, int]] = {}
    for row in results.rows:
        ratio, score = results.seconds_ratio(row, columns, "train"), results.mean(row, results.main_cells(columns))
        if not (row.from_scratch or not row.k or ratio is None or score is None or math.isnan(score)):
            points[row] = 1 / ratio, score, int(row.k)
    full = [row for row in full_models(points).values() if row.is_full]
    series = lines_of(list(points))
    if not series or not full:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 2.1 + _legend_height([*series, FULL_NAME])))
    for name, line in series.items():
        x, y, k = zip(*sorted((points[row] for row in line), key=lambda point: point[2]), strict=True)
        style = style_of(marks[name])
        style["linestyle"] = "-" if len(set(k)) == len(k) else ""  # layer lists of the same K are not connected
        axes.plot(x, y, **style, markersize=3, linewidth=0.8, label=name, clip_on=False)
    of_full = zip(*(points[row][:2] for row in full), strict=True)
    axes.plot(*of_full, "o", color=GREY, markersize=4, label=FULL_NAME, clip_on=False)
    axes.margins(0.1, 0.15)
    _limit(axes)
    axes.set_xlabel("fine-tuning speed-up, times the full model")
    (cell, *others) = results.main_cells(columns)
    axes.set_ylabel(f"mean over {len(columns)} tasks, points" if others else f"{metric_word(cell)}, points")
    _title(figure, results.title)
    note = "".join(busy(results.runs[results.runs["column"].isin(columns)])).replace(" and", "\nand")
    _legend(figure, *axes.get_legend_handles_labels(), note or None)
    _label(axes, [point for row, point in points.items() if row not in full])
    return figure


def _label(axes: plt.Axes, dots: Iterable[tuple[float, float, int]]) -> None:
    """Label dots (x, y, K) with their K. CLOSE dots share a label.

    A label without a place in AROUND where it covers no dot, line or other label is left out. Call it last: labels are
    placed in the figure's final layout.
    """
    axes.figure.draw_without_rendering()  # makes the layout
    unit = axes.figure.dpi / 72
    pixels = {dot: axes.transData.transform(dot[:2]) for dot in sorted(dots, key=lambda dot: (-dot[1], dot[0]))}
    groups: list[list[tuple[float, float, int]]] = []
    for dot in pixels:
        close = (group for group in groups if math.dist(pixels[group[0]], pixels[dot]) < CLOSE * unit)
        if (group := next(close, None)) is None:
            groups.append(group := [])
        group.append(dot)
    paths = [(line.get_transform().transform_path(line.get_path()), line.get_linestyle()) for line in axes.lines]
    placed: list[Bbox] = []
    for group in sorted(groups, key=len):  # short labels first: they need the least space
        x, y, k = zip(*group, strict=True)
        text = _words_of(sorted(set(k)), sorted({k for _, _, k in pixels}))
        label = axes.annotate(text, (0, 0), (0, 0), textcoords="offset points", fontsize=5.5, in_layout=False)
        for right, above in AROUND:
            label.xy = np.quantile(x, (1 + right) / 2), np.quantile(y, (1 + above) / 2)
            where = {"ha": ("center", "left", "right")[right], "va": ("center", "bottom", "top")[above]}
            label.set(position=(3 * right, 3 * above), **where)
            box = label.get_window_extent()
            covers = box.count_overlaps(placed) or any(_covers(box, *path, margin=2 * unit) for path in paths)
            if axes.bbox.count_contains(box.corners()) == 4 and not covers:
                placed.append(box)
                break
        else:
            label.remove()


def _covers(box: Bbox, path: LinePath, linestyle: str, margin: float) -> bool:
    """Whether a box covers a dot of a path, with a margin around the dot, or its line."""
    on_dot = box.padded(margin).count_contains(path.vertices)
    return bool(on_dot or (linestyle != "None" and path.intersects_bbox(box, filled=False)))


def _words_of(ks: list[int], all_k: list[int]) -> str:
    """The label of dots: `K = 2`, `K = 2, 8`, or `K = 2 to 8` for all K of the figure between the two."""
    between = [k for k in all_k if ks[0] <= k <= ks[-1]]
    return f"K = {ks[0]} to {ks[-1]}" if len(ks) > 2 and ks == between else f"K = {', '.join(map(str, ks))}"


# ---- analyses of layers ----------------------------------------------------------------------------------------------
@plt.style.context(STYLE)
def lines(
    series: Mapping[str, tuple[Sequence[int], Series]],
    y: str,
    *,
    spread: Mapping[str, Series] | None = None,
    levels: Sequence[float] = (),
    shade_below: float | None = None,
    x: str = "layer",
) -> plt.Figure:
    """A line for each name; names that end with `mean` are black.

    series: name -> (x values, y values); -1 on the x axis is the embeddings. spread: name -> half heights of a
    band, for some names. levels: dashed horizontal lines.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 2.2))
    for i, (name, (at, values)) in enumerate(series.items()):
        values, is_mean = np.array(values, dtype=float), name.endswith("mean")
        color = "black" if is_mean else COLORS[i % len(COLORS)]
        axes.plot(at, values, color=color, marker=MARKERS[i % len(MARKERS)], ms=3, lw=1 + is_mean, label=name)
        if spread and name in spread:
            half = np.array(spread[name], dtype=float)
            axes.fill_between(at, values - half, values + half, color=color, alpha=0.15, lw=0)
    for level in levels:
        axes.axhline(level, color=GREY, lw=0.6, ls="--")
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
    return figure


@plt.style.context(STYLE)
def heat(
    panels: Mapping[str, Sequence[Series]], x: str, y: str, *, names: Sequence = (), columns: Sequence = ()
) -> plt.Figure:
    """A heat map for each name, each with its own scale; dark is high. Rows may have different lengths.

    names, columns: labels of rows and columns; default: their numbers.
    """
    n = len(panels)
    figure, grid = plt.subplots(1, n, figsize=(WIDTH if n == 1 else 2.1 * n, 2.3), squeeze=False)
    for axes, (name, rows) in zip(grid[0], panels.items(), strict=True):
        cells = np.array(list(zip_longest(*rows)), dtype=float).T
        width = cells.shape[1]
        image = axes.imshow(cells, cmap="cividis_r", aspect="auto")
        axes.set_title(name, fontsize=7)
        axes.set_xlabel(x)
        axes.set_xticks(range(width), columns or range(width))
        axes.set_yticks(range(len(rows)), names or range(len(rows)))
        axes.tick_params(labelsize=5 if width <= 10 else 4)
        figure.colorbar(image, ax=axes, fraction=0.046).ax.tick_params(labelsize=5)
    grid[0][0].set_ylabel(y)
    return figure
