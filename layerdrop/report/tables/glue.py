"""Scores by strategy and K with the mean GLUE score, as Peer et al.'s Table 1."""

from __future__ import annotations

import pandas as pd

from layerdrop.data.tasks import DEMO_TASKS, TASKS
from layerdrop.report.model_results import ModelResults, model_results
from layerdrop.report.tables.base import (
    MISSING,
    Table,
    against_published,
    loss,
    mean_value,
    names,
    points,
    rows_of,
    title_of,
    value_of,
)


def glue_tables(runs: pd.DataFrame, tasks: list[str] | None = None, beside: pd.DataFrame | None = None) -> list[Table]:
    """For each model: their metrics (F1 for MRPC and QQP, Spearman, Matthews, accuracy), the mean over tasks, and its
    share of the full model's. tasks, beside: as in task_tables."""
    others = {} if beside is None else {results.model: results for results in model_results(beside)}
    made = []
    for results in model_results(runs):
        wanted = [c for c in results.columns(tasks) if results.task_of.get(c, c) in TASKS | DEMO_TASKS]
        if wanted:
            made.append(_table(results, wanted, others.get(results.model)))
    return made


def _table(results: ModelResults, wanted: list[str], other: ModelResults | None) -> Table:
    def metric(column: str) -> str:
        task_row = (TASKS | DEMO_TASKS)[results.task_of.get(column, column)]
        name = task_row.selection_metric
        return name if name in results.metrics(column) else task_row.recorded(name)  # held-out rows are one split

    rows, values = [], []
    for row in rows_of(results):
        full = results.mean(results.full(row), wanted, metric)
        cells = []
        for column in wanted:
            cell = results.cell(row, column, metric(column))
            theirs = other and other.cell(row, column, metric(column))
            words = points(cell and cell.median), against_published(cell, theirs)
            cells.append(" ".join(word for word in words if word))
            values.append(value_of(results, row, column, metric(column), cell, theirs))
        mean = results.mean(row, wanted, metric)
        rows.append([*row.words, *cells, points(mean), _share(mean, full)])
        values.append(mean_value(results, row, wanted, mean, loss(row, mean, full)))
    header = ["strategy", "K", *(title_of(column, metric(column)) for column in wanted)]
    header += ["mean GLUE score", "of the full model"]
    note = f"Medians over seeds in points. Mean: over {names(wanted)}."
    return Table("glue", f"{results.title}: GLUE", header, rows, [note], values)


def _share(mean: float | None, full: float | None) -> str:
    """Per cent; of a mean that is not above zero there is no share."""
    if mean is None or full is None:
        return MISSING
    share = mean / full if full > 0 else float("nan")
    return "-" if share != share else f"{100 * share:.1f}%"
