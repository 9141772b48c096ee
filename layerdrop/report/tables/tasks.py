"""Scores by strategy, K and task, as Sajjad et al.'s Table 2."""

from __future__ import annotations

import pandas as pd

from layerdrop.report.model_results import METRIC_WORDS, ModelResults, Summary, model_results
from layerdrop.report.table_row import TableRow
from layerdrop.report.tables.base import (
    Table,
    against_published,
    loss,
    mean_value,
    names,
    points,
    rows_of,
    signed,
    spread,
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
    others = {} if beside is None else {results.model: results for results in model_results(beside)}
    return [
        _table(results, results.columns(tasks), others.get(results.model), all_metrics)
        for results in model_results(runs)
    ]


def _table(results: ModelResults, wanted: list[str], other: ModelResults | None, all_metrics: bool) -> Table:
    columns = [(column, metric) for column in wanted for metric in results.metrics(column)]
    main = [(column, results.main_metric(column)) for column in wanted]
    shown = columns if all_metrics else main
    header = ["strategy", "K", *(title_of(*column) for column in shown), "mean", "difference"]
    rows, values = [], []
    for row in rows_of(results):
        cells = []
        for column in columns:
            cell, theirs = results.cell(row, *column), other and other.cell(row, *column)
            values.append(value_of(results, row, *column, cell, theirs))
            if column in shown:
                cells.append(_words(results, row, column, cell, theirs))
        mean = results.mean(row, wanted)
        below = loss(row, mean, results.mean(results.full(row), wanted))
        rows.append([*row.words, *cells, points(mean), signed(below)])
        values.append(mean_value(results, row, wanted, mean, below))
    return Table("tasks", results.title, header, rows, [_note(results, wanted)], values)


def _words(
    results: ModelResults, row: TableRow, column: tuple[str, str], cell: Summary | None, theirs: Summary | None
) -> str:
    words = [points(cell and cell.median) + (spread(cell, results.seeds) if cell else "")]
    words += [signed(results.difference(row, *column)), against_published(cell, theirs)]
    return " ".join(word for word in words if word)


def _note(results: ModelResults, wanted: list[str]) -> str:
    several = results.seeds > 1
    metrics = [results.main_metric(column).removeprefix("matched_") for column in wanted]
    words = ", ".join(dict.fromkeys(METRIC_WORDS.get(name, name) for name in metrics))
    return (
        f"Median over {results.seeds} seed{'s' * several} on the development set in points, "
        f"{'[lowest, highest], ' * several}then the difference to the full model. "
        f"mean and difference: over {names(wanted)} ({words})."
    )
