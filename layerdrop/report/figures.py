"""Results as figures: score by strategy and K, score against fine-tuning speed-up."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd

from layerdrop.report.marks import GREY, Marks, marks_of, name_of, style_of
from layerdrop.report.model_results import METRIC_WORDS, ModelResults, Summary, model_results, task_name
from layerdrop.report.table_row import TableRow
from layerdrop.system.files import refuse_foreign, write_atomically

WIDTH = 3.35
"""Inches of a column."""
LEAST_SPAN = 4.0
"""Points that an axis of scores spans at least: a smaller one shows the noise between seeds as if it were a trend."""
STYLE = {
    "font.size": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "text.parse_math": False,
}


FIGURE_MARK = rb"Software\x00layerdrop|/Creator \(layerdrop\)"
"""Mark in every PNG and PDF of `save_figure`."""
FULL_NAME = "full model"


def draw(runs: pd.DataFrame, folder: str, tasks: list[str] | None = None) -> tuple[list[Path], list[str]]:
    """Write the figures of every model into a folder, as PNG and PDF.

    Returns (the files, why a figure was not drawn).
    """
    written, notes = [], []
    names: Counter[str] = Counter()
    marks = marks_of(runs["row"])
    for results in model_results(runs):
        wanted = results.columns(tasks)
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", results.title).strip("_")
        names[name] += 1
        name += f"_{names[name]}" if names[name] > 1 else ""
        with plt.style.context(STYLE):
            for kind, (figure, needs) in {
                "strategies": (strategies(results, wanted, marks), "a run with layers dropped"),
                "speed": (speed(results, wanted, marks), "the full model, and a K > 0 that was run on every task"),
            }.items():
                if figure is None:
                    notes.append(f"{results.title}: no figure '{kind}': it needs {needs}")
                    continue
                written += save_figure(figure, folder, f"{name}_{kind}")
    return written, notes


def save_figure(figure: plt.Figure, folder: str, name: str) -> list[Path]:
    """Write a figure as PNG and PDF into an existing folder, and close it. Raises UserError if the name belongs to a
    picture that is not this tool's."""
    written = [Path(folder) / f"{name}.{ending}" for ending in ("png", "pdf")]
    for path, key in zip(written, ("Software", "Creator"), strict=True):
        refuse_foreign("--figures", path, FIGURE_MARK)
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix[1:], dpi=300, metadata={key: "layerdrop"})
        write_atomically(path, content.getvalue())
    plt.close(figure)
    return written


