#!/usr/bin/env python
"""How many layers can go: python scripts/choose_k.py --max_loss 1 2 3 --tasks sst2 rte --drop_strategy top [flags]

The development set is halved: for each threshold the largest K whose loss is within it on one half is chosen, and its
loss on the other half is reported (Sajjad et al. 2023, Table 4). Runs that are needed and missing are done in --store;
the same command goes on. The other flags are those of run_glue.py. At the end: a table, a picture of loss by K, and the
folder of the model that was chosen.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.executing import add_engine_flags, asking_to_stop, find_slots, make_engine, refuse_misspelt, tasks_of

FIGURE_NAME = "loss_by_k"


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 done, 1 a run failed, 2 unusable input, 130 stopped by the user."""
    from layerdrop.errors import UserError
    from layerdrop.search.candidates import Stopped
    from layerdrop.system.files import LocalPath

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--max_loss", nargs="+", type=float, default=[1.0], help="points that may be lost")
    parser.add_argument("--percent", action="store_true", help="percent of the full model's score instead of points")
    parser.add_argument("--tasks", nargs="+", help="default: the task of own files (--train_file), else mrpc")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42], help="the median over these counts")
    parser.add_argument("--k", nargs="+", type=int, help="numbers of layers to choose from (default: all)")
    parser.add_argument("--exhaustive", action="store_true", help="try every K: the loss need not grow with K")
    parser.add_argument("--compare", choices=("sajjad2023",), help="published figures beside one's own")
    parser.add_argument("--store", type=LocalPath, default="runs/choose_k", help="folder of the runs")
    parser.add_argument("--figures", type=LocalPath, help="folder of the pictures (PNG and PDF)")
    parser.add_argument("--format", choices=("md", "latex", "csv"), default="md", help="of the table")
    add_engine_flags(parser)
    try:
        args, words = parser.parse_known_args(argv)
        refuse_misspelt(parser, words)
        return choose(args, words)
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Stopped):
        print("stopped. The same command goes on.", file=sys.stderr)
        return 130


def choose(args: argparse.Namespace, words: list[str]) -> int:
    """Execute the flags."""
    from layerdrop.analysis.choose_k import TaskTolerance, ToleranceSettings, find_tolerances
    from layerdrop.errors import UserError
    from layerdrop.report.figures import FIGURE_MARK, lines, save_figure
    from layerdrop.report.table import render
    from layerdrop.report.tables.tolerance import tolerance_table
    from layerdrop.search.candidates import Stopped
    from layerdrop.sweeps.execute import execute
    from layerdrop.sweeps.progress import Display
    from layerdrop.system.files import make_folder, refuse_foreign

    where = find_slots(args)
    settings = ToleranceSettings(args.max_loss, args.seeds, args.store, args.k, args.percent, args.exhaustive)
    tasks = [TaskTolerance(name, words, settings) for name in tasks_of(args.tasks, words)]
    make_folder("--store", args.store)
    if args.figures:
        make_folder("--figures", args.figures)
        for ending in ("png", "pdf"):
            refuse_foreign("--figures", Path(args.figures) / f"{FIGURE_NAME}.{ending}", FIGURE_MARK)
    engine = make_engine(args, where, all(task.gives_precision for task in tasks))
    display = Display(sys.stderr)
    try:
        with asking_to_stop(display.say) as stop:

            def train(jobs):
                progress = execute(jobs, engine, display.update, stop)
                if progress.stopped:
                    raise Stopped
                if progress.failed:
                    job, error = progress.failed[0]
                    raise UserError(f"{job.name}: this run is needed, and failed. {error}")
                return progress.records

            find_tolerances(tasks, train, display.say)
    finally:
        display.close()
        engine.close()
    print(render([tolerance_table(tasks, bool(args.compare))], args.format))
    for task in tasks:
        if task.folder:
            print(f"{task.name}: the model of K = {task.tolerances[-1].k} is in {task.folder}")
    if args.figures:
        losses = {t.name: sorted((k, t.loss_at(k, 0)) for k in t.known) for t in tasks}
        series = {name: ([k for k, _ in of], [value for _, value in of]) for name, of in losses.items()}
        unit = "percent" if args.percent else "points"
        figure = lines(series, f"loss, {unit}", levels=args.max_loss, x="K, layers dropped")
        print(*save_figure(figure, args.figures, FIGURE_NAME), sep="\n", file=sys.stderr)
    return 0


if __name__ == "__main__":
    from layerdrop.system.process import tolerate_broken_output

    tolerate_broken_output()
    sys.exit(main())
