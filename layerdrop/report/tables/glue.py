"""Scores by strategy and K with the mean GLUE score, as Peer et al.'s Table 1."""

from __future__ import annotations

import pandas as pd

from layerdrop.report.how import FULL
from layerdrop.report.sheet import Sheet, sheets
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
from layerdrop.tasks import DEMO_TASKS, TASKS


def glue_tables(runs: pd.DataFrame, tasks: list[str] | None = None, beside: pd.DataFrame | None = None) -> list[Table]:
    """For each model: their metrics (F1 for MRPC and QQP, Spearman, Matthews, accuracy), the mean over tasks, and its
    share of the full model's. tasks, beside: as in task_tables."""
    others = {} if beside is None else {sheet.model: sheet for sheet in sheets(beside)}
    made = []
    for sheet in sheets(runs):
        wanted = [c for c in sheet.columns(tasks) if sheet.task_of.get(c, c) in TASKS | DEMO_TASKS]
        if wanted:
            made.append(_table(sheet, wanted, others.get(sheet.model)))
    return made


def _table(sheet: Sheet, wanted: list[str], other: Sheet | None) -> Table:
    def metric(column: str) -> str:
        row = (TASKS | DEMO_TASKS)[sheet.task_of.get(column, column)]
        return row.suffixes[0].lstrip("_") + "_" * bool(row.suffixes[0]) + row.selection_metric

    rows, values = [], []
    full = sheet.mean(FULL, wanted, metric)
    for how in rows_of(sheet):
        cells = []
        for column in wanted:
            cell = sheet.cell(how, column, metric(column))
            theirs = other and other.cell(how, column, metric(column))
            words = points(cell and cell.median), against_published(cell, theirs)
            cells.append(" ".join(word for word in words if word))
            values.append(value_of(sheet, how, column, metric(column), cell, theirs))
        mean = sheet.mean(how, wanted, metric)
        rows.append([*how.words, *cells, points(mean), _share(mean, full)])
        values.append(mean_value(sheet, how, wanted, mean, loss(how, mean, full)))
    header = ["strategy", "K", *(title_of(column, metric(column)) for column in wanted)]
    header += ["mean GLUE score", "of the full model"]
    note = f"Medians over seeds in points. Mean: over {names(wanted)}."
    return Table("glue", f"{sheet.title}: GLUE", header, rows, [note], values)


def _share(mean: float | None, full: float | None) -> str:
    """Per cent; of a mean that is not above zero there is no share."""
    if mean is None or full is None:
        return MISSING
    share = mean / full if full > 0 else float("nan")
    return "-" if share != share else f"{100 * share:.1f}%"
