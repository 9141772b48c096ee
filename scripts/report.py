#!/usr/bin/env python
"""Tables and figures from the records in some folders: python scripts/report.py runs/demo [--figures FOLDER]

Tables: tasks (scores by strategy and K, as Sajjad et al.'s Table 2), glue (Peer et al.'s Table 1), cost (parameters,
speed-up, inference time), significance (against the full model, from the predictions).
"""

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

TABLES = ("tasks", "glue", "cost", "significance")


def main(argv: list[str]) -> int:
    """The exit code: 0, or 2 for unusable input."""
    from layerdrop.errors import UserError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="+", help="folders of runs")
    parser.add_argument("--table", nargs="+", choices=TABLES, default=["tasks", "cost"], help="which tables")
    parser.add_argument("--format", choices=("md", "latex", "csv"), default="md", help="of the tables")
    parser.add_argument("--tasks", nargs="+", help="columns, and the set of tasks for means (default: all there are)")
    parser.add_argument("--all_metrics", action="store_true", help="every metric of a task (csv has them anyway)")
    parser.add_argument("--compare", help="published figures beside one's own: sajjad2023, peer2022")
    parser.add_argument("--figures", help="folder for the figures (PNG and PDF)")
    args = parser.parse_args(argv)
    try:
        report(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(args: argparse.Namespace) -> None:
    """Print the tables, write the figures."""
    from layerdrop.errors import UserError
    from layerdrop.report import published, tables
    from layerdrop.report.results import constant_predictions, failures, mixtures, read_store, results
    from layerdrop.tasks import get_task

    done, failed = read_store(args.store)
    found = results(done)
    tasks = [get_task(name, "--tasks").name for name in args.tasks] if args.tasks else None
    there = sorted({result.task for result in found})
    if tasks and not set(tasks) & set(there):
        raise UserError(f"--tasks {' '.join(args.tasks)}: no run of these there. There are: {', '.join(there)}.")
    beside = published.published(args.compare) if args.compare else []
    made = []
    for name in args.table:
        if name == "tasks":
            made += tables.task_tables(found, tasks, beside if args.compare == "sajjad2023" else [], args.all_metrics)
        elif name == "glue":
            made += tables.glue_tables(found, tasks, beside if args.compare == "peer2022" else [])
        else:
            made += getattr(tables, f"{name}_tables")(found, tasks)
    print(tables.render(made, args.format), flush=True)
    notes = failures(failed) + mixtures(found) + constant_predictions(found)
    notes += [published.NOTES[args.compare]] if args.compare else []
    theirs = {(result.model, result.task) for result in beside}
    if args.compare and not theirs & {(result.model, result.task) for result in found}:
        notes.append(f"--compare {args.compare}: it has none of these models and tasks; nothing to compare")
    files = []
    if args.figures:
        from layerdrop.report.figures import draw

        files, not_drawn = draw(found, args.figures, tasks)
        notes += not_drawn
    for line in [f"note: {note}" for note in notes] + files:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `report.py ... | head` ends quietly
    sys.exit(main(sys.argv[1:]))
