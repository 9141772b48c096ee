#!/usr/bin/env python
"""What the layers of a model do: python scripts/layers.py ANALYSIS --models M [M ...] --tasks T [T ...] [flags]

  scores      every criterion side by side: scores, the order that each implies, how alike the orders are
  probe       a linear classifier on every layer: development score by layer
  drift       how far fine-tuning has moved the states of each layer (--pretrained M)
  profile     contribution of each layer, and what three thresholds drop; variance and magnitude of its weights
  similarity  every layer with every other: cosine, CKA, and the angle across blocks of K layers

M: a checkpoint, or the folder of a run that kept its model. A run is analyzed on its own task or own files unless you
give --tasks. The other flags are the data flags of run_glue.py (--data_dir, --train_file, --max_seq_length,
--max_train_samples, ...). Results are stored in --store and reused. Tables are printed to stdout, pictures are written
to --figures.
"""

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # before anything imports torch
    from layerdrop.system.process import prepare_process

    prepare_process()

from scripts.executing import own_files, refuse_misspelt, tasks_of


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 unusable input."""
    from layerdrop.errors import UserError, unknown
    from layerdrop.system.files import LocalPath

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("analysis", help=", ".join(ANALYSES))
    parser.add_argument("--models", type=LocalPath, nargs="+", required=True, help="checkpoints, or folders of runs")
    parser.add_argument("--tasks", nargs="+", help="default: the task of own files or of a run; else mrpc")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="train", help="texts to look at")
    parser.add_argument("--criteria", nargs="+", help="scores: these alone")
    parser.add_argument("--token", choices=("sentence", "mean"), default="sentence", help="probe: what is classified")
    parser.add_argument("--pretrained", type=LocalPath, help="drift: the model before fine-tuning")
    parser.add_argument("--store", type=LocalPath, default="runs/layers", help="folder of results")
    parser.add_argument("--figures", type=LocalPath, help="folder of the pictures (PNG and PDF)")
    parser.add_argument("--format", choices=("md", "latex", "csv"), default="md", help="of the tables")
    try:
        args, words = parser.parse_known_args(argv)
        refuse_misspelt(parser, words)
        if args.analysis not in ANALYSES:
            raise unknown("analysis", args.analysis, ANALYSES)
        show(args, words)
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    return 0


def show(args: argparse.Namespace, words: list[str]) -> None:
    """Compute what is missing, print the tables, draw the pictures."""
    from layerdrop.report.figures import save_figure
    from layerdrop.report.layer_report import REPORTS, labels, means
    from layerdrop.report.table import render
    from layerdrop.system.files import make_folder
    from layerdrop.system.process import collect_from_now_on

    splits = ("train", "validation") if args.analysis == "probe" else (args.split,)
    named, subjects = [], []
    for model in args.models:
        record = run_of(model)
        for data in data_of(record, args.tasks, words):
            subjects.append(subject(model, splits, [*data, *words]))
            named.append(name_of(model, record, subjects[-1].spec.data.task))
    make_folder("--store", args.store)
    if args.figures:
        make_folder("--figures", args.figures)
    collect_from_now_on()
    values = [ANALYSES[args.analysis](one, args) for one in subjects]
    found = dict(zip(labels(named), values, strict=True))
    tables, figures = REPORTS[args.analysis](found, means(named))
    print(render(tables, args.format))
    if args.figures:
        for name, figure in figures.items():
            file = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{args.analysis}_{name}").strip("_")
            print(*save_figure(figure, args.figures, file), sep="\n", file=sys.stderr)


def run_of(model: str):
    """The record of a run that is used as a model; None for any other checkpoint. Raises UserError."""
    from layerdrop.errors import UserError
    from layerdrop.runs.record import read_record

    try:
        return read_record(model)
    except ValueError as error:
        raise UserError(str(error)) from None


def data_of(record, tasks: list[str] | None, words: list[str]) -> list[list[str]]:
    """The data flags of each task, from --tasks or own files in `words`, else from the run. record: of a run, or None.

    Raises UserError.
    """
    from layerdrop.runs.command import data_flags

    if record and not tasks and not own_files(words):
        return [data_flags(record.spec.data)]
    return [["--task_name", task] if task else [] for task in tasks_of(tasks, words)]


def name_of(model: str, record, task: str):
    """The name of a model in tables. record: of the run that trained it, or None."""
    from layerdrop.report.layer_report import AnalysedModel
    from layerdrop.system.text import short_name

    training = ""
    if record:
        training = f"{record.spec.drop.strategy}, K = {len(record.dropped)}" if record.dropped else "fine-tuned"
    return AnalysedModel(short_name(record.spec.model.name if record else model), training, task, short_name(model))


def subject(model: str, splits: tuple[str, ...], words: list[str]):
    """A model and the data of a task. Raises UserError for flags that do not apply here."""
    from layerdrop.analysis.inputs import AnalysisInput
    from layerdrop.checkpoints import work_offline_unless_reachable
    from layerdrop.cli import parse
    from layerdrop.errors import UserError

    steps = {"train": "--do_train", "validation": "--do_eval", "test": "--do_predict"}
    arguments = parse(["--model_name_or_path", model, *[steps[split] for split in splits], *words])
    if arguments.named_strategy or arguments.when.drop_when != "pretrained" or arguments.teacher.teacher:
        raise UserError("scripts/layers.py looks at models as they are: leave the flags of dropping and training out.")
    if arguments.needs_hub:
        work_offline_unless_reachable()
    spec, options = arguments.to_spec()
    return AnalysisInput(spec, options, splits, arguments.train.per_device_eval_batch_size)


# ---- analyses: (subject, args) -> the values that layerdrop.report.layer_report shows --------------------------------
def kept(one, args: argparse.Namespace, compute, **of):
    """The result of a subject, from the store if it is there."""
    from layerdrop.analysis.inputs import cached
    from layerdrop.system.text import short_name

    name = f"{args.analysis}_{short_name(one.spec.model.name)}_{one.spec.data.task}"
    return cached(args.store, name, one.contents() | of, compute)


def scores(one, args: argparse.Namespace):
    """The scores of every criterion."""
    from layerdrop.criteria.stored import stored_scores
    from layerdrop.criteria.table import CRITERIA
    from layerdrop.errors import UserError, unknown
    from layerdrop.runs.store import SCORE_FOLDER

    for name in args.criteria or ():
        if name not in CRITERIA:
            raise unknown("--criteria", name, CRITERIA)
    n, folder = one.checkpoint.n_layers, str(Path(args.store) / SCORE_FOLDER)

    def compute(names):
        return stored_scores(
            names, one.checkpoint, one.examples(args.split), one.task, folder=folder, k=n - 1,
            tokenizer=one.checkpoint.tokenizer, weight_scope="final", max_seq_length=one.spec.data.max_seq_length,
            device=one.device, batch_size=one.batch_size,
        )  # fmt: skip

    notes = [f"{len(one.examples(args.split)):,} texts of {args.split}. sleb: its first step; angular-block: K = 1."]
    found = compute(args.criteria or [name for name in CRITERIA if not CRITERIA[name].needs_head])
    if not args.criteria:
        with_head = [name for name in CRITERIA if CRITERIA[name].needs_head]
        try:
            found.rows |= (more := compute(with_head)).rows
            found.head = more.head
        except UserError:
            notes.append(f"Without a trained head there are no scores by {', '.join(with_head)}.")
    if found.head:
        notes.append(f"Criteria that need a head look through {found.head}.")
    notes.append(f"Kept in {folder}, also for run_glue.py --score_store.")
    return {
        "scores": {name: [*rows[0], *[None] * (n - len(rows[0]))] for name, rows in found.rows.items()},
        "orders": {name: whole_order(name, rows, one.checkpoint) for name, rows in found.rows.items()},
        "notes": notes,
    }


def whole_order(name: str, rows: list[list[float]], checkpoint) -> list[int]:
    """Every layer of a checkpoint, first to go first, by a criterion's scores; those that cannot go come last."""
    from layerdrop.criteria.table import CRITERIA
    from layerdrop.strategies import by_score, order_of_dropping
    from layerdrop.surgery import droppable

    n, among, row = checkpoint.n_layers, droppable(checkpoint.config), CRITERIA[name]
    if row.unit == "block":  # of one layer
        order = by_score(rows[0], len(among), "lowest", among)
    else:
        scores = rows if row.unit == "steps" else rows[0]
        order = order_of_dropping(row, n, k=min(len(among), n - 1), scores=scores, among=among)
    return [*order, *(i for i in range(n) if i not in order)]


