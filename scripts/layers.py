#!/usr/bin/env python
"""What the layers of a model do: python scripts/layers.py ANALYSIS --models M [M ...] --tasks T [T ...] [flags]

  scores      every criterion side by side: scores, the order that each implies, how alike the orders are
  probe       a linear classifier on every layer: development score by layer
  drift       how far fine-tuning has moved the states of each layer (--pretrained M)
  profile     contribution of each layer, and what three thresholds drop; variance and magnitude of its weights
  similarity  every layer with every other: cosine, CKA, and the angle across blocks of K layers

M: a checkpoint, or the folder of a run that kept its model, which is looked at on its own task unless --tasks says
otherwise. The other flags are those of run_glue.py that say which data (--data_dir, --max_seq_length,
--max_train_samples, ...). Results are kept in --store, and are not computed twice; tables go to stdout, pictures to
--figures.
"""

import argparse
import re
import signal
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # before anything imports torch
    from layerdrop.process import prepare_process

    prepare_process()

from scripts.executing import refuse_misspelt

THRESHOLDS = (0.95, 0.925, 0.9)
"""Of the contribution: Sajjad et al. (2023), Section 3."""


def main(argv: list[str]) -> int:
    """The exit code: 0 done, 2 unusable input."""
    from layerdrop.errors import UserError, unknown

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("analysis", help=", ".join(ANALYSES))
    parser.add_argument("--models", nargs="+", required=True, help="checkpoints, or folders of runs")
    parser.add_argument("--tasks", nargs="+", help="default: the task of a run; mrpc for other checkpoints")
    parser.add_argument("--split", choices=("train", "validation", "test"), default="train", help="texts to look at")
    parser.add_argument("--criteria", nargs="+", help="scores: these alone")
    parser.add_argument("--token", choices=("sentence", "mean"), default="sentence", help="probe: what is classified")
    parser.add_argument("--pretrained", help="drift: the model before fine-tuning")
    parser.add_argument("--store", default="runs/layers", help="folder of results")
    parser.add_argument("--figures", help="folder of the pictures (PNG and PDF)")
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
    from layerdrop.process import collect_from_now_on
    from layerdrop.report.layer_figures import save
    from layerdrop.report.render import render

    splits = ("train", "validation") if args.analysis == "probe" else (args.split,)
    subjects = [
        subject(model, task, splits, words) for model in args.models for task in args.tasks or [own_task(model)]
    ]
    collect_from_now_on()
    tables, figures = ANALYSES[args.analysis](subjects, args)
    print(render(tables, args.format))
    if args.figures:
        for name, figure in figures.items():
            file = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{args.analysis}_{name}").strip("_")
            print(*save(figure, args.figures, file), sep="\n", file=sys.stderr)


def subject(model: str, task: str, splits: tuple[str, ...], words: list[str]):
    """A model and a task. Raises UserError for flags that make no sense here."""
    from layerdrop.analysis.subjects import Subject
    from layerdrop.arguments import parse
    from layerdrop.checkpoints import work_offline_unless_reachable
    from layerdrop.errors import UserError

    steps = {"train": "--do_train", "validation": "--do_eval", "test": "--do_predict"}
    arguments = parse(["--model_name_or_path", model, "--task_name", task, *[steps[split] for split in splits], *words])
    if arguments.named_strategy or arguments.when.drop_when != "pretrained" or arguments.teacher.teacher:
        raise UserError("scripts/layers.py looks at models as they are: leave the flags of dropping and training out.")
    if arguments.needs_hub:
        work_offline_unless_reachable()
    spec, options = arguments.to_spec()
    return Subject(spec, options, splits, arguments.train.per_device_eval_batch_size)


def own_task(model: str) -> str:
    """That a run was trained on."""
    record = run_of(model)
    return record.spec.data.task if record else "mrpc"


