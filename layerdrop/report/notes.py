"""Caveats below the tables."""

from __future__ import annotations

import pandas as pd

from layerdrop.report.model_results import model_results, task_name
from layerdrop.report.records import some


def mixtures(runs: pd.DataFrame) -> list[str]:
    """Notes on rows whose runs differ in device or versions."""
    notes = []
    for results in model_results(runs):
        for row in results.rows:
            of_row = results.runs[results.runs["row"] == row]
            for name in ("device", "torch", "transformers"):
                values = sorted(set(map(str, of_row[name])))
                if len(values) > 1:
                    notes.append(f"{results.title}, {' '.join(row.words)}: mixed {name} ({', '.join(values)})")
    return notes


def constant_predictions(runs: pd.DataFrame) -> list[str]:
    """Where a model predicts the same for every row, so that its score says no more than the labels' shares do."""
    cells = []
    for results in model_results(runs):
        for (row, column), cell in results.runs.groupby(["row", "column"], sort=False):
            if n := int(cell["constant"].sum()):
                where = f"{results.title}, {' '.join(row.words)}, {task_name(column)}"
                cells.append(f"{where} ({n} of {len(cell)} seed{'s' * (len(cell) > 1)})")
    return [f"one prediction for every row in {len(cells)} cell{'s' * (len(cells) > 1)}: {some(cells)}"] * bool(cells)


def without_full_model(runs: pd.DataFrame) -> list[str]:
    """Tables with rows that have no full model to be compared with."""
    tables = [r.title for r in model_results(runs) if any(r.full(row) not in r.rows for row in r.rows)]
    why = "so its rows are compared with nothing. Add K = 0 to the study"
    return [f"no full model for rows of {some(tables)}, {why}"] * bool(tables)


def repeated(runs: pd.DataFrame) -> list[str]:
    """Runs of one cell and seed: their median counts as several seeds would."""
    twice = runs[runs.duplicated(["model", "setting", "row", "column", "seed"], keep=False)]
    folders = [record.folder for record in twice["record"]]
    return [f"{len(folders)} runs are of a cell and seed that others are of too: {some(folders)}"] * bool(folders)
