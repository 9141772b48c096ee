#!/usr/bin/env python
"""Tables and figures from the records in some folders: python scripts/report.py runs/demo [--figures FOLDER]

Tables: tasks (scores by strategy and K, as Sajjad et al.'s Table 2), glue (Peer et al.'s Table 1), cost (parameters,
speed-up, inference time; records of scripts/cost.py too), significance (against the full model, from the predictions).
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

TABLES = ("tasks", "glue", "cost", "significance")
REFRESH = 10
"""Seconds between two pages of --watch."""


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 for unusable input."""
    from layerdrop.errors import UserError
    from layerdrop.system.files import LocalPath

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=LocalPath, nargs="+", help="folders of runs, or a csv file of --runs")
    parser.add_argument("--table", nargs="+", choices=TABLES, default=["tasks", "cost"], help="which tables")
    parser.add_argument("--format", choices=("md", "latex", "csv"), default="md", help="of the tables")
    parser.add_argument("--tasks", nargs="+", help="columns, and the set of tasks for means (default: all there are)")
    parser.add_argument(
        "--rows", nargs="+", default=[], help="settings that make rows, such as num_train_epochs, not tables"
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        help="settings that separate columns instead of tables, such as max_train_samples",
    )
    parser.add_argument("--all_metrics", action="store_true", help="every metric of a task (csv has them anyway)")
    parser.add_argument("--plain", action="store_true", help="significance: training variants against plain runs")
    parser.add_argument("--holm", action="store_true", help="significance: Holm's correction for all tests of a table")
    parser.add_argument("--compare", help="published figures beside one's own: sajjad2023, peer2022")
    parser.add_argument("--figures", type=LocalPath, help="folder for the figures (PNG and PDF)")
    parser.add_argument(
        "--runs", type=LocalPath, help="csv file with a line for each run: settings, metrics, seconds, versions"
    )
    parser.add_argument(
        "--html", type=LocalPath, help="file of one page for a browser: sortable tables, charts, the runs of each row"
    )
    parser.add_argument("--watch", action="store_true", help="with --html: write it again and again until Ctrl-C")
    args = parser.parse_args(argv)
    try:
        if args.watch and not args.html:
            raise UserError("--watch: writes a page again and again. Give its file with --html.")
        if args.watch:
            watch(args)
        else:
            report(args)
    except KeyboardInterrupt:
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(args: argparse.Namespace) -> None:
    """Print the tables, write the figures."""
    from layerdrop.data.tasks import get_task
    from layerdrop.errors import UserError
    from layerdrop.report.frame import frame
    from layerdrop.report.html import page
    from layerdrop.report.notes import notes_on
    from layerdrop.report.published import NOTES, published
    from layerdrop.report.records import StoredRuns, read_store, unfit
    from layerdrop.report.runs_csv import runs_csv
    from layerdrop.report.table import render
    from layerdrop.report.tables.model_cost import model_cost_table, read_costs
    from layerdrop.system.files import write_atomically

    make_folders(args)
    if csv_files := [store for store in args.store if store.endswith(".csv")]:
        costs, found, runs = [], StoredRuns([]), read_csv(args, csv_files)
    else:
        records, bad = read_costs(args.store) if "cost" in args.table else ([], [])
        costs = [model_cost_table(cost, args.compare) for cost in records]
        found = read_store(args.store, may_be_empty=bool(costs), unreadable=bad)
        if not found.done:
            print(render(costs, args.format), flush=True)
            tell(unfit(found))
            return
        runs = frame(found.done, args.rows, args.columns)
    tasks = [get_task(name, "--tasks").name for name in args.tasks] if args.tasks else None
    there = sorted(set(runs["task"]))
    if tasks and not set(tasks) & set(there):
        raise UserError(f"--tasks {' '.join(args.tasks)}: no run of these there. There are: {', '.join(there)}.")
    beside = published(args.compare) if args.compare else None
    print(render([*_tables(args, runs, tasks, beside), *costs], args.format), flush=True)
    said = notes_on(found, runs)
    if beside is not None:
        said.append(NOTES[args.compare])
        if runs.merge(beside, on=["model", "task"]).empty:
            said.append(f"--compare {args.compare}: it has none of these models and tasks; nothing to compare")
    files = []
    if args.runs:
        write_atomically(Path(args.runs), runs_csv(runs))
        files.append(args.runs)
    if args.html:
        write_atomically(Path(args.html), page(found, runs, said))
        files.append(args.html)
    if args.figures:
        from layerdrop.report.figures import draw

        drawn, not_drawn = draw(runs, args.figures, tasks)
        files += drawn
        said += not_drawn
    tell(said, files)