def run_of(model: str):
    """The record of a run that is used as a model; None for any other checkpoint. Raises UserError."""
    from layerdrop.errors import UserError
    from layerdrop.runs.record import read_record

    try:
        return read_record(model)
    except ValueError as error:
        raise UserError(str(error)) from None


def names_of(one) -> tuple[str, str, str]:
    """A subject's model, what a run has made of it, its task. Of other checkpoints than runs the second is empty."""
    record = run_of(one.spec.model.name)
    name = Path((record.spec.model.name if record else one.spec.model.name).rstrip("/")).name
    made = ""
    if record:
        made = f"{record.spec.drop.strategy}, K = {len(record.dropped)}" if record.dropped else "fine-tuned"
    return name, made, one.spec.data.task


def label(one, subjects: list) -> str:
    """The names by which a subject differs from the others; where these are the same, the folder of its model."""
    of_all = [names_of(subject) for subject in subjects]
    models, made, tasks = (len(set(column)) > 1 for column in zip(*of_all, strict=True))
    name, how, task = names_of(one)
    if of_all.count((name, how, task)) > 1:
        name, how, models = Path(one.spec.model.name.rstrip("/")).name, "", True
    parts = [name if models or made or not tasks else "", how if made else "", task if tasks else ""]
    return ", ".join(filter(None, parts)) or name


def kept(one, args: argparse.Namespace, compute, **of):
    """The result of a subject, from the store if it is there."""
    from layerdrop.analysis.subjects import kept

    name = f"{args.analysis}_{Path(one.spec.model.name.rstrip('/')).name}_{one.spec.data.task}"
    return kept(args.store, name, one.contents() | of, compute)


# ---- analyses: (subjects, args) -> tables, figures -------------------------------------------------------------------
def scores(subjects: list, args: argparse.Namespace):
    """Every criterion side by side."""
    from layerdrop.errors import UserError, unknown
    from layerdrop.report.layer_figures import heat
    from layerdrop.report.layer_tables import agreement, by_layer, orders
    from layerdrop.runs.store import SCORE_FOLDER
    from layerdrop.scorers import SCORERS
    from layerdrop.scorers.stored import stored_scores
    from layerdrop.strategies import STRATEGIES, by_score, order_of_dropping
    from layerdrop.surgery import droppable

    for name in args.criteria or ():
        if name not in SCORERS:
            raise unknown("--criteria", name, SCORERS)
    tables, figures, folder = [], {}, str(Path(args.store) / SCORE_FOLDER)
    for one in subjects:
        n = one.checkpoint.n_layers

        def compute(names, one=one, n=n):
            return stored_scores(
                names, one.checkpoint, one.examples(args.split), one.task, folder=folder, k=n - 1,
                tokenizer=one.checkpoint.tokenizer, weight_scope="final", max_seq_length=one.spec.data.max_seq_length,
                device=one.device, batch_size=one.batch_size,
            )  # fmt: skip

        names, head = args.criteria or [name for name in SCORERS if not SCORERS[name].needs_head], []
        found = compute(names)
        if not args.criteria:
            with_head = [name for name in SCORERS if SCORERS[name].needs_head]
            try:
                found.rows |= (more := compute(with_head)).rows
                found.head, names = more.head, [*names, *with_head]
            except UserError:
                head = [f"Without a trained head there are no scores by {', '.join(with_head)}."]
        if found.head:
            head = [f"Criteria that need a head look through {found.head}."]
        first = {name: [*found.rows[name][0], *[None] * (n - len(found.rows[name][0]))] for name in names}
        among = droppable(one.checkpoint.config)
        order = {}
        for name in names:
            of = STRATEGIES[name].of
            rows = found.rows[name] if of == "steps" else found.rows[name][0]
            if of == "block":  # of one layer
                order[name] = by_score(rows, len(among), "lowest", among)
            else:
                order[name] = order_of_dropping(name, n, k=min(len(among), n - 1), scores=rows, among=among)
            order[name] += [i for i in range(n) if i not in order[name]]
        title = label(one, subjects)
        notes = [
            f"{len(one.examples(args.split)):,} texts of {args.split}. sleb: its first step; angular-block: K = 1.",
            *head,
        ]
        tables += [by_layer("scores", f"{title}: scores", first, range(n), notes, "criterion")]
        tables += [orders(f"{title}: orders", order), agreement(f"{title}: agreement", order)]
        places = [[order[name].index(i) for i in range(n)] for name in names]
        figures[title] = heat({f"{title}: place in the order (dark goes last)": places}, "layer", "", names=names)
    print(f"scores are kept in {folder}: run_glue.py --score_store {folder}", file=sys.stderr)
    return tables, figures


