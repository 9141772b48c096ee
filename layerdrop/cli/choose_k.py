"""Find the largest number of layers K that can be dropped within a maximum loss of score.

  layerdrop choose-k --max_loss 1 2 3 --tasks sst2 rte --drop_strategy top
  layerdrop choose-k FILE.yaml --max_loss 1

The validation set is split in halves. The command selects the largest K whose loss on one half is within --max_loss,
and reports its loss on the other half (Sajjad et al. 2023, Table 4). Missing runs are executed in --store. Repeat the
command to resume. The other flags, and the lines `flag: value` of FILE, are those of `layerdrop run`. Use --k and
--seeds instead of --drop_k and --seed. Output: a table, and the folder of the chosen model (largest --max_loss, first
seed). --figures adds a figure of loss by K.
"""

import argparse
import sys
from pathlib import Path

from layerdrop.cli.engines import (
    add_engine_flags,
    data_notes,
    executing,
    find_slots,
    parse_known,
    refuse_flags,
    tasks_of,
)
from layerdrop.errors import UserError
from layerdrop.system.files import LocalPath
from layerdrop.system.settings import CONFIGURATIONS, SEARCH, read_settings

FIGURE_NAME = "loss_by_k"
REPLACED = ("seed", "drop_k", "drop_threshold", "drop_layers", "remove_layers", "keep_layers")
"""Flags of a run that this command does not take."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop choose-k`."""
    parser.usage = "layerdrop choose-k [FILE.yaml] [--flag value ...]"
    add = parser.add_argument
    add("--max_loss", nargs="+", type=float, default=[1.0], help="maximum loss in points")
    add("--percent", action="store_true", help="--max_loss is in percent of the full model's score")
    add("--tasks", nargs="+", help="tasks (default: the task of own data (--train_file, --dataset_name), else mrpc)")
    add("--seeds", nargs="+", type=int, default=[42], help="seeds; scores are medians over seeds")
    add("--k", nargs="+", type=int, help="values of K to choose from (default: all)")
    add(
        "--exhaustive",
        action="store_true",
        help="try every K (default: bisection, which assumes that the loss grows with K)",
    )
    add("--finetune_chosen", action="store_true", help="with --drop_when elastic: fine-tune the chosen model once more")
    add("--select_on", help="metric of the losses (default: the task's F1, Spearman, Matthews or accuracy)")
    add("--compare", choices=("sajjad2023",), help="also show the K and the loss of this paper")
    add("--store", type=LocalPath, default="runs/choose_k", help="folder of the runs")
    add("--figures", type=LocalPath, help="folder of the figures (PNG and PDF)")
    add("--format", choices=("md", "latex", "csv"), default="md", help="format of the table")
    add_engine_flags(parser)


def main(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Choose K for every task, and print the table. Returns the exit code."""
    file = words.pop(0) if words and words[0].endswith(CONFIGURATIONS) else ""
    settings = read_settings(file, SEARCH) if file else {}
    if own := [action.dest for action in parser._actions if action.dest in settings]:
        raise UserError(f"{file}: '{own[0]}' is a flag of {parser.prog}. Give it on the command line.")
    args, rest = parse_known(parser, words, REPLACED)
    from layerdrop.cli.parsing import flags_of, parse_settings

    if args.tasks:
        settings.pop("task_name", None)
    rest = [*flags_of(settings, f"{file}: "), *rest]
    refuse_flags(rest, REPLACED, "choosing K takes --k, --seeds and --drop_strategy instead")
    from layerdrop.analysis.choose_k import TaskTolerance, ToleranceSettings, find_tolerances
    from layerdrop.cli.checks import logged_metrics
    from layerdrop.data.tasks import check_metric
    from layerdrop.report.figures import FIGURE_MARK, lines, save_figure
    from layerdrop.report.table import render
    from layerdrop.report.tables.tolerance import tolerance_table
    from layerdrop.search.candidates import Stopped
    from layerdrop.sweeps.execute import execute
    from layerdrop.system.distributed import log_notes
    from layerdrop.system.files import make_folder, refuse_foreign

    slots = find_slots(args)
    choice = args.k, args.percent, args.exhaustive, args.finetune_chosen, args.select_on

    def parse(defaults, words):
        arguments = parse_settings(defaults, words)
        task = arguments.data.task
        allowed = task.metrics if task else logged_metrics(arguments)[1:]
        check_metric("--select_on", args.select_on, arguments.task_name, allowed)
        return arguments

    choices = ToleranceSettings(args.max_loss, args.seeds, args.store, *choice)
    tasks = [TaskTolerance(name, rest, choices, parse) for name in tasks_of(args.tasks, rest)]
    notes = [note for task in tasks for note in data_notes(args, task.unfinished())]
    make_folder("--store", args.store)
    if args.figures:
        make_folder("--figures", args.figures)
        for ending in ("png", "pdf"):
            refuse_foreign("--figures", Path(args.figures) / f"{FIGURE_NAME}.{ending}", FIGURE_MARK)
    log_notes(notes)
    with executing(args, slots, all(task.gives_precision for task in tasks)) as (engine, display, stop):

        def train(jobs):
            progress = execute(jobs, engine, display.update, stop)
            if progress.stopped:
                raise Stopped
            if progress.failed:
                raise UserError(progress.first_failure)
            return progress.records

        find_tolerances(tasks, train, display.log)
    print(render([tolerance_table(tasks, bool(args.compare))], args.format))
    for task in tasks:
        if task.folder:
            print(f"{task.name}: the model of K = {task.tolerances[-1].k} is in {task.folder}")
        elif not task.tolerances[-1].k:
            advice = "Train for more epochs, or give a smaller --k or a larger --max_loss."
            print(f"{task.name}: no tried K is within the loss, so no model is kept. {advice}")
    if args.figures:
        losses = {t.name: sorted((k, t.loss_at(k, 0)) for k in t.known) for t in tasks}
        series = {name: ([k for k, _ in points], [loss for _, loss in points]) for name, points in losses.items()}
        unit = "percent" if args.percent else "points"
        figure = lines(series, f"loss, {unit}", levels=args.max_loss, x="K, layers dropped")
        print(*save_figure(figure, args.figures, FIGURE_NAME), sep="\n", file=sys.stderr)
    return 0
