"""The runs of one model with one setting, as cells (TableRow, column of a task), and their medians over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from layerdrop.data.tasks import DEMO_TASKS, TASKS, metric_prefix
from layerdrop.report.frame import metric_names
from layerdrop.report.table_row import FULL, TableRow, full_models
from layerdrop.runs.predictions import SUFFIXES
from layerdrop.runs.record import RunRecord
from layerdrop.system.text import short_name

METRIC_WORDS = {
    "entity_f1": "entity F1",
    "entity_precision": "entity precision",
    "entity_recall": "entity recall",
    "f1_micro": "micro F1",
    "accuracy": "acc",
    "f1": "F1",
    "f1_macro": "macro F1",
    "exact_match": "exact match",
    "pearson": "Pearson",
    "spearmanr": "Spearman",
    "matthews_correlation": "Matthews",
}
"""Metric -> its name in tables. The first metric of a task of own files is its main metric."""
METRIC_ORDER = {name: i for i, name in enumerate(METRIC_WORDS)}
GLUE = TASKS | DEMO_TASKS
Cell = tuple[str, str]
"""(column, metric as recorded)."""


# ---- names -----------------------------------------------------------------------------------------------------------
def metrics_of(task: str) -> dict[str, tuple[str, str]]:
    """Recorded name of each metric of a GLUE task, main metric first -> (suffix of the split in tables, metric).

    `matched_accuracy` -> (`-m`, `accuracy`). Empty for own data.
    """
    row = GLUE.get(task)
    if row is None:
        return {}
    splits = zip(row.splits("validation"), row.suffixes, strict=True)
    return {metric_prefix(split) + name: (SUFFIXES[end], name) for split, end in splits for name in row.metrics}


def metric_word(cell: Cell) -> str:
    """Name of a metric in tables: `acc`, `F1`."""
    _, name = metrics_of(cell[0].partition(" (")[0]).get(cell[1], ("", cell[1]))
    return METRIC_WORDS.get(name, name)


def title_of(cell: Cell) -> str:
    """Heading of a cell's column: `MNLI-m acc`."""
    ending, _ = metrics_of(cell[0].partition(" (")[0]).get(cell[1], ("", ""))
    return f"{task_name(cell[0])}{ending} {metric_word(cell)}"


def task_name(column: str) -> str:
    """Name of a column's task in tables, with the settings of the column."""
    task, blank, rest = column.partition(" (")
    return (GLUE[task].folder if task in GLUE else task) + blank + rest


# ---- medians ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Summary:
    """Median, lowest and highest score over seeds, in points. NaN: undefined."""

    median: float
    low: float
    high: float
    n: int


def summarize(points: Iterable[float]) -> Summary | None:
    """Summarize scores in points. Minus infinity (a constant prediction) ranks below every number. None: no scores."""
    values = sorted(points)
    if not values:
        return None
    three = statistics.median(values), values[0], values[-1]
    return Summary(*(math.nan if value == -math.inf else value for value in three), len(values))


