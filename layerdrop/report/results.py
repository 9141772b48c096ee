"""From records to what tables and figures are made of: which runs belong to one row, and their medians over seeds."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerdrop.errors import UserError
from layerdrop.runs import RECORD_FILE, RunRecord, RunSpec, read_record
from layerdrop.strategies import STRATEGIES
from layerdrop.tasks import DEMO_TASKS, TASKS

ROW = ("model", "task", "data", "strategy", "k", "threshold", "layers", "order", "seed", "from_scratch")
"""Settings that say where a run stands in a table; any other that differs between runs parts them into tables."""
PARTIAL = ("max_train_samples", "max_eval_samples")
"""Settings that are always named: the figures are not of the whole task."""
SCORING = ("score_on", "score_split", "score_samples", "weight_scope")
"""Settings of a strategy that scores: those in which its runs differ part its rows."""
METRIC_WORDS = {
    "accuracy": "acc",
    "f1": "F1",
    "f1_macro": "macro F1",
    "pearson": "Pearson",
    "spearmanr": "Spearman",
    "matthews_correlation": "Matthews",
}


@dataclass(frozen=True)
class How:
    """What was done to the layers."""

    strategy: str | None = None
    k: int | None = None
    threshold: float | None = None
    layers: tuple[int, ...] = ()
    from_scratch: bool = False
    scoring: str = ""
    """How the scores were computed, where that differs between the rows of a strategy."""

    @classmethod
    def of(cls, spec: RunSpec, scoring: str = "") -> How:
        """That of a run; dropping nothing is the same by any strategy."""
        nothing = spec.strategy is None or (spec.k == 0 and spec.threshold is None)
        if nothing:
            return cls(from_scratch=spec.from_scratch)
        k = None if spec.threshold is not None else spec.k
        return cls(spec.strategy, k, spec.threshold, spec.layers, spec.from_scratch, scoring)

    @property
    def words(self) -> tuple[str, str]:
        """(strategy, K) for a person."""
        name = self.strategy or "full"
        if self.layers:
            name += " " + ",".join(map(str, self.layers))
        if self.threshold is not None:
            name += f" > {self.threshold:g}"
        if self.scoring:
            name += f" ({self.scoring})"
        k = "" if self.threshold is not None else str(self.k or 0)
        return (f"{name}, from scratch" if self.from_scratch else name), k

    def order(self) -> tuple:
        """Sorts rows: the full model, the same from scratch, then strategy by strategy with growing K."""
        place = list(STRATEGIES).index(self.strategy) if self.strategy in STRATEGIES else -1
        return (place, self.scoring, self.from_scratch, self.k or 0, -(self.threshold or 0), self.layers)


FULL = How()


@dataclass(frozen=True)
class Result:
    """One run as tables see it. setting: what parts it from the other tables' runs, in words."""

    model: str
    setting: str
    how: How
    task: str
    seed: int
    metrics: dict[str, float]
    """As fractions."""
    record: RunRecord | None = None
    """None for a published figure."""


def read_store(folders: Iterable[str]) -> tuple[list[RunRecord], list[RunRecord]]:
    """The successful and the failed records in some folders and below, each run once; failed is what never succeeded.

    Raises UserError where there is no successful one.
    """
    done: dict[str, RunRecord] = {}
    failed: dict[str, RunRecord] = {}
    for folder in folders:
        if not Path(folder).exists():
            raise UserError(f"{folder}: no such folder. Give the folder of a study's runs.")
        for path in sorted(Path(folder).rglob(RECORD_FILE)):
            values = read_record(path.parent) or {}
            succeeded = values.get("status") == "success" and values.get("metrics")
            if "spec" in values and (succeeded or values.get("status") == "failed"):
                record = RunRecord.from_dict(values | {"folder": str(path.parent)})
                (done if succeeded else failed).setdefault(record.spec.id, record)
    left = [record for run, record in failed.items() if run not in done]
    if not done:
        advice = failures(left)[0] if left else "Sweep first: scripts/sweep.py."
        raise UserError(f"{', '.join(folders)}: no record of a successful run there. {advice}")
    return list(done.values()), left


