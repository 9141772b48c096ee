"""Compare criteria, and analyze the layers of models.

  layerdrop layers ANALYSIS --models M [M ...] --tasks T [T ...]

  scores      all criteria: scores, order of dropping, and agreement of the orders (Kendall's tau)
  probe       a linear classifier on every layer: validation score by layer
  drift       how much fine-tuning changes the states after each layer (--pretrained M)
  profile     contribution of each layer (cosine of its input and output), layers with a cosine above 0.95, 0.925 and
              0.9, variance and magnitude of the weights
  similarity  cosine and CKA of every two layers, and the angle across blocks of K layers

M: a checkpoint, or the folder of a run that kept its model. A run is analyzed on its own task or data, with its own
--max_train_samples, --max_eval_samples and --max_seq_length. --tasks and your own data replace these settings.

The other flags are the data flags of `layerdrop run` (--data_dir, --train_file, --max_seq_length, --max_train_samples,
...). Results are stored in --store and reused. Tables are printed to stdout, figures are written to --figures.
"""

import argparse
import re
import sys

from layerdrop.cli.engines import SELECTION, own_data, parse_known, refuse_flags, tasks_of
from layerdrop.criteria.table import CRITERIA
from layerdrop.errors import UserError, unknown
from layerdrop.system.files import LocalPath

REFUSED = (*SELECTION, "drop_when", "teacher")
"""Flags of a run that this command does not take."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop layers`."""
    add = parser.add_argument
    add("analysis", help="scores, probe, drift, profile, similarity")
    add("--models", type=LocalPath, nargs="+", required=True, help="checkpoints, or folders of runs")
    add("--tasks", nargs="+", help="tasks (default: the task of own data or of a run, else mrpc)")
    add(
        "--split",
        choices=("train", "validation", "test"),
        default="train",
        help="split to read (default: train). probe always reads train and validation",
    )
    add("--criteria", nargs="+", help=f"scores: criteria to compare: {', '.join(CRITERIA)} (default: all)")
    add(
        "--token",
        choices=("sentence", "mean"),
        default="sentence",
        help="probe: classify the state of the sentence token, or the mean state. This is not the access token of the "
        "hub: for private models, set HF_TOKEN",
    )
    add("--pretrained", type=LocalPath, help="drift: the model before fine-tuning")
    add("--store", type=LocalPath, default="runs/layers", help="folder of results")
    add("--figures", type=LocalPath, help="folder of the figures (PNG and PDF)")
    add("--format", choices=("md", "latex", "csv"), default="md", help="format of the tables")


def main(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Compute missing results, print the tables, draw the figures. Returns the exit code."""
    args, rest = parse_known(parser, words, REFUSED)
    refuse_flags(rest, REFUSED, "layerdrop layers does not drop layers or train")
    from layerdrop.analysis.analyses import ANALYSES, AnalysisSettings
    from layerdrop.report.figures import save_figure
    from layerdrop.report.layer_report import REPORTS, labels, means
    from layerdrop.report.table import render
    from layerdrop.system.files import check_folder, make_folder
    from layerdrop.system.process import freeze_imports

    if args.analysis not in ANALYSES:
        raise unknown("analysis", args.analysis, ANALYSES)
    inputs, names = _inputs(args, rest)
    for flag, folder in (("--store", args.store), ("--figures", args.figures)):
        if folder:
            check_folder(flag, folder)
    freeze_imports()
    settings = AnalysisSettings(args.analysis, args.store, args.split, args.criteria, args.token, args.pretrained)
    values = [ANALYSES[args.analysis](item, settings) for item in inputs]
    by_label = dict(zip(labels(names), values, strict=True))
    tables, figures = REPORTS[args.analysis](by_label, means(names))
    print(render(tables, args.format))
    if args.figures:
        make_folder("--figures", args.figures)
        for name, figure in figures.items():
            file = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{args.analysis}_{name}").strip("_")
            print(*save_figure(figure, args.figures, file), sep="\n", file=sys.stderr)
    return 0


def _inputs(args: argparse.Namespace, words: list[str]) -> tuple[list, list]:
    """(an AnalysisInput for each model and task, their names for tables). Raises UserError."""
    from layerdrop.report.layer_report import AnalyzedModel
    from layerdrop.runs.record import read_record
    from layerdrop.system.text import short_name

    splits = ("train", "validation") if args.analysis == "probe" else (args.split,)
    inputs, names = [], []
    for model in args.models:
        try:
            record = read_record(model)  # None for a checkpoint that is not a run
        except ValueError as error:
            raise UserError(f"{error}. Restore the file, or give a checkpoint without a record.") from None
        name, training = short_name(record.spec.model.name if record else model), ""
        if record:
            training = f"{record.spec.drop.strategy}, K = {len(record.dropped)}" if record.dropped else "fine-tuned"
        for flags in data_of(record, args.tasks, words, splits):
            inputs.append(_input(model, splits, [*flags, *words]))
            names.append(AnalyzedModel(name, training, inputs[-1].spec.data.task, short_name(model)))
    return inputs, names


def data_of(record, tasks: list[str] | None, words: list[str], splits: tuple[str, ...]) -> list[list[str]]:
    """Data flags for each task to read `splits`: from --tasks or own data in `words`, else from the record of a run."""
    from layerdrop.runs.command import data_flags

    if record and not tasks and not own_data(words):
        return [data_flags(record.data_to_read, splits)]
    return [["--task_name", task] if task else [] for task in tasks_of(tasks, words)]


def _input(model: str, splits: tuple[str, ...], words: list[str]):
    """A model and the data of a task. Raises UserError for flags that do not apply here."""
    from transformers.utils.logging import disable_progress_bar

    from layerdrop.analysis.inputs import AnalysisInput
    from layerdrop.checkpoints import work_offline_unless_reachable
    from layerdrop.cli.parsing import parse

    steps = {"train": "--do_train", "validation": "--do_eval", "test": "--do_predict"}
    arguments = parse(["--model_name_or_path", model, *[steps[split] for split in splits], *words])
    if arguments.train.disable_tqdm:
        disable_progress_bar()
    if arguments.needs_hub:
        work_offline_unless_reachable()
    spec, options = arguments.to_spec()
    return AnalysisInput(spec, options, splits, arguments.train.per_device_eval_batch_size)
