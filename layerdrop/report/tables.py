"""Results as tables: Markdown and LaTeX for people, CSV with one value in each column for programs."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
import statistics
from dataclasses import dataclass, field

from tabulate import tabulate

from layerdrop.analysis import Comparison, compare_predictions
from layerdrop.report.results import FULL, METRIC_WORDS, How, Result, Sheet, Summary, main_metric, sheets, task_name
from layerdrop.tasks import DEMO_TASKS, TASKS

MISSING = "missing"


@dataclass
class Table:
    """A title, a line of column names, rows of words, and notes below."""

    kind: str
    """tasks, glue, cost or significance."""
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    values: list[dict[str, object]] = field(default_factory=list)
    """The same for programs: a mapping of column to number or word for each cell; None where it is missing."""


def render(tables: list[Table], form: str) -> str:
    """form: md, latex (booktabs), csv (the tables of a kind together; kinds are a blank line apart)."""
    if form == "csv":
        kinds: dict[str, list[dict[str, object]]] = {}
        for table in tables:
            kinds.setdefault(table.kind, []).extend({"table": table.kind} | value for value in table.values)
        return "\n\n".join(_csv(list(values[0]), values) for values in kinds.values() if values)
    return "\n\n".join({"md": _markdown, "latex": _latex}[form](table) for table in tables)


def _markdown(table: Table) -> str:
    body = tabulate(table.rows, table.header, tablefmt="github", disable_numparse=True)
    return "\n\n".join([f"### {table.title}", body, *(f"*{note}*" for note in table.notes)])


def _latex(table: Table) -> str:
    body = tabulate(table.rows, table.header, tablefmt="latex_booktabs", disable_numparse=True)
    body = re.sub(r"(?<![\w.,])-(\d)", r"$-$\1", body).replace(">", "$>$")
    return "\n".join([f"% {table.title}", body, *(f"% {note}" for note in table.notes)])


def _csv(columns: list[str], values: list[dict[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in values:
        writer.writerow({name: round(x, 4) if isinstance(x, float) else x for name, x in row.items()})
    return text.getvalue().rstrip("\n")


# ---- words for a cell -----------------------------------------------------------------------------------------------
def _points(value: float | None, digits: int = 1) -> str:
    if value is None:
        return MISSING
    return "constant" if math.isnan(value) else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{round(value, 1) + 0.0:+.1f}"  # no -0.0


def _spread(cell: Summary, seeds: int) -> str:
    """The lowest and highest, and how many seeds where that is not the number of the others."""
    few = f" n={cell.n}" if cell.n != seeds else ""
    return f" [{_points(cell.low)}, {_points(cell.high)}]{few}" if cell.n > 1 else few


def _published(ours: Summary | None, theirs: Summary | None) -> str:
    """The published value, and how far above it ours is."""
    if theirs is None:
        return ""
    return f"published {theirs.median:.1f}" + (f" ({ours.median - theirs.median:+.1f})" if ours else "")


def _task_title(task: str, metric: str) -> str:
    name = task_name(task)
    side, _, rest = metric.partition("_")
    if side in ("matched", "mismatched"):
        return f"{name}-{'m' if side == 'matched' else 'mm'} {METRIC_WORDS.get(rest, rest)}"
    return f"{name} {METRIC_WORDS.get(metric, metric)}"


def _names(tasks: list[str]) -> str:
    return ", ".join(map(task_name, tasks))


def _rows_of(sheet: Sheet) -> list[How]:
    """The rows in order, the full model first, also where it is missing."""
    return [FULL, *(how for how in sheet.rows if how != FULL)]


# ---- per task, as Sajjad et al.'s Table 2 ----------------------------------------------------------------------------
def task_tables(
    found: list[Result], tasks: list[str] | None = None, beside: list[Result] = (), all_metrics: bool = False
) -> list[Table]:
    """For each model: strategies and K as rows, tasks as columns, the median over seeds with its spread and its
    difference to the full model, and the mean difference over tasks (the Loss column of Sajjad et al.'s Table 3, with
    the sign turned round). tasks: those columns only. beside: published results, shown with the difference to them.
    all_metrics: every metric of a task, instead of the main one; `values` have all in any case."""
    others = {sheet.model: sheet for sheet in sheets(beside)}
    made = []
    for sheet in sheets(found):
        wanted = tasks or sheet.tasks
        columns = [(task, metric) for task in wanted for metric in sheet.metrics(task)]
        main = [(task, main_metric(task, sheet.metrics(task))) for task in wanted]
        shown = columns if all_metrics else [column for column in columns if column in main]
        seeds = max((len(cell) for row in sheet.rows.values() for cell in row.values()), default=0)
        other = others.get(sheet.model)
        header = ["strategy", "K", *(_task_title(*column) for column in shown), "mean", "difference"]
        rows, values = [], []
        for how in _rows_of(sheet):
            cells = []
            for task, metric in columns:
                cell, theirs = sheet.cell(how, task, metric), other and other.cell(how, task, metric)
                difference = sheet.difference(how, task, metric)
                values.append(_value(sheet, how, task, metric, cell, difference, theirs))
                if (task, metric) in shown:
                    words = [_points(cell and cell.median) + (_spread(cell, seeds) if cell else "")]
                    words += [_signed(difference), _published(cell, theirs)]
                    cells.append(" ".join(word for word in words if word))
            mean, full = sheet.mean(how, wanted), sheet.mean(FULL, wanted)
            loss = _loss(how, mean, full)
            rows.append([*how.words, *cells, _points(mean), _signed(loss)])
            values.append(_mean_value(sheet, how, wanted, mean, loss))
        note = (
            f"Median over {seeds} seed{'s' * (seeds != 1)} on the development set in points, "
            f"{'[lowest, highest], ' * (seeds > 1)}then the difference to the full model. "
            f"mean and difference: over {_names(wanted)} "
            f"({', '.join(dict.fromkeys(_task_metric_words(sheet, task) for task in wanted))})."
        )
        made.append(Table("tasks", sheet.title, header, rows, [note], values))
    return made


def _place(sheet: Sheet, how: How) -> dict[str, object]:
    strategy, k = how.words
    return {"model": sheet.model, "setting": sheet.setting, "strategy": strategy, "k": k}


def _value(
    sheet: Sheet,
    how: How,
    task: str,
    metric: str,
    cell: Summary | None = None,
    difference: float | None = None,
    theirs: Summary | None = None,
) -> dict[str, object]:
    """A cell for programs, in points."""
    return _place(sheet, how) | {
        "task": task,
        "metric": metric,
        "seeds": cell.n if cell else None,
        "score": cell and cell.median,
        "lowest": cell and cell.low,
        "highest": cell and cell.high,
        "difference": difference,
        "published": theirs and theirs.median,
    }


def _loss(how: How, mean: float | None, full: float | None) -> float | None:
    """Points of the mean above the full model's; None for that itself, and where one is missing."""
    return None if mean is None or full is None or how == FULL else mean - full