def probe(one, args: argparse.Namespace):
    """Development score behind each layer."""
    from layerdrop.analysis.probing import probe

    def compute():
        train, development = one.tokens("train"), one.tokens("validation")
        return {"scores": probe(one.encoder(), train, development, one.task, one.collate, token=args.token)}

    return kept(one, args, compute, token=args.token) | {"token": args.token}


def drift(one, args: argparse.Namespace):
    """How far fine-tuning has moved the states."""
    from layerdrop.analysis.layers import drift
    from layerdrop.checkpoints import Checkpoint
    from layerdrop.errors import UserError
    from layerdrop.loading import load_encoder

    if not args.pretrained:
        raise UserError("drift: compares with the model before fine-tuning. Add --pretrained M.")
    before = Checkpoint.open(args.pretrained, flag="--pretrained")
    if one.checkpoint.n_original != before.n_original:
        raise UserError(
            f"--pretrained {args.pretrained}: has {before.n_original} layers, {one.checkpoint.name} had "
            f"{one.checkpoint.n_original}. Give the model that it was fine-tuned from."
        )

    def compute():
        return drift(one.encoder(), load_encoder(before).to(one.device), one.batches(args.split))

    return kept(one, args, compute, pretrained=before.fingerprints)


def profile(one, args: argparse.Namespace):
    """Contribution, variance and magnitude of weights."""
    from layerdrop.analysis.layers import profile

    return kept(one, args, lambda: profile(one.encoder(), one.batches(args.split)))


def similarity(one, args: argparse.Namespace):
    """Every layer with every other."""
    from layerdrop.analysis.layers import similarity

    return kept(one, args, lambda: similarity(one.encoder(), one.batches(args.split)))


ANALYSES = {"scores": scores, "probe": probe, "drift": drift, "profile": profile, "similarity": similarity}


if __name__ == "__main__":
    sys.exit(main())