class ModelResults:
    """The runs of one model with one setting."""

    def __init__(self, runs: pd.DataFrame, title: str):
        self.runs, self.title = runs, title
        self._scores_of: dict[tuple[TableRow, Cell], dict[float, list[float]]] = {}
        self._numbers: dict[str, list[float]] = {}
        """Column of the frame -> its values. Lists, because a report looks up single values of many cells."""
        self.model, self.setting = runs["model"].iloc[0], runs["setting"].iloc[0]
        self.rows = sorted(set(runs["row"]), key=TableRow.order)
        self.task_of = dict(zip(runs["column"], runs["task"], strict=True))
        """Column -> task."""
        self.cells: dict[tuple[TableRow, str], list[int]] = {}
        """(row, column) -> positions of its runs in `runs`."""
        for i, place in enumerate(zip(runs["row"], runs["column"], strict=True)):
            self.cells.setdefault(place, []).append(i)
        self.seeds = max(len(set(self.known("seed", positions))) for positions in self.cells.values())
        """Maximum number of seeds of a cell."""
        nearest = _nearest_full_models(self.rows)
        self._full_models = {row: full[0] for row, full in nearest.items() if len(full) == 1}
        self.undecided = {row for row, full in nearest.items() if len(full) > 1}
        """The rows to which several full models are equally near."""
        self.full_models = {row: None for row in self.rows if self.is_compared_with_itself(row)}
        """The rows that other rows are compared with, as an ordered set."""
        self.only_full_model = next(iter(self.full_models)) if len(self.full_models) == 1 else None
        needed = len(self._full_models) < len(self.rows) and not any(row.is_full for row in self.rows)
        missing = [FULL] * needed
        self.table_rows = [*missing, *self.full_models, *(row for row in self.rows if row not in self.full_models)]
        """The rows of a table. The full models come first, also FULL without a run if a row needs it."""
        used = {self.full(row) for row in self.rows if not self.is_compared_with_itself(row)}
        self.compared = title + _comparison([row for row in self.full_models if row in used and not row.is_full])
        """The title of a table with differences. Tells which full models have a training variant."""

    def columns(self, tasks: list[str] | None = None) -> list[str]:
        """Columns of tasks, in the given order; None: all tasks, in GLUE's order. A task without runs has a column."""
        known = [name for name in GLUE if name in self.task_of.values()]
        tasks = tasks or known + sorted(set(self.task_of.values()) - set(known))
        return [c for task in tasks for c in sorted(c for c, t in self.task_of.items() if t == task) or [task]]

    def missing_full_models(self) -> list[tuple[TableRow, str]]:
        """The cells (full model, column) without a run that runs of other rows are compared with."""
        needed = {(self.full(row), column) for row, column in self.cells} - self.cells.keys()
        return [(full, column) for full in self.full_models for column in self.columns() if (full, column) in needed]

    @cached_property
    def _measured(self) -> dict[str, set[str]]:
        """Column -> the metrics of its runs."""
        counts = self.runs.groupby("column", sort=False)[metric_names(self.runs)].count()
        return {column: set(counts.columns[counts.loc[column] > 0]) for column in counts.index}

    def metrics(self, column: str) -> list[str]:
        """Recorded metrics of a column. Without a recorded metric: the task's main metric."""
        measured = self._measured.get(column, set())
        known = list(metrics_of(self.task_of.get(column, column)))
        of_own_files = sorted(measured, key=lambda name: (METRIC_ORDER.get(name, len(METRIC_ORDER)), name))
        return [name for name in known if name in measured] or of_own_files or known[:1]

    def main_cells(self, columns: Iterable[str]) -> list[Cell]:
        """Each column with its main metric: accuracy, Pearson, Matthews, MNLI's matched accuracy."""
        return [(column, next(iter(self.metrics(column)), "")) for column in columns]

    def records(self, row: TableRow, columns: Iterable[str]) -> list[RunRecord | None]:
        """The records of a row's runs in some columns, in the order of the frame. None for a run from a csv file."""
        return [self._records[i] for i in sorted(self._positions(row, columns))]

    @cached_property
    def _records(self) -> list[RunRecord | None]:
        return self.runs["record"].tolist()

    def _positions(self, row: TableRow, columns: Iterable[str]) -> list[int]:
        return [i for column in columns for i in self.cells.get((row, column), ())]

    def known(self, name: str, positions: Iterable[int]) -> list[float]:
        """The values of some runs in a column of the frame, without missing values."""
        if name not in self._numbers:
            self._numbers[name] = self.runs[name].astype(float).tolist()
        values = self._numbers[name]
        return [value for value in (values[i] for i in positions) if not math.isnan(value)]

    def summary(self, row: TableRow, cell: Cell) -> Summary | None:
        """Summarize a metric over seeds. None if no run has the metric."""
        column, metric = cell
        return summarize(self.known(metric, self._positions(row, [column]))) if metric in self.runs else None

    def full(self, row: TableRow) -> TableRow | None:
        """The full model to compare a row with: the recipe that differs in the fewest settings.

        Without a plain full model: K = 0 of the same training. None if there is no full model, or if several differ in
        equally few settings.
        """
        return self._full_models.get(row)

    def is_compared_with_itself(self, row: TableRow) -> bool:
        """Whether a row is a full model that rows are compared with."""
        return self.full(row) == row

    @cached_property
    def _counterparts(self) -> dict[TableRow, tuple | None]:
        return dict(zip(self.runs["row"], self.runs["counterparts"], strict=True))

    def counterpart(self, row: TableRow, strategy: str) -> TableRow | None:
        """The row of a strategy with the same K, training and settings: of several, the one whose own settings, such as
        `score_split`, differ least. None if there is no such row, or if several are equally near."""
        own = self._counterparts[row]
        same = [other for other, its in self._counterparts.items() if own and its == own and other.name == strategy]
        nearest = _nearest(row, same)
        return nearest[0] if len(nearest) == 1 else None

    def place(self, row: TableRow) -> dict[str, object]:
        """The identifying columns of a machine-readable row."""
        strategy, k = row
        return {"model": self.model, "setting": self.setting, "strategy": strategy, "k": k}

    def value(self, row: TableRow, cell: Cell, other: ModelResults | None = None) -> dict[str, object]:
        """A machine-readable cell, in points; None for missing values. other: published results."""
        ours, pair = self.summary(row, cell), self._with_full_model(row, cell)
        theirs = other and other.summary(row, cell)
        value = self.place(row) | {"task": cell[0], "metric": cell[1], "seeds": ours and ours.n}
        value |= {"score": ours and ours.median, "lowest": ours and ours.low, "highest": ours and ours.high}
        value |= {"difference": pair and pair[0] - pair[1], "difference_seeds": pair and pair[2]}
        return value | {"published": theirs and theirs.median}

    def _scores(self, row: TableRow, cell: Cell) -> dict[float, list[float]]:
        """Seed -> the scores of its runs in a cell, usually one."""
        if (row, cell) not in self._scores_of:
            column, metric = cell
            scores = self._scores_of[row, cell] = {}
            for i in self._positions(row, [column]) if metric in self.runs else ():
                for seed, score in zip(self.known("seed", [i]), self.known(metric, [i]), strict=False):
                    scores.setdefault(seed, []).append(score)
        return self._scores_of[row, cell]

    def _with_full_model(self, row: TableRow, cell: Cell) -> tuple[float, float, int] | None:
        """(median, median of the full model, number of seeds) over the seeds that both have.

        Without a common seed: over all seeds, and 0. None without scores of both, and for the full model itself.
        """
        base = self.full(row)
        if base in (None, row):
            return None
        ours, full = self._scores(row, cell), self._scores(base, cell)
        if not ours or not full:
            return None
        common = ours.keys() & full.keys()
        medians = [
            summarize(score for seed, scores in of_row.items() if seed in common or not common for score in scores)
            for of_row in (ours, full)
        ]
        return medians[0].median, medians[1].median, len(common)

    def mean(self, row: TableRow, cells: Sequence[Cell]) -> float | None:
        """Mean of the medians over cells. None unless the row has every cell."""
        summaries = [self.summary(row, cell) for cell in cells]
        return None if None in summaries or not summaries else statistics.fmean(s.median for s in summaries)

    def mean_with_full_model(self, row: TableRow, cells: Sequence[Cell]) -> tuple[float, float, int] | None:
        """Means over cells of _with_full_model, and the lowest number of seeds. None unless all cells have both."""
        pairs = [self._with_full_model(row, cell) for cell in cells]
        known = [pair for pair in pairs if pair]
        if not known or len(known) < len(pairs):
            return None
        ours, full, seeds = zip(*known, strict=True)
        return statistics.fmean(ours), statistics.fmean(full), min(seeds)

    def mean_value(self, row: TableRow, cells: Sequence[Cell]) -> dict[str, object]:
        """The mean over cells, machine-readable, with its difference to the full model."""
        pair = self.mean_with_full_model(row, cells)
        value = dict.fromkeys(self.value(row, cells[0])) | self.place(row)
        value |= {"task": "mean", "metric": f"over {' '.join(column for column, _ in cells)}"}
        value |= {"difference": pair and pair[0] - pair[1], "difference_seeds": pair and pair[2]}
        return value | {"score": self.mean(row, cells)}

    def median(self, row: TableRow, columns: Iterable[str], fact: str) -> float | None:
        """Median of a fact of the runs (`parameters`, `train`, `inference`). None if no run has the fact."""
        values = self.known(fact, self._positions(row, columns))
        return statistics.median(values) if values else None

    def seconds_ratio(self, row: TableRow, columns: list[str], stage: str) -> float | None:
        """Mean over columns of a stage's median seconds, relative to the full model. None if a column lacks seconds."""
        ratios, base = [], self.full(row)
        if base is None:
            return None
        for column in columns:
            ours, full = (self.median(one, [column], stage) for one in (row, base))
            if not ours or not full:
                return None
            ratios.append(ours / full)
        return statistics.fmean(ratios)

    def is_busy(self, row: TableRow, columns: list[str], stage: str) -> bool:
        """Whether other processes ran beside a run of `seconds_ratio`, which is then not comparable."""
        compared = {row, base} if (base := self.full(row)) else set()
        positions = [i for one in compared for i in self._positions(one, columns) if self.known(stage, [i])]
        return any(self.known("busy", positions))