# ---- score by strategy and K, as Sajjad et al.'s Figure 2 ------------------------------------------------------------
def strategies(results: ModelResults, tasks: list[str], marks: Marks | None = None) -> plt.Figure | None:
    """A panel for each task: a dot for each strategy and K, its median over seeds; the full model is a dashed line.

    Whiskers reach from the lowest to the highest seed. marks: colours and markers; None: of these rows alone. None
    without a run with layers dropped.
    """
    rows = [row for row in results.rows if row.k and not row.from_scratch]
    if not rows:
        return None
    names, all_k = list(dict.fromkeys(map(name_of, rows))), sorted({row.k for row in rows})
    marks = marks or marks_of(results.rows)
    columns = min(2, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    full = [FULL_NAME] if results.only_full_model else []
    below = 0.2 + _legend_height([*names, *full])
    height = 1.5 * lines + 0.25 + below
    figure, grid = plt.subplots(lines, columns, figsize=(WIDTH, height), squeeze=False)
    gap = False
    for axes, task in zip(grid.flat, tasks, strict=False):
        gap |= _panel(axes, results, task, rows, all_k, marks)
    for axes in list(grid.flat)[len(tasks) :]:
        axes.set_axis_off()
    handles = [plt.Line2D([], [], **style_of(marks[name]), ls="", markersize=3) for name in names]
    handles += [plt.Line2D([], [], color=GREY, linewidth=0.8, linestyle="--") for _ in full]
    _legend(figure, handles, [*names, *full])
    missing = "; no dot: not run, or impossible" if gap else ""
    spread = "median over seeds, whiskers from lowest to highest" if results.seeds > 1 else "one seed"
    figure.text(0.5, (below - 0.13) / height, f"{spread}{missing}", ha="center", fontsize=5.5, color=GREY)
    figure.suptitle(results.title, fontsize=7)
    figure.tight_layout(rect=(0, below / height, 1, 1), h_pad=0.8)
    return figure


def _columns(names: list[str]) -> int:
    """Columns of a legend as wide as a column of text."""
    return max(1, min(3, int(WIDTH // (0.25 + 0.042 * max(map(len, names))))))


def _legend_height(names: list[str]) -> float:
    """In inches."""
    return 0.1 + 0.13 * math.ceil(len(names) / _columns(names))


def _legend(figure: plt.Figure, marks: list, names: list[str]) -> None:
    """Below everything; smaller where a name would not fit."""
    size = 6 * min(1, (WIDTH - 0.25) / (0.048 * max(map(len, names))))
    figure.legend(marks, names, loc="lower center", ncols=_columns(names), fontsize=size, handlelength=1.2)


def _panel(
    axes: plt.Axes, results: ModelResults, task: str, rows: list[TableRow], all_k: list[int], marks: Marks
) -> bool:
    """Draw a task's dots. Returns whether some strategy has no dot at some K."""
    metric, names = results.main_metric(task), list(dict.fromkeys(map(name_of, rows)))
    cells = [(name_of(row), row.k, cell) for row in rows if (cell := _drawable(results.cell(row, task, metric)))]
    step = min(0.12, 0.7 / max(1, len(names) - 1))  # dots of one K stay closer than those of two
    for name, k, cell in cells:
        beside = [other for other in names if any(c[:2] == (other, k) for c in cells)]
        at = all_k.index(k) + (beside.index(name) - (len(beside) - 1) / 2) * step
        low = cell.median if math.isnan(cell.low) else cell.low
        spread = [[cell.median - low], [cell.high - cell.median]]
        axes.errorbar(at, cell.median, yerr=spread, **style_of(marks[name]), ls="", ms=3, lw=0.7)
    full = _drawable(results.only_full_model and results.cell(results.only_full_model, task, metric))
    if full:
        axes.axhline(full.median, color=GREY, linewidth=0.8, linestyle="--", zorder=0.5)
    if not cells and not full:
        axes.text(0.5, 0.5, "missing", ha="center", va="center", transform=axes.transAxes)
    axes.margins(y=0.12)
    _widen(axes)
    axes.set_xlim(-0.5, len(all_k) - 0.5)
    axes.set_xticks(range(len(all_k)), all_k)
    axes.set_xlabel("K", labelpad=1)
    axes.set_title(task_name(task), fontsize=7, pad=3)
    word = METRIC_WORDS.get(metric.removeprefix("matched_"), metric)
    axes.set_ylabel(f"{word}, points")
    return len({(name, k) for name, k, _ in cells}) < len(names) * len(all_k)


def _widen(axes: plt.Axes) -> None:
    """Let the axis of scores span LEAST_SPAN points, around what it shows."""
    low, high = axes.get_ylim()
    if high - low < LEAST_SPAN:
        axes.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)


def _drawable(cell: Summary | None) -> Summary | None:
    return None if cell is None or math.isnan(cell.median) else cell


# ---- score against speed-up, as Peer et al.'s Figure 1 ---------------------------------------------------------------
def speed(results: ModelResults, tasks: list[str], marks: Marks | None = None) -> plt.Figure | None:
    """The mean score over tasks against the fine-tuning speed-up, a line for each strategy with growing K. marks: as
    for `strategies`. None where no row has every task and its seconds."""
    marks = marks or marks_of(results.rows)
    points: dict[str, list[tuple[float, float, int]]] = {}
    for row in results.rows:
        ratio, score = results.seconds_ratio(row, tasks, "train"), results.mean(row, tasks)
        has_k = row.k is not None or row.is_full
        if row.from_scratch or not has_k or ratio is None or score is None or math.isnan(score):
            continue
        points.setdefault("" if row.is_full else name_of(row), []).append((1 / ratio, score, row.k or 0))
    start = points.pop("", [])
    if not points or not start:
        return None
    below = _legend_height([*points, FULL_NAME])
    figure, axes = plt.subplots(figsize=(WIDTH, 2.1 + below))
    common = start if len(start) == 1 else []
    for name, line in points.items():
        x, y, _ = zip(*sorted(common + line, key=lambda point: point[2]), strict=True)
        style = style_of(marks[name])
        style["linestyle"] = "-" if len({k for _, _, k in line}) == len(line) else ""  # several lists of one length
        axes.plot(x, y, **style, markersize=3, linewidth=0.8, label=name)
    axes.plot(*zip(*(point[:2] for point in start), strict=True), "o", color=GREY, markersize=4, label=FULL_NAME)
    _name_k(axes, [point for line in points.values() for point in line])
    axes.set_xlabel("fine-tuning speed-up, times the full model")
    axes.set_ylabel(f"mean over {len(tasks)} task{'s' * (len(tasks) != 1)}, points")
    axes.set_title(results.title, fontsize=7)
    _legend(figure, *axes.get_legend_handles_labels())
    figure.tight_layout(rect=(0, below / (2.1 + below), 1, 1))
    return figure


def _name_k(axes: plt.Axes, points: list[tuple[float, float, int]]) -> None:
    """One label for each K, above the highest of its points, to the right, where lines fall away: strategies of one K
    are about as fast."""
    axes.margins(y=0.15)
    _widen(axes)
    for k in sorted({point[2] for point in points}):
        x, y, _ = max((point for point in points if point[2] == k), key=lambda point: point[1])
        axes.annotate(f"K = {k}", (x, y), fontsize=5.5, xytext=(2, 3), textcoords="offset points")