def _mean_value(sheet: Sheet, how: How, tasks: list[str], mean: float | None, loss: float | None) -> dict[str, object]:
    """The mean over tasks for programs."""
    return _value(sheet, how, "mean", f"over {' '.join(tasks)}") | {"score": mean, "difference": loss}


def _task_metric_words(sheet: Sheet, task: str) -> str:
    metric = main_metric(task, sheet.metrics(task))
    return METRIC_WORDS.get(metric.removeprefix("matched_"), metric)


# ---- as Peer et al.'s Table 1 ----------------------------------------------------------------------------------------
def glue_tables(found: list[Result], tasks: list[str] | None = None, beside: list[Result] = ()) -> list[Table]:
    """For each model: their metrics (F1 for MRPC and QQP, Spearman, Matthews, accuracy), the mean over tasks, and its
    share of the full model's."""
    others = {sheet.model: sheet for sheet in sheets(beside)}
    made = []
    for sheet in sheets(found):
        wanted = tasks or [task for task in sheet.tasks if task in TASKS | DEMO_TASKS]
        other = others.get(sheet.model)
        rows, values = [], []
        full = sheet.mean(FULL, wanted, _selection_metric)
        for how in _rows_of(sheet):
            cells = []
            for task in wanted:
                metric = _selection_metric(task)
                cell, theirs = sheet.cell(how, task, metric), other and other.cell(how, task, metric)
                words = _points(cell and cell.median), _published(cell, theirs)
                cells.append(" ".join(word for word in words if word))
                values.append(_value(sheet, how, task, metric, cell, sheet.difference(how, task, metric), theirs))
            mean = sheet.mean(how, wanted, _selection_metric)
            share = MISSING if mean is None or full is None else f"{100 * mean / full:.1f}%"
            rows.append([*how.words, *cells, _points(mean), share])
            values.append(_mean_value(sheet, how, wanted, mean, _loss(how, mean, full)))
        header = ["strategy", "K", *(_task_title(task, _selection_metric(task)) for task in wanted)]
        header += ["mean GLUE score", "of the full model"]
        note = f"Medians over seeds in points. Mean: over {_names(wanted)}."
        made.append(Table("glue", f"{sheet.title}: GLUE", header, rows, [note], values))
    return made


def _selection_metric(task: str) -> str:
    row = (TASKS | DEMO_TASKS)[task]
    return row.suffixes[0].lstrip("_") + "_" * bool(row.suffixes[0]) + row.selection_metric