def read_csv(args: argparse.Namespace, files: list[str]):
    """Read a csv file of --runs as a frame. Raises UserError for flags that need records."""
    from layerdrop.errors import UserError
    from layerdrop.report.runs_csv import read_runs_csv

    needs = {"--table significance": "significance" in args.table, "--runs": args.runs, "--watch": args.watch}
    if args.store != files[:1]:
        raise UserError(
            f"{' '.join(args.store)}: give either one csv file of --runs or folders of runs. Leave the others out."
        )
    if flags := [flag for flag, given in needs.items() if given]:
        raise UserError(
            f"{flags[0]}: needs the folders of the runs, but {files[0]} has only their values. Leave it out."
        )
    return read_runs_csv(files[0], args.rows, args.columns)


def tell(notes: list[str], files: Sequence[str | Path] = ()) -> None:
    """Print notes, and the files that were written."""
    for line in [*(f"note: {note}" for note in notes), *files]:
        print(line, file=sys.stderr)


def make_folders(args: argparse.Namespace) -> None:
    """Make the folders of all outputs, before anything is computed."""
    from layerdrop.report.html import PAGE_MARK
    from layerdrop.report.runs_csv import CSV_MARK
    from layerdrop.system.files import make_folder, make_folder_of

    for name, mark in {"runs": CSV_MARK, "html": PAGE_MARK}.items():
        if path := getattr(args, name):
            make_folder_of(f"--{name}", path, mark)
    if args.figures:
        make_folder("--figures", args.figures)


def watch(args: argparse.Namespace) -> None:
    """Write the page every REFRESH seconds; before the first run is done there is nothing to show."""
    from layerdrop.report.frame import frame
    from layerdrop.report.html import page
    from layerdrop.report.notes import notes_on
    from layerdrop.report.records import read_store
    from layerdrop.system.files import write_atomically

    make_folders(args)
    while True:
        found = read_store(args.store, may_be_empty=True)
        if found.done:
            runs = frame(found.done, args.rows, args.columns)
            write_atomically(Path(args.html), page(found, runs, notes_on(found, runs), REFRESH))
            print(f"{args.html}: {len(found.done)} runs, {found.unfinished} in flight", file=sys.stderr, flush=True)
        time.sleep(REFRESH)


def _tables(args: argparse.Namespace, runs, tasks: list[str] | None, beside) -> list:
    from layerdrop.report.tables.cost import cost_tables
    from layerdrop.report.tables.scores import glue_tables, task_tables
    from layerdrop.report.tables.significance import significance_tables

    make = {
        "tasks": lambda: task_tables(runs, tasks, beside if args.compare == "sajjad2023" else None, args.all_metrics),
        "glue": lambda: glue_tables(runs, tasks, beside if args.compare == "peer2022" else None),
        "cost": lambda: cost_tables(runs, tasks),
        "significance": lambda: significance_tables(runs, tasks, args.holm, args.plain),
    }
    return [table for name in args.table for table in make[name]()]


if __name__ == "__main__":
    from layerdrop.system.process import tolerate_broken_output

    tolerate_broken_output()
    sys.exit(main())
