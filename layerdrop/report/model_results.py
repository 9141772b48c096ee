"""The runs of one model with one setting, as cells (TableRow, column of a task), and their medians over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from layerdrop.data.tasks import DEMO_TASKS, TASKS
from layerdrop.report.frame import metric_names
from layerdrop.report.table_row import FULL, TableRow
from layerdrop.system.text import short_name

METRIC_WORDS = {
    "accuracy": "acc",
    "f1": "F1",
    "f1_macro": "macro F1",
    "pearson": "Pearson",
    "spearmanr": "Spearman",
    "matthews_correlation": "Matthews",
}
Metric = Callable[[str], str]
"""Column -> name of a metric."""


@dataclass(frozen=True)
class Summary:
    """Median over seeds, lowest and highest, in points (hundredths); NaN where it is not defined."""

    median: float
    low: float
    high: float
    n: int


def summarise(points: Iterable[float]) -> Summary | None:
    """Of points; minus infinity (a constant prediction) ranks below every number. None for no values."""
    values = sorted(points)
    if not values:
        return None
    three = statistics.median(values), values[0], values[-1]
    return Summary(*(math.nan if value == -math.inf else value for value in three), len(values))


def metrics_of(task: str) -> list[str]:
    """The metrics that tables show for a task, the main one first; for MNLI those of both splits."""
    row = (TASKS | DEMO_TASKS).get(task)
    if row is None:
        return []
    return [suffix.lstrip("_") + "_" * bool(suffix) + name for suffix in row.suffixes for name in row.metrics]


def task_name(column: str) -> str:
    """A task, or a column of one, as tables write it."""
    task, blank, rest = column.partition(" (")
    row = (TASKS | DEMO_TASKS).get(task)
    return (row.folder if row else task) + blank + rest


class ModelResults:
    """The runs of one model with one setting."""

    def __init__(self, runs: pd.DataFrame, title: str):
        self.runs, self.title = runs, title
        self.model, self.setting = runs["model"].iloc[0], runs["setting"].iloc[0]
        self.rows = sorted(set(runs["row"]), key=TableRow.order)
        self.task_of = dict(zip(runs["column"], runs["task"], strict=True))
        """Column -> task."""

    @cached_property
    def seeds(self) -> int:
        """The most that any cell has."""
        return int(self.runs.groupby(["row", "column"], sort=False)["seed"].nunique().max())

    @cached_property
    def _cells(self) -> dict[tuple[TableRow, str], pd.DataFrame]:
        return dict(iter(self.runs.groupby(["row", "column"], sort=False)))

    def columns(self, tasks: list[str] | None = None) -> list[str]:
        """The columns of these tasks, in that order; of all, in the project's order. A task without a run has one."""
        known = [name for name in (*TASKS, *DEMO_TASKS) if name in self.task_of.values()]
        wanted = tasks or known + sorted(set(self.task_of.values()) - set(known))
        return [c for task in wanted for c in sorted(c for c, t in self.task_of.items() if t == task) or [task]]

    def metrics(self, column: str) -> list[str]:
        """The metrics of a column, as far as some run measured them; the main one if none did."""
        there = self.runs[self.runs["column"] == column]
        measured = {name for name in metric_names(self.runs) if there[name].notna().any()}
        known = metrics_of(self.task_of.get(column, column))
        return [name for name in known if name in measured] or sorted(measured) or known[:1]

    def main_metric(self, column: str) -> str:
        """The one that means over tasks are made of: accuracy, Pearson, Matthews, MNLI's matched accuracy."""
        return next(iter(self.metrics(column)), "")

    def runs_of(self, row: TableRow, columns: Iterable[str]) -> pd.DataFrame:
        """The runs of a row in some columns."""
        return self.runs[(self.runs["row"] == row) & self.runs["column"].isin(list(columns))]

    def cell(self, row: TableRow, column: str, metric: str) -> Summary | None:
        """Over seeds; None where no run measured it."""
        runs = self._cells.get((row, column))
        return None if runs is None or metric not in runs else summarise(runs[metric].dropna())

    def difference(self, row: TableRow, column: str, metric: str) -> float | None:
        """Points above the full model; None where one of the two is missing."""
        full = self.full(row)
        ours, theirs = (self.cell(one, column, metric) for one in (row, full))
        return None if ours is None or theirs is None or row.is_full else ours.median - theirs.median

    @property
    def full_models(self) -> list[TableRow]:
        """The full model's rows: one for each recipe."""
        return [row for row in self.rows if row.is_full]

    @property
    def only_full_model(self) -> TableRow | None:
        """The full model's row; None where there is none or several."""
        return self.full_models[0] if len(self.full_models) == 1 else None

    def full(self, row: TableRow) -> TableRow:
        """The full model that a row is compared with: the one whose recipe differs from its own in the fewest settings;
        FULL, which then is no row, where that is none or several."""
        other = {full: len({name for name, _ in set(full.recipe) ^ set(row.recipe)}) for full in self.full_models}
        nearest = [full for full, n in other.items() if n == min(other.values())]
        return nearest[0] if len(nearest) == 1 else FULL

    def mean(self, row: TableRow, columns: list[str], metric: Metric | None = None) -> float | None:
        """Mean over columns of the medians; None unless every one is there. metric: None for the main one."""
        cells = [self.cell(row, column, (metric or self.main_metric)(column)) for column in columns]
        return None if None in cells or not cells else statistics.fmean(cell.median for cell in cells)

    def median(self, row: TableRow, columns: Iterable[str], fact: str) -> float | None:
        """Median of a fact of the runs (`parameters`, `train`, `inference`); None where no run has it."""
        values = self.runs_of(row, columns)[fact].dropna()
        return None if values.empty else float(statistics.median(values))

    def seconds_ratio(self, row: TableRow, columns: list[str], stage: str) -> float | None:
        """Mean over columns of (median seconds of a stage / those of the full model); None unless all have both."""
        ratios = []
        for column in columns:
            ours, full = (self.median(one, [column], stage) for one in (row, self.full(row)))
            if not ours or not full:
                return None
            ratios.append(ours / full)
        return statistics.fmean(ratios)


def model_results(runs: pd.DataFrame) -> list[ModelResults]:
    """One for each model and setting, in the order of the frame."""
    if runs.empty:
        return []
    models = list(dict.fromkeys(runs["model"]))
    names = {model: short_name(model) for model in models}
    made = []
    for (model, setting), part in runs.groupby(["model", "setting"], sort=False):
        name = names[model] if list(names.values()).count(names[model]) == 1 else model
        made.append(ModelResults(part, f"{name} ({setting})" if setting else name))
    return made