def probe(subjects: list, args: argparse.Namespace):
    """Development score by layer."""
    from layerdrop.analysis.probing import probe
    from layerdrop.report.layer_figures import lines
    from layerdrop.report.layer_tables import by_layer

    rows: dict[str, list[float]] = {}
    for one in subjects:

        def compute(one=one):
            train, development = one.tokens("train"), one.tokens("validation")
            model = one.encoder()
            return {"scores": probe(model, train, development, one.task, one.collate, token=args.token)}

        found = kept(one, args, compute, token=args.token)["scores"]
        rows[label(one, subjects)] = [None if value is None else 100 * value for value in found]
    rows = _with_means(subjects, rows)
    points = range(-1, len(next(iter(rows.values()))) - 1)
    note = (
        f"Logistic or ridge regression on the {args.token} token's states; regularisation chosen on 15% of the "
        "training set; points on the development set: F1 for MRPC and QQP, Spearman for STS-B, Matthews for CoLA, else "
        "accuracy."
    )
    table = by_layer("probe", "probe: score behind each layer", rows, ["emb", *points[1:]], [note])
    return [table], {"layers": lines({name: (points, values) for name, values in rows.items()}, "score of a probe")}


def _means(subjects: list, rows: dict) -> dict[str, list]:
    """For each model that is seen on several tasks, once on each: the rows whose mean is shown."""
    groups: dict[str, dict[str, list]] = {}
    counts = Counter(names_of(one) for one in subjects)
    for one in subjects:
        name, how, task = names_of(one)
        if counts[name, how, task] == 1:
            groups.setdefault(", ".join(filter(None, (name, how))), {})[task] = rows[label(one, subjects)]
    alone = len(groups) == 1
    return {"mean" if alone else f"{name}, mean": [*of.values()] for name, of in groups.items() if len(of) > 1}


def _with_means(subjects: list, rows: dict[str, list]) -> dict[str, list]:
    """The rows, and behind them the mean of each model's rows."""
    means = {
        name: [None if None in values else sum(values) / len(values) for values in zip(*of, strict=True)]
        for name, of in _means(subjects, rows).items()
    }
    return rows | means


def drift(subjects: list, args: argparse.Namespace):
    """How far fine-tuning has moved the states."""
    from layerdrop.analysis.layers import drift
    from layerdrop.checkpoints import Checkpoint
    from layerdrop.errors import UserError
    from layerdrop.loading import load_encoder
    from layerdrop.report.layer_figures import lines
    from layerdrop.report.layer_tables import by_layer

    if not args.pretrained:
        raise UserError("drift: compares with the model before fine-tuning. Add --pretrained M.")
    before = Checkpoint.open(args.pretrained, flag="--pretrained")
    found = {}
    for one in subjects:
        if one.checkpoint.n_original != before.n_original:
            raise UserError(
                f"--pretrained {args.pretrained}: has {before.n_original} layers, {one.checkpoint.name} had "
                f"{one.checkpoint.n_original}. Give the model that it was fine-tuned from."
            )

        def compute(one=one):
            return drift(one.encoder(), load_encoder(before).to(one.device), one.batches(args.split))

        found[label(one, subjects)] = kept(one, args, compute, pretrained=before.fingerprints)
    tables = []
    for name, values in found.items():
        points = ["emb" if i < 0 else i for i in values["ids"]]
        rows = {kind: row for kind, row in values.items() if kind != "ids"}
        tables.append(by_layer("drift", f"{name}: cosine of the states before and after fine-tuning", rows, points))
    series = {name: (values["ids"], values["mean"]) for name, values in found.items()}
    ids = next(iter(found.values()))["ids"]
    if len(found) > 1 and all(values["ids"] == ids for values in found.values()):
        rows = _with_means(subjects, {name: values["mean"] for name, values in found.items()})
        tables.append(by_layer("drift", "cosine before and after fine-tuning, side by side", rows, points))
        series = {name: (ids, values) for name, values in rows.items()}
    spread = {name: values["spread"] for name, values in found.items()}
    return tables, {"layers": lines(series, "cosine before, after", spread=spread, shade_below=0.7)}


