"""Results as figures: score by strategy and K, score against fine-tuning speed-up."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from layerdrop.report.results import FULL, METRIC_WORDS, Result, Sheet, main_metric, sheets, task_name

WIDTH = 3.35
"""Inches of a column."""
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's, which colour-blind readers can tell apart."""
MARKERS = "osD^vP*X"
STYLE = {
    "font.size": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
}


def draw(found: list[Result], folder: str, tasks: list[str] | None = None) -> tuple[list[Path], list[str]]:
    """Write the figures of every model into a folder, as PNG and PDF.

    Returns (the files, why a figure was not drawn).
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    written, notes = [], []
    names: Counter[str] = Counter()
    for sheet in sheets(found):
        wanted = tasks or sheet.tasks
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", sheet.title).strip("_")
        names[name] += 1
        name += f"_{names[name]}" if names[name] > 1 else ""
        with plt.style.context(STYLE):
            for kind, (figure, needs) in {
                "strategies": (strategies(sheet, wanted), "a run with layers dropped"),
                "speed": (speed(sheet, wanted), "the full model, and a K > 0 that was run on every task"),
            }.items():
                if figure is None:
                    notes.append(f"{sheet.title}: no figure '{kind}': it needs {needs}")
                    continue
                for ending in ("png", "pdf"):
                    path = Path(folder) / f"{name}_{kind}.{ending}"
                    figure.savefig(path, dpi=300)
                    written.append(path)
                plt.close(figure)
    return written, notes


def strategies(sheet: Sheet, tasks: list[str]) -> plt.Figure | None:
    """As Sajjad et al.'s Figure 2: for each task, bars of the strategies grouped by K; the full model is a line.

    Bars are medians over seeds, whiskers reach from the lowest to the highest. The axes do not begin at zero.
    """
    rows = [how for how in sheet.rows if how.k and not how.from_scratch]
    names = list(dict.fromkeys(how.strategy for how in rows))
    all_k = sorted({how.k for how in rows})
    if not rows:
        return None
    thin = {"color": "#333333", "linewidth": 0.6}
    columns = min(2, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    height = 1.35 * lines + 0.5
    figure, grid = plt.subplots(lines, columns, figsize=(WIDTH, height), squeeze=False)
    width = 0.84 / len(names)
    for axes, task in zip(grid.flat, tasks, strict=False):
        metric = main_metric(task, sheet.metrics(task))
        seen = []
        for i, name in enumerate(names):
            for how in (how for how in rows if how.strategy == name):
                cell = sheet.cell(how, task, metric)
                if cell is None or math.isnan(cell.median):
                    continue
                at = all_k.index(how.k) + (i - (len(names) - 1) / 2) * width
                low = cell.median if math.isnan(cell.low) else cell.low
                spread = [[cell.median - low], [cell.high - cell.median]]
                axes.bar(at, cell.median, width * 0.92, color=COLOURS[i % len(COLOURS)], linewidth=0)
                if cell.n > 1:
                    axes.errorbar(at, cell.median, yerr=spread, **thin, capsize=1.2, capthick=0.6)
                seen += [low, cell.high]
        full = sheet.cell(FULL, task, metric)
        if full is not None and not math.isnan(full.median):
            axes.axhline(full.median, color="#333333", linewidth=0.8, linestyle="--", zorder=1.5)
            seen.append(full.median)
        if not seen:
            axes.text(0.5, 0.5, "missing", ha="center", va="center", transform=axes.transAxes)
        if seen:
            margin = max(1.0, 0.08 * (max(seen) - min(seen)))
            axes.set_ylim(min(seen) - 2 * margin, max(seen) + margin)
        axes.set_xticks(range(len(all_k)), [f"K = {k}" for k in all_k])
        axes.set_title(task_name(task), fontsize=7, pad=3)
        axes.set_ylabel(METRIC_WORDS.get(metric.removeprefix("matched_"), metric))
    for axes in list(grid.flat)[len(tasks) :]:
        axes.set_axis_off()
    marks = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[i % len(COLOURS)]) for i in range(len(names))]
    marks.append(plt.Line2D([], [], color="#333333", linewidth=0.8, linestyle="--"))
    figure.legend(marks, [*names, "full model"], loc="lower center", ncols=3, fontsize=6.5, handlelength=1.2)
    figure.tight_layout(rect=(0, (0.12 + 0.13 * math.ceil((len(names) + 1) / 3)) / height, 1, 1), h_pad=0.8)
    return figure


def speed(sheet: Sheet, tasks: list[str]) -> plt.Figure | None:
    """As Peer et al.'s Figure 1: the mean score over tasks against the fine-tuning speed-up, a line for each strategy
    with growing K. None where no row has every task and its seconds."""
    points: dict[str, list[tuple[float, float, int]]] = {}
    for how in sheet.rows:
        ratio = sheet.seconds_ratio(how, tasks, "train")
        score = sheet.mean(how, tasks)
        if how.from_scratch or ratio is None or score is None or how.k is None and how != FULL:
            continue
        points.setdefault(how.strategy or "", []).append((1 / ratio, score, how.k or 0))
    start = points.pop("", [])
    if not points or not start:
        return None
    figure, axes = plt.subplots(figsize=(WIDTH, 2.3))
    for i, (name, line) in enumerate(points.items()):
        x, y, k = zip(*sorted(start + line, key=lambda point: point[2]), strict=True)
        axes.plot(
            x,
            y,
            MARKERS[i % len(MARKERS)] + "-",
            color=COLOURS[i % len(COLOURS)],
            markersize=3,
            linewidth=0.8,
            label=name,
        )
        for number, *point in list(zip(k, x, y, strict=True))[1 if len(points) <= 3 else -1 :]:  # of many, the last
            axes.annotate(f"K={number}", point, fontsize=5.5, xytext=(2, 2), textcoords="offset points")
    axes.plot(start[0][0], start[0][1], "o", color="#333333", markersize=4, label="full model")
    axes.set_xlabel("fine-tuning speed-up")
    axes.set_ylabel(f"mean score over {len(tasks)} task{'s' * (len(tasks) != 1)}")
    axes.legend(fontsize=6, loc="best")
    figure.tight_layout()
    return figure
