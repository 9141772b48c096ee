"""Scores by strategy and K: by task as Sajjad et al.'s Table 2, with the mean GLUE score as Peer et al.'s Table 1."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from layerdrop.report.model_results import (
    GLUE,
    Cell,
    ModelResults,
    metric_word,
    model_results,
    task_name,
    title_of,
)
from layerdrop.report.table import Table
from layerdrop.report.table_row import TableRow

MISSING = "missing"
OTHER_SEEDS = " (other seeds)"
"""Mark of a comparison without a common seed."""


# ---- the words of a cell ---------------------------------------------------------------------------------------------
def points(score: float | None) -> str:
    """A score with one decimal place, `missing` for None, `constant` for NaN."""
    if score is None:
        return MISSING
    return "constant" if math.isnan(score) else f"{score:.1f}"


def signed(difference: float | None) -> str:
    """A difference with its sign: `+1.2`. Empty for None and NaN."""
    missing = difference is None or math.isnan(difference)
    return "" if missing else f"{round(difference, 1) + 0.0:+.1f}"  # no -0.0


def difference(value: Mapping) -> str:
    """The difference to the full model: `+1.2`; `+1.2 (other seeds)` without a common seed."""
    words = signed(value["difference"])
    return words + OTHER_SEEDS if words and value["difference_seeds"] == 0 else words


def spread(value: Mapping, seeds: int) -> str:
    """Lowest and highest score, and the number of seeds if other cells have more: `[57.0, 59.0] n=2`."""
    n = value["seeds"]
    ends = f"[{points(value['lowest'])}, {points(value['highest'])}]" if n and n > 1 else ""
    return " ".join(filter(None, [ends, f"n={n}" if n and n != seeds else ""]))


def against_published(value: Mapping) -> str:
    """The published score, and the difference to it: `published 67.9 (+2.1)`."""
    ours, theirs = value["score"], value["published"]
    if theirs is None:
        return ""
    return f"published {theirs:.1f}" + (f" ({ours - theirs:+.1f})" if ours is not None else "")


def names(columns: list[str]) -> str:
    """Column names, separated by commas."""
    return ", ".join(map(task_name, columns))


# ---- tables ----------------------------------------------------------------------------------------------------------
def task_tables(
    runs: pd.DataFrame,
    tasks: list[str] | None = None,
    published: pd.DataFrame | None = None,
    all_metrics: bool = False,
) -> list[Table]:
    """One table for each model: strategies and K as rows, tasks as columns.

    A cell has the median over seeds with its spread, and the difference to the full model over the seeds that both
    have. The last columns are means over tasks (Loss in Sajjad et al.'s Table 3, with the opposite sign). tasks: the
    columns; None: all. published: published figures. all_metrics: show every metric of a task, not only its main one;
    `values` always has all.
    """
    others = {results.model: results for results in model_results(pd.DataFrame() if published is None else published)}
    tables = []
    for results in model_results(runs):
        main = results.main_cells(columns := results.columns(tasks))
        cells = [(column, metric) for column in columns for metric in results.metrics(column) or [""]]
        shown = cells if all_metrics else main
        header = ["strategy", "K", *map(title_of, shown), "mean", "difference"]
        table = Table("tasks", results.compared, header, notes=[_note(results, main)])
        for row in results.table_rows:
            values = {cell: results.value(row, cell, others.get(results.model)) for cell in cells}
            mean = results.mean_value(row, main)
            words = [_words(values[cell], results.seeds) for cell in shown]
            table.rows.append([*row, *words, points(mean["score"]), difference(mean)])
            table.values += [*values.values(), mean]
        tables.append(table)
    return tables


def _words(value: Mapping, seeds: int) -> str:
    words = points(value["score"]), spread(value, seeds), difference(value), against_published(value)
    return " ".join(filter(None, words))


def _note(results: ModelResults, cells: list[Cell]) -> str:
    several, metrics = results.seeds > 1, ", ".join(dict.fromkeys(filter(None, map(metric_word, cells))))
    return (
        f"Cells: median over {results.seeds} seed{'s' * several} in points on the validation set, "
        f"{'[lowest, highest], ' * several}difference to the full model{' over the seeds of both' * several}. "
        f"Columns mean and difference: over {names([column for column, _ in cells])} ({metrics})."
    )


def glue_tables(
    runs: pd.DataFrame, tasks: list[str] | None = None, published: pd.DataFrame | None = None
) -> list[Table]:
    """One table for each model: Peer et al.'s metrics (F1 for MRPC and QQP, Spearman, Matthews, accuracy), the mean
    GLUE score, and the percent of the full model's score. tasks, published: as in task_tables."""
    others = {results.model: results for results in model_results(pd.DataFrame() if published is None else published)}
    tables = []
    for results in model_results(runs):
        columns = [c for c in results.columns(tasks) if results.task_of.get(c, c) in GLUE]
        if not columns:
            continue
        cells = [(column, _selection_metric(results, column)) for column in columns]
        header = ["strategy", "K", *map(title_of, cells), "mean GLUE score", "of the full model"]
        full = f"the full model's mean{' over the seeds of both' * (results.seeds > 1)}"
        note = f"Medians over seeds in points. Mean: over {names(columns)}. Last column: percent of {full}."
        table = Table("glue", f"{results.compared}: GLUE", header, notes=[note])
        for row in results.table_rows:
            values = [results.value(row, cell, others.get(results.model)) for cell in cells]
            mean = results.mean_value(row, cells)
            words = [" ".join(filter(None, [points(v["score"]), against_published(v)])) for v in values]
            table.rows.append([*row, *words, points(mean["score"]), _share(results, row, cells)])
            table.values += [*values, mean]
        tables.append(table)
    return tables


def _selection_metric(results: ModelResults, column: str) -> str:
    """Peer et al.'s metric of a column, as recorded."""
    task = results.task_of.get(column, column)
    name = GLUE[task].selection_metric
    return (
        name if name in results.metrics(column) else GLUE[task].recorded(name)
    )  # held-out rows have one split, also for MNLI


def _share(results: ModelResults, row: TableRow, cells: list[Cell]) -> str:
    """Percent of the full model's mean, over the seeds of both: `98.2%`; `98.2% (other seeds)` without a common seed.

    `-` if the full model's mean is not positive.
    """
    mean, seeds = results.mean(row, cells), 1
    if mean is not None and results.is_compared_with_itself(row):
        ours = full = mean
    elif pair := results.mean_with_full_model(row, cells):
        ours, full, seeds = pair
    else:
        return MISSING
    share = ours / full if full > 0 else math.nan
    return "-" if math.isnan(share) else f"{100 * share:.1f}%" + OTHER_SEEDS * (seeds == 0)
