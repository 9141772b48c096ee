"""A study: a grid of runs from YAML. What it holds, what of it is done, and doing the rest."""

from __future__ import annotations

import itertools
import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from layerdrop.arguments import flag_names, flags_of, parse, read_settings
from layerdrop.checkpoints import HubOptions, load_config, work_offline_unless_reachable
from layerdrop.engines import Engine, Job, Result, record_failure
from layerdrop.errors import UserError, unknown
from layerdrop.runs import RunRecord, read_record
from layerdrop.selection import check_selection, find_order

AXES = {
    "models": "model_name_or_path",
    "tasks": "task_name",
    "strategies": "drop_strategy",
    "k": "drop_k",
    "seeds": "seed",
}
"""Names of a grid's axes -> the flag that they vary. Any other flag of run_glue.py is an axis by its own name."""
KEYS = ("recipe", "settings", "grid", "exclude")
QUIET = {"save_strategy": "no", "save_model": "no", "disable_tqdm": True, "report_to": "none"}
"""What a study's runs do without, unless the study says otherwise: weights of hundreds of runs fill a disk."""


@dataclass
class Study:
    """The runs of a grid, each once, in the order of the file, and what cannot be run."""

    name: str
    jobs: list[Job]
    impossible: dict[str, str] = field(default_factory=dict)
    """Name of a run -> why it cannot be (a K that the strategy cannot drop from that model, say)."""
    unread: list[str] = field(default_factory=list)
    """What cannot be read from here: its runs will fail, unless a worker elsewhere can."""


# ---- from YAML to jobs ----------------------------------------------------------------------------------------------
def read_study(
    path: str,
    store: str,
    axes: dict[str, list] | None = None,
    flags: tuple[str, ...] = (),
    recipe: str | None = None,
) -> Study:
    """The study in a YAML file.

    store: the folder of its runs. axes: values that replace an axis in every grid. flags: further flags for every run.
    recipe: a file of flags that replaces the study's own. Raises UserError for whatever is wrong with the file or with
    the flags that it leads to.
    """
    content = read_settings(path)
    for key in content:
        if key not in KEYS:
            raise UserError(f"{path}: {unknown('key', key, KEYS)}")
    if recipe is None and "recipe" in content:
        recipe = str(Path(path).parent / content["recipe"])
    settings = (read_settings(recipe) if recipe else {}) | (content.get("settings") or {})
    grids = content.get("grid") or {}
    grids = grids if isinstance(grids, list) else [grids]
    exclude = content.get("exclude") or []
    for name, entries in (("grid", grids), ("exclude", exclude)):
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{path}: '{name}' is a mapping of axes to lists of values, or a list of such mappings.")
    known = {*AXES, *flag_names()}
    for where, entries in (("grid", grids), ("exclude", exclude)):
        for name in (name for entry in entries for name in entry if name not in known):
            axes_first = get_close_matches(name, AXES, n=1, cutoff=0.5) or get_close_matches(name, known, n=1)
            hint = f" Did you mean '{axes_first[0]}'?" if axes_first else ""
            raise UserError(
                f"{path}: {where}: no axis '{name}'.{hint} Axes: {', '.join(AXES)}, or any flag of run_glue.py."
            )
    study = Study(Path(path).stem, [])
    seen = set()
    instead = {name: values for name, values in (axes or {}).items() if values}
    for grid in (grid | instead for grid in grids if grid or instead):
        for cell in _cells(grid):
            if not any(_matches(cell, pattern) for pattern in exclude):
                _add(study, seen, QUIET | settings | cell, flags, store)
    if not study.jobs and not study.impossible:
        raise UserError(f"{path}: its grid holds no run. Give axes ({', '.join(AXES)}) with values.")
    if not study.jobs:
        name, why = next(iter(study.impossible.items()))
        raise UserError(f"{path}: none of its {len(study.impossible)} runs is possible. {name}: {why}")
    return study


