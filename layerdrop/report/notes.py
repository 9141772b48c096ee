"""Caveats below the tables."""

from __future__ import annotations

import pandas as pd

from layerdrop.report.model_results import model_results, task_name
from layerdrop.report.records import some


def mixtures(runs: pd.DataFrame) -> list[str]:
    """Notes on tables whose runs differ in device, versions or code, and on uncommitted code."""
    notes = []
    for results in model_results(runs):
        for name in ("device", "torch", "transformers", "commit"):
            values = sorted(set(results.runs[name].dropna()))
            if len(values) > 1:
                notes.append(f"{results.title}: mixed {name} ({some(values, ', ')})")
        commits = results.runs["commit"].dropna()
        if n := sum(commit.endswith(" with changes") for commit in commits):
            notes.append(f"{results.title}: the code of {n} of {len(commits)} runs was not committed")
    return notes


def constant_predictions(runs: pd.DataFrame) -> list[str]:
    """Notes on cells with constant or nearly constant predictions, whose score reflects only the label frequencies."""
    same, nearly = [], []
    for results in model_results(runs):
        for (row, column), cell in results.runs.groupby(["row", "column"], sort=False):
            where = f"{results.title}, {' '.join(row.words)}, {task_name(column)}"
            numbers = sorted(map(int, cell["constant"].dropna()))
            of = f"of {len(cell)} seed{'s' * (len(cell) > 1)}"
            if n := numbers.count(1):
                same.append(f"{where} ({n} {of})")
            if more := numbers[n:]:
                nearly.append(f"{where} ({len(more)} {of}: {', '.join(map(str, more))} values in a narrow range)")
    kinds = {"one prediction for every row in": same, "nearly one prediction for every row in": nearly}
    return [f"{what} {len(of)} cell{'s' * (len(of) > 1)}: {some(of)}" for what, of in kinds.items() if of]


def without_full_model(runs: pd.DataFrame) -> list[str]:
    """Tables with rows that have no full model to be compared with."""
    tables = [r.title for r in model_results(runs) if any(r.full(row) not in r.rows for row in r.rows)]
    why = "so its rows are compared with nothing. Add K = 0 to the study"
    return [f"no full model for rows of {some(tables)}, {why}"] * bool(tables)


def repeated(runs: pd.DataFrame) -> list[str]:
    """Runs of one cell and seed: their median counts as several seeds would."""
    twice = runs[runs.duplicated(["model", "setting", "row", "column", "seed"], keep=False)]
    folders = [record.folder if record else "a csv file" for record in twice["record"]]
    return [f"{len(folders)} runs are of a cell and seed that others are of too: {some(folders)}"] * bool(folders)
