"""A report as one page for a browser: tables to sort and filter, charts, and the runs of each row.

The page needs no network. Values are computed here. The page's script sorts, filters and draws.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from layerdrop.report.marks import Marks, marks_of
from layerdrop.report.model_results import ModelResults, model_results, title_of
from layerdrop.report.notes import BUSY_MARK, BUSY_MARKED
from layerdrop.report.records import StoredRuns
from layerdrop.report.table_row import FULL, TableRow, lines_of
from layerdrop.report.tables.cost import speed_up, time_change
from layerdrop.report.tables.scores import difference, points, spread
from layerdrop.runs.command import command_of
from layerdrop.runs.record import RunRecord

TEMPLATE = Path(__file__).parent / "page.html"
PAGE_MARK = rb"<title>layerdrop report</title>"
"""Pattern that every page contains."""


def page(stored: StoredRuns, runs: pd.DataFrame, notes: Sequence[str], refresh: int | None = None) -> str:
    """Make the page. notes: lines below the table. refresh: seconds after which the browser reloads the page."""
    marks = marks_of(runs["row"])
    rows = [row for results in model_results(runs) for row in _rows(results, marks)]
    marked = any(row[words].endswith(BUSY_MARK) for row in rows for words in ("speed_up_words", "inference_words"))
    data = {
        "rows": rows,
        "failed": [_failure(record) for record in stored.failed],
        "notes": [*notes, *[BUSY_MARKED] * marked],
        "made": f"{datetime.now():%Y-%m-%d %H:%M}",
    }
    template = jinja2.Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = json.dumps(data, allow_nan=False, default=str)
    return template.render(data=Markup(text.replace("<", "\\u003c")), refresh=refresh)


def _rows(results: ModelResults, marks: Marks) -> list[dict[str, Any]]:
    """One row for each strategy and K with runs."""
    columns, rows = results.columns(), []
    lines = lines_of([row for row in results.table_rows if row.k and results.records(row, columns)])
    starts = {row: line[0] for line in lines.values() for row in line}
    for row in results.table_rows:
        records = results.records(row, columns)
        if not records:
            continue
        strategy, k = row
        full = results.full(row)
        training = results.seconds_ratio(row, columns, "train") if full and full.is_full else None
        inference = results.seconds_ratio(row, columns, "inference")
        cells = {}
        for cell in results.main_cells(columns):
            value = results.value(row, cell)
            if value["score"] is not None:
                more = " ".join(filter(None, [spread(value, results.seeds), difference(value)]))
                score = {"score": _number(value["score"]), "words": points(value["score"]), "more": more}
                cells[title_of(cell)] = score
        rows.append(
            {
                "model": results.compared,
                "strategy": strategy,
                "legend": row.legend,
                "k": int(k) if k else None,
                "mark": None if row == FULL else marks[row.legend],
                "start": starts.get(row, row),
                "cells": cells,
                "parameters": results.median(row, columns, "parameters"),
                "speed_up": 1 / training if training else None,
                "speed_up_words": speed_up(training, results.is_busy(row, columns, "train")),
                "inference": inference,
                "inference_words": time_change(inference, results.is_busy(row, columns, "inference")),
                "runs": [_run(record) for record in records if record is not None],
            }
        )
    return rows


def _run(record: RunRecord) -> dict[str, Any]:
    losses = ("train_loss", "loss")
    return {
        "task": record.spec.data.task,
        "seed": record.spec.seed,
        "id": record.id,
        "folder": record.folder,
        "metrics": {name: _number(100 * v) for name, v in record.metrics.items() if not name.endswith("loss")},
        "dropped": record.dropped,
        "why": "; ".join(cut.why for cut in record.cuts if cut.why),
        "seconds": _number(record.seconds.get("total")),
        "device": record.environment.get("device"),
        "curves": [
            {"epoch": entry.get("epoch"), **{name: _number(entry.get(name)) for name in losses}}
            for entry in record.epochs
        ],
        "notes": record.notes,
        "command": command_of(record.spec),
    }


def _failure(record: RunRecord) -> dict[str, Any]:
    strategy, k = TableRow.of(record.spec)
    return {
        "model": record.spec.model.name,
        "task": record.spec.data.task,
        "strategy": strategy,
        "k": k,
        "seed": record.spec.seed,
        "folder": record.folder,
        "error": record.error or "no reason recorded",
    }


def _number(value: float | None) -> float | None:
    """None for a value that JSON cannot represent."""
    return None if value is None or not math.isfinite(value) else float(value)