def failures(failed: list[RunRecord]) -> list[str]:
    """What a reader must know of runs that are in no table."""
    if not failed:
        return []
    first = failed[0]
    runs = "1 run has failed and is" if len(failed) == 1 else f"{len(failed)} runs have failed and are"
    return [f"{runs} in no table; {first.folder}: {(first.error or 'no reason recorded').splitlines()[0]}"]


def results(records: Iterable[RunRecord]) -> list[Result]:
    """The records as results; settings in which those of one model differ, and that are not a row's, part them."""
    by_model: dict[str, list[RunRecord]] = {}
    for record in records:
        by_model.setdefault(record.spec.model, []).append(record)
    made = []
    for model, runs in by_model.items():
        by_strategy: dict[str | None, list[RunRecord]] = {}
        for record in runs:
            by_strategy.setdefault(record.spec.strategy, []).append(record)
        settings = _differences([_settings(record.spec) for record in runs])
        setting_of = {record.spec.id: words for record, words in zip(runs, settings, strict=True)}
        for alike in by_strategy.values():
            scorings = _differences([{name: getattr(record.spec, name) for name in SCORING} for record in alike])
            for record, scoring in zip(alike, scorings, strict=True):
                spec = record.spec
                how, setting = How.of(spec, scoring), setting_of[spec.id]
                made.append(Result(model, setting, how, spec.task, spec.seed, record.metrics, record))
    return made


def _differences(settings: list[dict[str, Any]]) -> list[str]:
    """For each of several mappings its values in which they are not all alike, or that mean less data, in words."""
    names = sorted({name for values in settings for name in values})
    differing = [
        name
        for name in names
        if len({repr(values.get(name)) for values in settings}) > 1
        or (name in PARTIAL and settings[0].get(name) is not None)
    ]
    return [", ".join(f"{name} {values.get(name)}" for name in differing) for values in settings]


def _settings(spec: RunSpec) -> dict[str, Any]:
    values = dataclasses.asdict(spec)
    values |= values.pop("training")
    return {name: value for name, value in values.items() if name not in (*ROW, *SCORING)}


# ---- what a cell shows ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Summary:
    """Median over seeds, lowest and highest, in points (hundredths)."""

    median: float
    low: float
    high: float
    n: int