# ---- cost, as Sajjad et al.'s Table 3 --------------------------------------------------------------------------------
def cost_tables(found: list[Result], tasks: list[str] | None = None) -> list[Table]:
    """For each model: parameters, fine-tuning speed-up, time of a pass over the development set, against the full
    model; medians over seeds, means over tasks. Only records of one kind of device and number of threads compare."""
    made = []
    for sheet in sheets(found):
        wanted = tasks or sheet.tasks
        kinds = {_machine(result) for result in found if result.model == sheet.model and result.record}
        rows, values = [], []
        for how in _rows_of(sheet):
            if how.from_scratch:
                continue
            parameters = sheet.recorded(how, wanted, lambda record: record.parameters_after)
            speed_up = sheet.seconds_ratio(how, wanted, "train")
            inference = sheet.seconds_ratio(how, wanted, "inference")
            rows.append(
                [
                    *how.words,
                    MISSING if parameters is None else f"{parameters / 1e6:.1f}",
                    MISSING if speed_up is None else f"{1 / speed_up:.2f}",
                    MISSING if inference is None else f"{100 * (inference - 1):+.0f}%",
                ]
            )
            values.append(
                _place(sheet, how)
                | {
                    "tasks": " ".join(wanted),
                    "parameters": parameters and round(parameters),
                    "speed_up": speed_up and 1 / speed_up,
                    "inference_ratio": inference,
                }
            )
        header = ["strategy", "K", "parameters (millions)", "fine-tuning speed-up", "inference time"]
        notes = [
            f"Means over {_names(wanted)} of medians over seeds. Inference: a pass over the development set. "
            "Seconds are as good as the machine was quiet."
        ]
        if len(kinds) > 1:
            notes.append(f"Not comparable: the runs are of several machines ({'; '.join(sorted(kinds))}).")
        made.append(Table("cost", f"{sheet.title}: cost", header, rows, notes, values))
    return made


def _machine(result: Result) -> str:
    where = result.record.environment
    return f"{where.get('device')}, {where.get('threads')} threads"


# ---- significance ----------------------------------------------------------------------------------------------------
def significance_tables(found: list[Result], tasks: list[str] | None = None) -> list[Table]:
    """For each model: every row against the full model of the same seed. Classification: McNemar's test, how many seeds
    are worse or better at p < 0.05; regression: a paired bootstrap interval of the difference in Pearson's r."""
    made = []
    for sheet in sheets(found):
        wanted = tasks or sheet.tasks
        rows, values = [], []
        for how in _rows_of(sheet)[1:]:
            cells = []
            for task in wanted:
                runs, full = (sheet.rows.get(row, {}).get(task, {}) for row in (how, FULL))
                pairs = [(full[seed].record, runs[seed].record) for seed in sorted(runs.keys() & full.keys())]
                verdict = Verdict.of([compare_predictions(a, b, task) for a, b in pairs if a and b])
                cells.append(verdict.words)
                values.append(_place(sheet, how) | {"task": task} | dataclasses.asdict(verdict))
            rows.append([*how.words, *cells])
        notes = [
            "Against the full model of the same seed, on the development set. McNemar's test (exact below 25 "
            "disagreements): of how many seeds how many are significantly worse or better at p = 0.05, and the "
            "median p. Regression: the same of 95% paired bootstrap intervals of the difference in Pearson's r."
        ]
        header = ["strategy", "K", *map(task_name, wanted)]
        made.append(Table("significance", f"{sheet.title}: significance", header, rows, notes, values))
    return made


@dataclass(frozen=True)
class Verdict:
    """The tests of a row on a task, one for each seed."""

    seeds: int
    worse: int
    """Seeds at which it is significantly worse than the full model."""
    better: int
    median_p: float | None
    """None for regression."""

    @classmethod
    def of(cls, tests: list[Comparison | None]) -> Verdict:
        """tests: None where predictions are missing."""
        tests = [test for test in tests if test is not None]
        worse = sum(test.significant and test.difference < 0 for test in tests)
        better = sum(test.significant and test.difference > 0 for test in tests)
        p = [test.p for test in tests if test.p is not None]
        return cls(len(tests), worse, better, statistics.median(p) if p else None)

    @property
    def words(self) -> str:
        """For a person: `1 worse of 3 (p 0.04)`."""
        if not self.seeds:
            return MISSING
        marks = [f"{n} {word}" for n, word in ((self.worse, "worse"), (self.better, "better")) if n]
        p = "" if self.median_p is None else f" (p {self.median_p:.2g})"
        return f"{', '.join(marks) or 'none'} of {self.seeds}{p}"
