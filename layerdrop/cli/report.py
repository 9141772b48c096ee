"""Make tables, figures and a web page from the records in folders.

  layerdrop report runs/demo --figures figures --html report.html

Tables: tasks (scores by strategy and K, as Sajjad et al.'s Table 2), glue (Peer et al.'s Table 1), cost (parameters,
speed-up, inference time; also records of layerdrop cost), significance (paired tests against the full model or, with
--against, another strategy).
"""

import argparse
import sys

from layerdrop.errors import UserError
from layerdrop.system.files import LocalPath

TABLES = ("tasks", "glue", "cost", "significance")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop report`."""
    add = parser.add_argument
    add("store", type=LocalPath, nargs="+", help="folders of runs, or a csv file written by --runs")
    add("--table", nargs="+", choices=TABLES, default=["tasks", "cost"], help="tables to print")
    add("--format", choices=("md", "latex", "csv"), default="md", help="format of the tables")
    add("--tasks", nargs="+", help="tasks of the table and of the mean (default: all)")
    add(
        "--rows",
        nargs="+",
        default=[],
        help="settings, such as num_train_epochs: show each value as a row, instead of a separate table",
    )
    add(
        "--columns",
        nargs="+",
        default=[],
        help="settings, such as max_train_samples: show each value as a column, instead of a separate table",
    )
    add("--all_metrics", action="store_true", help="show every metric of a task (csv always contains all metrics)")
    add(
        "--plain",
        action="store_true",
        help="significance: compare each run of a training variant with the run of the same strategy, K and seed "
        "without the variant",
    )
    add(
        "--against",
        metavar="STRATEGY",
        help="significance: compare each run of another strategy with the run of this strategy with the same K, seed, "
        "training variant and settings",
    )
    add("--holm", action="store_true", help="significance: apply Holm's correction to all tests of a table")
    add("--compare", help="also show published scores: sajjad2023, peer2022")
    add("--figures", type=LocalPath, help="folder for the figures (PNG and PDF)")
    add("--runs", type=LocalPath, help="csv file to write: settings, metrics, seconds and versions of each run")
    add("--html", type=LocalPath, help="web page to write: sortable tables, charts, the runs of each row")
    add("--watch", action="store_true", help="with --html: rewrite the page every 10 seconds until Ctrl-C")


def main(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Print the tables, and write the files. Returns the exit code."""
    args = parser.parse_args(words)
    _check(args)
    from dataclasses import fields

    from layerdrop.report.contents import ReportSettings, make_folders, read_contents, watch, write_files
    from layerdrop.report.table import render

    make_folders(args.runs, args.html, args.figures)
    settings = ReportSettings(**{f.name: getattr(args, f.name) for f in fields(ReportSettings)})
    if args.watch:
        watch(settings, args.html)
    contents = read_contents(settings)
    if contents.tables:
        print(render(contents.tables, args.format), flush=True)
    files = write_files(contents, args.runs, args.html, args.figures)
    for line in [*(f"note: {note}" for note in contents.notes), *files]:
        print(line, file=sys.stderr)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise UserError for incompatible flags."""
    if args.watch and not args.html:
        raise UserError("--watch: needs --html, the file of the page to rewrite.")
    if args.against and "significance" not in args.table:
        raise UserError("--against: changes only the tests of significance. Add --table significance.")
    if args.against and args.plain:
        raise UserError("--against and --plain: compare with different runs. Leave one of them out.")
    files = [store for store in args.store if store.endswith(".csv")]
    if files and args.store != files[:1]:
        stores = " ".join(args.store)
        raise UserError(f"{stores}: give either one csv file of --runs or folders of runs. Leave the others out.")
    needs = {"--table significance": "significance" in args.table, "--runs": args.runs, "--watch": args.watch}
    if files and (flags := [flag for flag, given in needs.items() if given]):
        raise UserError(
            f"{flags[0]}: needs the folders of the runs, but {files[0]} has only their values. Leave {flags[0]} out."
        )