def summarise(values: Iterable[float]) -> Summary | None:
    """Of fractions; a NaN (a constant prediction) counts as the lowest of all. None for no values."""
    points = sorted((-math.inf if math.isnan(v) else 100 * v) for v in values)
    if not points:
        return None
    middle = statistics.median(points) if math.isfinite(points[0]) else points[(len(points) - 1) // 2]
    return Summary(*(math.nan if v == -math.inf else v for v in (middle, points[0], points[-1])), len(points))


def metrics_of(task: str) -> list[str]:
    """The metrics that tables show for a task, the main one first; MNLI's are those of both its splits."""
    row = (TASKS | DEMO_TASKS).get(task)
    if row is None:
        return []
    return [suffix.lstrip("_") + "_" * bool(suffix) + name for suffix in row.suffixes for name in row.metrics]


def main_metric(task: str, measured: Iterable[str]) -> str:
    """The one that means over tasks are made of: accuracy, Pearson, Matthews, MNLI's matched accuracy."""
    measured = [name for name in measured if not name.endswith("loss")]
    return next((name for name in metrics_of(task) if name in measured), measured[0] if measured else "")


def task_name(task: str) -> str:
    """As tables write it."""
    row = (TASKS | DEMO_TASKS).get(task)
    return row.folder if row else task


def tasks_of(found: Iterable[Result]) -> list[str]:
    """The tasks that occur, in the order of the project's tables."""
    occurring = {result.task for result in found}
    known = [name for name in (*TASKS, *DEMO_TASKS) if name in occurring]
    return known + sorted(occurring - set(known))


class Sheet:
    """The results of one model with one setting, as rows (How) of cells (task -> seed -> result)."""

    def __init__(self, model: str, setting: str, found: list[Result]):
        self.model, self.setting = model, setting
        self.rows: dict[How, dict[str, dict[int, Result]]] = {}
        for result in sorted(found, key=lambda r: (r.how.order(), r.task, r.seed)):
            self.rows.setdefault(result.how, {}).setdefault(result.task, {})[result.seed] = result
        self.tasks = tasks_of(found)

    @property
    def title(self) -> str:
        """Model and setting, in words."""
        name = Path(self.model.rstrip("/")).name
        return f"{name} ({self.setting})" if self.setting else name

    def metrics(self, task: str) -> list[str]:
        """The metrics of a task's column, as far as some run measured them; the main one if none did."""
        measured = {
            name for row in self.rows.values() for result in row.get(task, {}).values() for name in result.metrics
        }
        known = metrics_of(task)
        of_files = sorted(name for name in measured if not name.endswith("loss"))
        return [name for name in known if name in measured] or of_files or known[:1]

    def cell(self, how: How, task: str, metric: str) -> Summary | None:
        """Over seeds; None where no run measured it."""
        runs = self.rows.get(how, {}).get(task, {}).values()
        return summarise(run.metrics[metric] for run in runs if metric in run.metrics)

    def difference(self, how: How, task: str, metric: str) -> float | None:
        """Points above the full model; None where one of the two is missing."""
        ours, full = self.cell(how, task, metric), self.cell(FULL, task, metric)
        return None if ours is None or full is None or how == FULL else ours.median - full.median

    def mean(self, how: How, tasks: list[str], metric: Callable[[str], str] | None = None) -> float | None:
        """Mean over tasks of the medians; None unless every task is there. metric: task -> name (None: the main)."""
        cells = [
            self.cell(how, task, metric(task) if metric else main_metric(task, self.metrics(task))) for task in tasks
        ]
        return None if None in cells or not cells else statistics.fmean(cell.median for cell in cells)

    def recorded(self, how: How, tasks: list[str], value: Callable[[RunRecord], float | None]) -> float | None:
        """Median of something in the records, over tasks and seeds; None where no record has it."""
        runs = [run for task in tasks for run in self.rows.get(how, {}).get(task, {}).values() if run.record]
        values = [v for run in runs if (v := value(run.record)) is not None]
        return statistics.median(values) if values else None

    def seconds_ratio(self, how: How, tasks: list[str], stage: str) -> float | None:
        """Mean over tasks of (median seconds of a stage / those of the full model); None unless every task has both."""
        ratios = []
        for task in tasks:
            ours, full = (self.recorded(row, [task], lambda record: record.seconds.get(stage)) for row in (how, FULL))
            if not ours or not full:
                return None
            ratios.append(ours / full)
        return statistics.fmean(ratios)


def sheets(found: Iterable[Result]) -> list[Sheet]:
    """One for each model and setting."""
    grouped: dict[tuple[str, str], list[Result]] = {}
    for result in found:
        grouped.setdefault((result.model, result.setting), []).append(result)
    return [Sheet(model, setting, group) for (model, setting), group in grouped.items()]


def mixtures(found: Iterable[Result]) -> list[str]:
    """What one row's runs should have in common but have not: versions, precision, device."""
    notes = []
    for sheet in sheets(found):
        for how, row in sheet.rows.items():
            seen: dict[str, set[str]] = {}
            for result in (run for cell in row.values() for run in cell.values() if run.record):
                where, versions = result.record.environment, result.record.environment.get("versions", {})
                seen.setdefault("precision", set()).add(result.record.spec.precision)
                seen.setdefault("device", set()).add(str(where.get("device")))
                for name in ("torch", "transformers"):
                    seen.setdefault(name, set()).add(str(versions.get(name)))
            label = " ".join(how.words)
            notes += [
                f"{sheet.title}, {label}: mixed {name} ({', '.join(sorted(values))})"
                for name, values in seen.items()
                if len(values) > 1
            ]
    return notes


def constant_predictions(found: Iterable[Result]) -> list[str]:
    """Where a model predicts the same for every row, so that its score says no more than the labels' shares do."""
    notes = []
    for sheet in sheets(found):
        for how, row in sheet.rows.items():
            for task, runs in row.items():
                seeds = [seed for seed, run in sorted(runs.items()) if run.record and run.record.constant_predictions()]
                if seeds:
                    where = f"{sheet.title}, {' '.join(how.words)}, {task_name(task)}"
                    notes.append(f"{where}: one prediction for every row ({len(seeds)} of {len(runs)} seeds)")
    return notes
