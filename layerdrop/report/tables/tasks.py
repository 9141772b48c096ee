"""Scores by strategy, K and task, as Sajjad et al.'s Table 2."""

from __future__ import annotations

import pandas as pd

from layerdrop.report.how import FULL, How
from layerdrop.report.sheet import METRIC_WORDS, Sheet, Summary, sheets
from layerdrop.report.tables.base import (
    Table,
    against_published,
    loss,
    mean_value,
    names,
    points,
    rows_of,
    signed,
    title_of,
    value_of,
)


def task_tables(
    runs: pd.DataFrame,
    tasks: list[str] | None = None,
    beside: pd.DataFrame | None = None,
    all_metrics: bool = False,
) -> list[Table]:
    """For each model: strategies and K as rows, tasks as columns, the median over seeds with its spread and its
    difference to the full model, and the mean difference over tasks (the Loss column of Sajjad et al.'s Table 3, with
    the sign turned round). tasks: those columns only. beside: published figures, shown with the difference to them.
    all_metrics: every metric of a task, instead of the main one; `values` have all in any case."""
    others = {} if beside is None else {sheet.model: sheet for sheet in sheets(beside)}
    return [_table(sheet, sheet.columns(tasks), others.get(sheet.model), all_metrics) for sheet in sheets(runs)]


def _table(sheet: Sheet, wanted: list[str], other: Sheet | None, all_metrics: bool) -> Table:
    columns = [(column, metric) for column in wanted for metric in sheet.metrics(column)]
    main = [(column, sheet.main_metric(column)) for column in wanted]
    shown = columns if all_metrics else main
    header = ["strategy", "K", *(title_of(*column) for column in shown), "mean", "difference"]
    rows, values = [], []
    full = sheet.mean(FULL, wanted)
    for how in rows_of(sheet):
        cells = []
        for column in columns:
            cell, theirs = sheet.cell(how, *column), other and other.cell(how, *column)
            values.append(value_of(sheet, how, *column, cell, theirs))
            if column in shown:
                cells.append(_words(sheet, how, column, cell, theirs))
        mean = sheet.mean(how, wanted)
        below = loss(how, mean, full)
        rows.append([*how.words, *cells, points(mean), signed(below)])
        values.append(mean_value(sheet, how, wanted, mean, below))
    return Table("tasks", sheet.title, header, rows, [_note(sheet, wanted)], values)


def _words(sheet: Sheet, how: How, column: tuple[str, str], cell: Summary | None, theirs: Summary | None) -> str:
    words = [points(cell and cell.median) + (_spread(cell, sheet.seeds) if cell else "")]
    words += [signed(sheet.difference(how, *column)), against_published(cell, theirs)]
    return " ".join(word for word in words if word)


def _spread(cell: Summary, seeds: int) -> str:
    """The lowest and highest, and how many seeds where that is not the number of the others."""
    few = f" n={cell.n}" if cell.n != seeds else ""
    return f" [{points(cell.low)}, {points(cell.high)}]{few}" if cell.n > 1 else few


def _note(sheet: Sheet, wanted: list[str]) -> str:
    several = sheet.seeds > 1
    metrics = [sheet.main_metric(column).removeprefix("matched_") for column in wanted]
    words = ", ".join(dict.fromkeys(METRIC_WORDS.get(name, name) for name in metrics))
    return (
        f"Median over {sheet.seeds} seed{'s' * several} on the development set in points, "
        f"{'[lowest, highest], ' * several}then the difference to the full model. "
        f"mean and difference: over {names(wanted)} ({words})."
    )
