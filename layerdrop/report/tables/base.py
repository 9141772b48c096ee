"""The form of all tables, and the words of a cell."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from layerdrop.report.model_results import METRIC_WORDS, ModelResults, Summary, task_name
from layerdrop.report.table_row import FULL, TableRow

MISSING = "missing"


@dataclass
class Table:
    """A title, a line of column names, rows of words, and notes below."""

    kind: str
    """tasks, glue, cost, significance ... : what csv puts together."""
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    values: list[dict[str, object]] = field(default_factory=list)
    """The same for programs: a mapping of column to number or word for each cell; None where it is missing."""


def points(value: float | None, digits: int = 1) -> str:
    """`58.0`; a word where there is no number."""
    if value is None:
        return MISSING
    return "constant" if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None) -> str:
    """`+1.2`; empty where there is no number."""
    return "" if value is None or math.isnan(value) else f"{round(value, 1) + 0.0:+.1f}"  # no -0.0


def spread(cell: Summary, seeds: int) -> str:
    """` [57.0, 59.0] n=2`: lowest and highest value, and the number of seeds if other cells have more."""
    few = f" n={cell.n}" if cell.n != seeds else ""
    return f" [{points(cell.low)}, {points(cell.high)}]{few}" if cell.n > 1 else few


def against_published(ours: Summary | None, theirs: Summary | None) -> str:
    """The published value, and how far above it ours is."""
    if theirs is None:
        return ""
    return f"published {theirs.median:.1f}" + (f" ({ours.median - theirs.median:+.1f})" if ours else "")


def title_of(column: str, metric: str) -> str:
    """Of a column: `MNLI-m acc`."""
    name = task_name(column)
    side, _, rest = metric.partition("_")
    if side in ("matched", "mismatched"):
        return f"{name}-{'m' if side == 'matched' else 'mm'} {METRIC_WORDS.get(rest, rest)}"
    return f"{name} {METRIC_WORDS.get(metric, metric)}"


def names(columns: list[str]) -> str:
    """Of the columns, with commas."""
    return ", ".join(map(task_name, columns))


def rows_of(results: ModelResults) -> list[TableRow]:
    """The rows in order, the full models first; FULL also where there is none."""
    return [*(results.full_models or [FULL]), *(row for row in results.rows if not row.is_full)]


def place(results: ModelResults, row: TableRow) -> dict[str, object]:
    """The place of a value, for programs."""
    strategy, k = row.words
    return {"model": results.model, "setting": results.setting, "strategy": strategy, "k": k}


def value_of(
    results: ModelResults,
    row: TableRow,
    column: str,
    metric: str,
    cell: Summary | None = None,
    theirs: Summary | None = None,
) -> dict[str, object]:
    """A cell for programs, in points."""
    return place(results, row) | {
        "task": column,
        "metric": metric,
        "seeds": cell.n if cell else None,
        "score": cell and cell.median,
        "lowest": cell and cell.low,
        "highest": cell and cell.high,
        "difference": results.difference(row, column, metric) if cell else None,
        "published": theirs and theirs.median,
    }


def loss(row: TableRow, mean: float | None, full: float | None) -> float | None:
    """The mean minus the full model's, in points; None for the full model, and where one is missing."""
    return None if mean is None or full is None or row.is_full else mean - full


def mean_value(
    results: ModelResults, row: TableRow, columns: list[str], mean: float | None, below: float | None
) -> dict:
    """The mean over columns for programs."""
    return value_of(results, row, "mean", f"over {' '.join(columns)}") | {"score": mean, "difference": below}
