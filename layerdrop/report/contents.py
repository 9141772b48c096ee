"""The contents of a report: runs, tables and notes from the records in folders, and the files made from them."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from layerdrop.data.tasks import get_task
from layerdrop.errors import UserError, unknown
from layerdrop.report.frame import frame
from layerdrop.report.html import PAGE_MARK, page
from layerdrop.report.notes import notes_on
from layerdrop.report.published import NOTES, published
from layerdrop.report.records import StoredRuns, incomplete_notes, read_store
from layerdrop.report.runs_csv import CSV_MARK, read_runs_csv, runs_csv
from layerdrop.report.table import Table
from layerdrop.report.tables.cost import cost_tables
from layerdrop.report.tables.model_cost import model_cost_table, read_costs
from layerdrop.report.tables.scores import glue_tables, task_tables
from layerdrop.system.files import make_folder, make_folder_of, write_atomically

REFRESH = 10
"""Seconds between two pages of `watch`."""


@dataclass(frozen=True)
class ReportSettings:
    """Settings of a report; the fields are the flags of `layerdrop report`."""

    store: Sequence[str]
    """Folders of runs, or one csv file of runs."""
    table: Sequence[str] = ("tasks", "cost")
    tasks: Sequence[str] | None = None
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    compare: str | None = None
    all_metrics: bool = False
    plain: bool = False
    against: str | None = None
    holm: bool = False


@dataclass
class Contents:
    """Runs, tables and notes of a report."""

    tables: list[Table]
    notes: list[str]
    stored: StoredRuns = field(default_factory=lambda: StoredRuns([]))
    runs: pd.DataFrame | None = None
    """One row for each run; None without finished runs."""
    tasks: list[str] | None = None


def read_contents(settings: ReportSettings) -> Contents:
    """Read the records, and make the tables. Raises UserError."""
    costs, stored = [], StoredRuns([])
    if settings.store[0].endswith(".csv"):
        runs = read_runs_csv(settings.store[0], settings.rows, settings.columns)
    else:
        records, bad = read_costs(settings.store) if "cost" in settings.table else ([], [])
        costs = [model_cost_table(cost, settings.compare) for cost in records]
        stored = read_store(settings.store, may_be_empty=bool(costs), unreadable=bad)
        if not stored.done:
            return Contents(costs, incomplete_notes(stored), stored)
        runs = frame(stored.done, settings.rows, settings.columns)
    available = sorted(set(runs["task"]))
    tasks = [_task(name, available) for name in settings.tasks] if settings.tasks else None
    if tasks and not set(tasks) & set(available):
        raise UserError(f"--tasks {' '.join(settings.tasks)}: no run of these tasks. Allowed: {', '.join(available)}.")
    paper_results = published(settings.compare) if settings.compare else None
    strategies = sorted({row.name for row in runs["row"]} - {"full"})
    if settings.against and settings.against not in strategies:
        raise unknown("--against", settings.against, strategies, "strategy")
    between_rows = settings.plain or settings.against
    notes = notes_on(stored, runs, tasks, compared=not between_rows or set(settings.table) != {"significance"})
    if paper_results is not None:
        notes.append(NOTES[settings.compare])
        compared = runs[runs["task"].isin(tasks or available)]
        if compared.merge(paper_results, on=["model", "task"]).empty:
            notes.append(f"--compare {settings.compare}: no published values for these models and tasks")
    shown = runs
    if tasks:  # leave out tables without a run of these tasks
        shown = runs.groupby(["model", "setting"], sort=False).filter(lambda table: table["task"].isin(tasks).any())
    tables = _tables(settings, shown, tasks, paper_results)
    if "glue" in settings.table and "glue" not in {table.kind for table in tables}:
        notes.append("no table 'glue', which needs runs on a task of GLUE. For other tasks, use --table tasks")
    return Contents([*tables, *costs], notes, stored, runs, tasks)


def _task(name: str, available: Sequence[str]) -> str:
    """The task of `--tasks`: the task of own files in the store, or a task of GLUE or the demo. Raises UserError."""
    if name in available:
        return name
    try:
        return get_task(name, "--tasks").name
    except UserError:
        raise unknown("--tasks", name, available, "task") from None


def _tables(settings: ReportSettings, runs: pd.DataFrame, tasks: list[str] | None, paper_results) -> list[Table]:
    sajjad, peer = (paper_results if settings.compare == name else None for name in ("sajjad2023", "peer2022"))
    make = {
        "tasks": lambda: task_tables(runs, tasks, sajjad, settings.all_metrics),
        "glue": lambda: glue_tables(runs, tasks, peer),
        "cost": lambda: cost_tables(runs, tasks),
        "significance": lambda: _significance_tables(runs, tasks, settings),
    }
    return [table for name in settings.table for table in make[name]()]


def _significance_tables(runs: pd.DataFrame, tasks: list[str] | None, settings: ReportSettings) -> list[Table]:
    from layerdrop.report.tables.significance import significance_tables  # imports scipy.stats, which takes 0.7 s

    return significance_tables(runs, tasks, settings.holm, settings.plain, settings.against)


def make_folders(runs: str | None, html: str | None, figures: str | None) -> None:
    """Make the folders of all outputs, before anything is computed. Raises UserError."""
    for flag, path, mark in (("--runs", runs, CSV_MARK), ("--html", html, PAGE_MARK)):
        if path:
            make_folder_of(flag, path, mark)
    if figures:
        make_folder("--figures", figures)


def write_files(contents: Contents, runs: str | None, html: str | None, figures: str | None) -> list[str]:
    """Write the requested files. Returns their paths, with the word `replaced` for files of an earlier report.

    Appends notes on missing figures to `contents`.
    """
    files: list[str | Path] = []
    if contents.runs is None:
        return []
    possible = [*(path for path in (runs, html) if path), *(Path(figures).iterdir() if figures else ())]
    earlier = {Path(path) for path in possible if Path(path).exists()}
    if runs:
        write_atomically(Path(runs), runs_csv(contents.runs))
        files.append(runs)
    if html:
        write_atomically(Path(html), page(contents.stored, contents.runs, notes_on(contents.stored, contents.runs)))
        files.append(html)
    if figures:
        from layerdrop.report.figures import draw

        drawn, notes = draw(contents.runs, figures, contents.tasks)
        files += drawn
        contents.notes += notes
    return [f"{path} (replaced)" if Path(path) in earlier else str(path) for path in files]


def watch(settings: ReportSettings, html: str) -> None:
    """Write the page every REFRESH seconds, from the first finished run on, until KeyboardInterrupt."""
    while True:
        stored = read_store(settings.store, may_be_empty=True)
        if stored.done:
            runs = frame(stored.done, settings.rows, settings.columns)
            write_atomically(Path(html), page(stored, runs, notes_on(stored, runs), REFRESH))
            print(
                f"{html}: {len(stored.done)} finished runs, {stored.unfinished} without a record (running or killed)",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(REFRESH)
