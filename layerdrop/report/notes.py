"""What a reader of tables must know beside them."""

from __future__ import annotations

import pandas as pd

from layerdrop.report.frame import Found
from layerdrop.report.sheet import sheets, task_name
from layerdrop.text import one_line

SHOWN = 3
"""Cells, or files, that a note names before it says how many more there are."""
WIDTH = 200


def _some(items: list[str]) -> str:
    more = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def failures(found: Found) -> list[str]:
    """What has failed, and why the first did."""
    if not found.failed:
        return []
    first, n = found.failed[0], len(found.failed)
    runs = "1 run has failed and is" if n == 1 else f"{n} runs have failed and are"
    return [f"{runs} in no table; {first.folder}: {one_line(first.error or 'no reason recorded', WIDTH)}"]


def unreadable(found: Found) -> list[str]:
    """Files that are no records, and runs that have none."""
    notes = []
    if found.unreadable:
        n = len(found.unreadable)
        notes.append(f"{n} unreadable record{'s' * (n > 1)}, in no table: {_some(found.unreadable)}")
    if n := found.unfinished:
        notes.append(f"{n} run{'s' * (n > 1)} without a record (in flight, or killed)")
    return notes


def mixtures(runs: pd.DataFrame) -> list[str]:
    """What one row's runs should have in common but have not: device, versions."""
    notes = []
    for sheet in sheets(runs):
        for how in sheet.rows:
            of_row = sheet.runs[sheet.runs["how"] == how]
            for name in ("device", "torch", "transformers"):
                values = sorted(set(map(str, of_row[name])))
                if len(values) > 1:
                    notes.append(f"{sheet.title}, {' '.join(how.words)}: mixed {name} ({', '.join(values)})")
    return notes


def constant_predictions(runs: pd.DataFrame) -> list[str]:
    """Where a model predicts the same for every row, so that its score says no more than the labels' shares do."""
    cells = []
    for sheet in sheets(runs):
        for (how, column), cell in sheet.runs.groupby(["how", "column"], sort=False):
            if n := int(cell["constant"].sum()):
                where = f"{sheet.title}, {' '.join(how.words)}, {task_name(column)}"
                cells.append(f"{where} ({n} of {len(cell)} seed{'s' * (len(cell) > 1)})")
    return [f"one prediction for every row in {len(cells)} cell{'s' * (len(cells) > 1)}: {_some(cells)}"] * bool(cells)


def repeated(runs: pd.DataFrame) -> list[str]:
    """Runs of one cell and seed: their median counts as several seeds would."""
    twice = runs[runs.duplicated(["model", "setting", "how", "column", "seed"], keep=False)]
    folders = [record.folder for record in twice["record"]]
    return [f"{len(folders)} runs are of a cell and seed that others are of too: {_some(folders)}"] * bool(folders)