def profile(subjects: list, args: argparse.Namespace):
    """Contribution, thresholds, weights."""
    from layerdrop.analysis.layers import profile
    from layerdrop.report.layer_figures import lines
    from layerdrop.report.layer_tables import by_layer

    tables, found = [], {}
    for one in subjects:
        values = kept(one, args, lambda one=one: profile(one.encoder(), one.batches(args.split)))
        name, n = label(one, subjects), one.checkpoint.n_layers
        found[name] = values
        notes = []
        for kind in ("sentence", "tokens"):
            gone = {t: [i for i in range(n) if values[kind][i] > t] for t in THRESHOLDS}
            said = "; ".join(f"{t}: {' '.join(map(str, ids)) or 'none'}" for t, ids in gone.items())
            notes.append(f"Similar above the threshold by {kind}: {said}.")
        tables.append(by_layer("profile", f"{name}: profile", values, range(n), notes))
    figures = {
        kind: lines(
            {name: (range(len(values[kind])), values[kind]) for name, values in found.items()},
            {"sentence": "similarity, sentence token", "tokens": "similarity, all tokens"}.get(kind, kind),
            levels=THRESHOLDS if kind in ("sentence", "tokens") else (),
        )
        for kind in ("sentence", "tokens", "variance", "aggregation")
    }
    return tables, figures


def similarity(subjects: list, args: argparse.Namespace):
    """Every layer with every other."""
    from layerdrop.analysis.layers import similarity
    from layerdrop.report.layer_figures import heat
    from layerdrop.report.layer_tables import by_layer

    tables, figures = [], {}
    for one in subjects:
        found = kept(one, args, lambda one=one: similarity(one.encoder(), one.batches(args.split)))
        name, n = label(one, subjects), one.checkpoint.n_layers
        points = ["emb", *range(n)]
        for kind, words in (("cosine", "mean cosine"), ("cka", "linear CKA")):
            rows = {str(point): row for point, row in zip(points, found[kind], strict=True)}
            tables.append(by_layer(kind, f"{name}: {words} of the states behind each layer", rows, points))
        blocks = {f"K = {k}": [*row, *[None] * (k - 1)] for k, row in enumerate(found["blocks"], 1)}
        best = {
            k: min(range(len(row)), key=lambda i, row=row: (row[i], -i)) for k, row in enumerate(found["blocks"], 1)
        }
        note = "Most redundant block: " + ", ".join(f"K = {k}: {i} to {i + k - 1}" for k, i in best.items()) + "."
        tables.append(
            by_layer("blocks", f"{name}: angle across the block of K that begins at", blocks, range(n), [note])
        )
        panels = {"cosine": found["cosine"], "CKA": found["cka"]}
        figures[f"{name} states"] = heat(panels, "behind layer", "behind layer", names=points, columns=points)
        figures[f"{name} blocks"] = heat(
            {"angle across a block": found["blocks"]}, "first layer", "K", names=range(1, n + 1)
        )
    return tables, figures


ANALYSES = {"scores": scores, "probe": probe, "drift": drift, "profile": profile, "similarity": similarity}


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` ends quietly
    sys.exit(main(sys.argv[1:]))