def _nearest_full_models(rows: Iterable[TableRow]) -> dict[TableRow, list[TableRow]]:
    """Row -> the full models that differ from it in the fewest settings: plain ones, else those of its training."""
    of_training: dict[TableRow, list[TableRow]] = {}
    for full in full_models(rows).values():
        of_training.setdefault(full.training, []).append(full)
    found: dict[TableRow, list[TableRow]] = {}  # TableRow.full_depth -> nearest full models
    places = {row: row.full_depth for row in rows}
    for row, place in places.items():
        if place not in found:
            found[place] = _nearest(place, of_training.get(FULL) or of_training.get(row.training, []))
    return {row: found[place] for row, place in places.items()}


def _nearest(row: TableRow, others: Iterable[TableRow]) -> list[TableRow]:
    """The rows that differ from a row in the fewest settings."""
    distance = {other: len({setting.split()[0] for setting in other.settings ^ row.settings}) for other in others}
    least = min(distance.values(), default=0)
    return [other for other, n in distance.items() if n == least]


def _comparison(full_models: list[TableRow]) -> str:
    """The end of a title of differences to full models with a training variant. Empty without such models."""
    if len(full_models) > 2:
        return ", each row compared with K = 0 of its own training"
    return ", compared with " * bool(full_models) + " and ".join(row.strategy for row in full_models)


def model_results(runs: pd.DataFrame) -> list[ModelResults]:
    """Group runs by model and setting, in the order of the frame."""
    if runs.empty:
        return []
    short = {model: short_name(model) for model in runs["model"].unique()}
    results = []
    for (model, setting), part in runs.groupby(["model", "setting"], sort=False):
        name = short[model] if list(short.values()).count(short[model]) == 1 else model
        results.append(ModelResults(part, f"{name} ({setting})" if setting else name))
    return results