def _cells(grid: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of a grid's values, as flag -> value."""
    names = [AXES.get(name, name) for name in grid]
    for values in itertools.product(*(_values(value) for value in grid.values())):
        yield dict(zip(names, values, strict=True))


def _values(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def _matches(cell: dict[str, Any], pattern: dict[str, Any]) -> bool:
    return all(cell.get(AXES.get(name, name)) in _values(value) for name, value in pattern.items())


def _add(study: Study, seen: set[str], settings: dict[str, Any], flags: tuple[str, ...], store: str) -> None:
    if settings.get("drop_k") == 0:  # dropping nothing is the same by any strategy
        settings = settings | {"drop_strategy": None, "drop_k": None}
    words = [*flags_of(settings), *flags]
    try:
        arguments = parse(words)
    except UserError as error:
        text = str(error)
        for axis, flag in AXES.items():
            text = re.sub(rf"--{flag}\b", axis, text)
        raise UserError(text) from error
    if arguments.needs_hub:
        _ask_hub_once()
    model, drop = arguments.model, arguments.drop
    task = arguments.data.task.name if arguments.data.task else arguments.data.own_files.name
    name = Path(arguments.default_output_dir()).name
    try:
        order = find_order(drop.drop_strategy, drop.drop_order_file, model.model_name_or_path, task)
        spec = arguments.spec(task, order)
        config = _config(model.model_name_or_path, model.hub)
        if isinstance(config, str):
            _mention(study, f"{config} Whether its layers allow these K was not checked.")
        else:
            check_selection(spec, config)
    except UserError as error:
        study.impossible[name] = str(error)
        return
    folder = arguments.data.data_dir
    if folder and not Path(folder).is_dir():
        _mention(study, f"--data_dir {folder}: no such folder here.")
    if spec.id not in seen:
        seen.add(spec.id)
        study.jobs.append(Job(tuple(words), spec, str(Path(store) / f"{name}_{spec.id[:8]}")))


def _mention(study: Study, text: str) -> None:
    if text not in study.unread:
        study.unread.append(text)


@cache
def _ask_hub_once() -> bool:
    return work_offline_unless_reachable()


@cache
def _config(name: str, options: HubOptions):
    """A checkpoint's configuration; why it cannot be had, where it cannot."""
    try:
        return load_config(name, options)
    except UserError as error:
        return str(error)


# ---- what is done ---------------------------------------------------------------------------------------------------
def status(job: Job) -> str:
    """`done`, `failed` or `missing` (also where it was interrupted)."""
    record = read_record(job.folder) or {}
    if record.get("id") != job.spec.id:
        return "missing"
    return {"success": "done", "failed": "failed"}.get(record["status"], "missing")


class Estimate:
    """How long runs will take, from the records of those that are done."""

    def __init__(self, jobs: list[Job]):
        self.seen: dict[tuple, list[float]] = {}
        for job in jobs:
            if status(job) == "done":
                self.add(job.record())

    def add(self, record: RunRecord) -> None:
        """Take a run into account."""
        for key in self._keys(record.spec):
            self.seen.setdefault(key, []).append(record.seconds["total"])

    @staticmethod
    def _keys(spec) -> list[tuple]:
        return [(spec.model, spec.task, spec.k), (spec.model, spec.task), (spec.model,), ()]

    def seconds(self, job: Job) -> float | None:
        """The median of the runs most like it: same model, task and K, or task, or model; None without any."""
        return next((statistics.median(self.seen[key]) for key in self._keys(job.spec) if key in self.seen), None)

    def remaining(
        self, waiting: list[Job], running: dict[str, tuple[Job, float]] | None = None, slots: int = 1
    ) -> float | None:
        """Seconds until all these are done; None if that cannot be said yet. running: as in Progress."""
        running = running or {}
        each = [(self.seconds(job), 0.0) for job in waiting]
        each += [(self.seconds(job), time.monotonic() - began) for job, began in running.values()]
        if any(seconds is None for seconds, _ in each):
            return None
        left = sum(max(0.0, seconds - spent) for seconds, spent in each)
        return left / max(1, min(slots, len(each)))


# ---- doing the rest -------------------------------------------------------------------------------------------------
WORTH_RETRYING = ("out of memory", "OutOfMemoryError", "MemoryError", "OSError", "the worker process", "CUDA error")
"""Failures that another attempt may not meet: that of a diverged training or of unusable data would be the same."""


@dataclass
class Progress:
    """Where a sweep stands."""

    total: int
    already: int
    running: dict[str, tuple[Job, float]] = field(default_factory=dict)
    """Identity -> the job in flight, and when it began (time.monotonic)."""
    done: list[RunRecord] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    elsewhere: list[Job] = field(default_factory=list)
    """At which another sweep is."""
    remaining: float | None = None
    """Seconds, as far as can be told."""
    stopped: bool = False


POLL = 1.0
"""Seconds between two looks at what another sweep is at."""


def sweep(
    study: Study, engine: Engine, tell: Callable[[Progress, Result | None], None], stop=lambda: False
) -> Progress:
    """Do what is missing or failed.

    `tell` hears of every end, and about every second; `stop()` says when to start no more. Another sweep may be at the
    same study: a run that it is at is waited for.
    """
    estimate = Estimate(study.jobs)
    waiting = deque(job for job in study.jobs if status(job) != "done")
    progress = Progress(len(study.jobs), len(study.jobs) - len(waiting))
    again: set[str] = set()
    next_look = 0.0

    def report(result: Result | None) -> None:
        progress.remaining = estimate.remaining([*waiting, *progress.elsewhere], progress.running, engine.slots)
        tell(progress, result)

    while waiting or progress.running or progress.elsewhere:
        if stop():
            progress.stopped = True
            waiting.clear()
            progress.elsewhere.clear()
        if progress.elsewhere and time.monotonic() >= next_look:
            waiting.extend(progress.elsewhere)
            progress.elsewhere.clear()
        while waiting and len(progress.running) < engine.slots:
            job = waiting.popleft()
            progress.running[job.spec.id] = job, time.monotonic()
            engine.start(job)
        results = engine.wait(POLL) if progress.running else time.sleep(POLL) or []
        for result in results:
            job = result.job
            del progress.running[job.spec.id]
            record = result.record
            if record is None and result.error is None:
                progress.elsewhere.append(job)
                next_look = time.monotonic() + POLL
                continue
            error = result.error or record.error
            if record is not None and record.status == "success":
                progress.done.append(record)
                estimate.add(record)
            elif any(word in error for word in WORTH_RETRYING) and job.spec.id not in again:
                again.add(job.spec.id)
                waiting.append(replace(job, note=f"second attempt; the first: {error}"))
            else:
                if record is None:
                    record_failure(job, error)
                progress.failed.append((job, error))
            report(result)
        if not results:
            report(None)
    return progress
