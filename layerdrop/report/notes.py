"""Notes on the runs of a report, below its tables."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from layerdrop.report.model_results import model_results, task_name
from layerdrop.report.records import StoredRuns, failures, incomplete_notes, shorten

BUSY_MARK = "*"
"""Mark of seconds that were measured beside other processes."""
BUSY_MARKED = "an asterisk marks times of such runs, and times that are compared with them"


def notes_on(
    stored: StoredRuns, runs: pd.DataFrame, tasks: list[str] | None = None, compared: bool = True
) -> list[str]:
    """All notes. runs: the frame of `stored`. tasks: leave out the runs of other tasks; None: all. compared: whether
    rows are compared with full models."""
    if tasks:
        runs = runs[runs["task"].isin(tasks)]
        stored = replace(stored, failed=[record for record in stored.failed if record.spec.data.task in tasks])
    of_tables = mixtures(runs) + constant_predictions(runs) + repeated(runs)
    of_tables += without_full_model(runs) if compared else []
    return failures(stored) + incomplete_notes(stored) + of_tables + busy(runs)


def mixtures(runs: pd.DataFrame) -> list[str]:
    """Name tables that mix devices, versions or commits, or contain runs of uncommitted code."""
    notes = []
    for results in model_results(runs):
        for name in ("device", "torch", "transformers", "commit"):
            values = sorted(set(results.runs[name].dropna()))
            if len(values) > 1:
                notes.append(f"{results.title}: mixed {name} ({shorten(values, ', ')})")
        commits = results.runs["commit"].dropna()
        if n := sum(commit.endswith(" with changes") for commit in commits):
            notes.append(f"{results.title}: the code of {n} of {len(commits)} runs was not committed")
    return notes


def constant_predictions(runs: pd.DataFrame) -> list[str]:
    """Name cells with constant or nearly constant predictions, whose score reflects only the label frequencies."""
    constant, nearly = [], []
    for results in model_results(runs):
        for (row, column), runs_of_cell in results.cells.items():
            numbers = sorted(map(int, results.known("constant", runs_of_cell)))
            where = f"{results.title}, {' '.join(row)}, {task_name(column)}"
            seeds = f"of {len(runs_of_cell)} seed{'s' * (len(runs_of_cell) > 1)}"
            if n := numbers.count(1):
                constant.append(f"{where} ({n} {seeds})")
            if more := numbers[n:]:
                nearly.append(
                    f"{where} ({len(more)} {seeds}: {' and '.join(map(str, more))} different values in a narrow range)"
                )
    kinds = {"constant predictions in": constant, "nearly constant predictions in": nearly}
    return [
        f"{kind} {len(cells)} cell{'s' * (len(cells) > 1)}: {shorten(cells)}" for kind, cells in kinds.items() if cells
    ]


def busy(runs: pd.DataFrame) -> list[str]:
    """The number of runs whose times were measured beside other processes."""
    n, of = int(runs["busy"].sum()), len(runs)
    return [f"times of {n} of {of} runs were measured beside other processes and are not comparable"] * bool(n)


def without_full_model(runs: pd.DataFrame) -> list[str]:
    """Name tables without a plain full model: those whose differences are to other rows, and those without any."""
    results = model_results(runs)
    compared = [r.compared for r in results if r.compared != r.title]
    undecided = [r.title for r in results if r.undecided]
    missing = [r.title for r in results if any(not (r.full(row) or row in r.undecided) for row in r.rows)]
    notes = [f"no plain full model (K = 0 without a training variant): {shorten(compared)}"] * bool(compared)
    for tables, reason, advice in (
        (missing, "no full model to compare with in", "Add K = 0 to the study"),
        (undecided, "several full models are equally near to rows in", "Add K = 0 with the settings of these rows"),
    ):
        notes += [f"{reason} {shorten(tables)}, so these rows have no differences. {advice}"] * bool(tables)
    places = [(table, *cell) for table in results for cell in table.missing_full_models()]
    cells = [f"{table.title}, {' '.join(row)}, {task_name(column)}" for table, row, column in places]
    lacking = f"no run of the full model in {len(cells)} cell{'s' * (len(cells) > 1)} that rows are compared with"
    notes += [f"{lacking}: {shorten(cells)}. Add K = 0 of these tasks to the study"] * bool(cells)
    return notes


def repeated(runs: pd.DataFrame) -> list[str]:
    """Name runs with the same cell and seed. Their median counts them as several seeds."""
    twice = runs[runs.duplicated(["model", "setting", "row", "column", "seed"], keep=False)]
    folders = [record.folder if record else "a csv file" for record in twice["record"]]
    effect = "are in the same table cell with the same seed, so the median counts this seed more than once"
    return [f"{len(folders)} runs {effect}: {shorten(folders)}"] * bool(folders)
