"""Select the layers to drop: train reduced models as candidates, and compare them.

  layerdrop search FILE.yaml --method greedy --max_k 6

Candidates are trained on one part of the training set and compared on the rest. The validation set is not read. FILE
contains lines `flag: value`. The other flags are those of `layerdrop run` (--model_name_or_path, --task_name, ...).
Repeat the command to resume a search.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from layerdrop.cli.command import CommandParser
from layerdrop.cli.engines import SELECTION, add_engine_flags, executing, find_slots, parse_known, refuse_flags
from layerdrop.errors import UserError, unknown
from layerdrop.system.files import LocalPath
from layerdrop.system.settings import SEARCH, read_settings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop search`."""
    methods = "greedy (Peer et al. 2022), optimal (every set), or shortlist (the sets that four strategies select)"
    parser.usage = "layerdrop search [FILE.yaml] [--flag value ...]"
    parser.add_argument("--method", default="greedy", help=methods)
    parser.add_argument("--max_k", type=int, help="maximum number of dropped layers (default: half of the layers)")
    parser.add_argument("--seeds", nargs="+", type=int, help="average the scores over these seeds (default: --seed)")
    parser.add_argument(
        "--select_on", help="metric to select by, or loss (default: the task's F1, Spearman, Matthews or accuracy)"
    )
    parser.add_argument(
        "--round", type=int, help="round scores to this many decimals before comparing them (Peer et al.: 3)"
    )
    parser.add_argument("--store", type=LocalPath, default="runs/search", help="folder of the runs and of the result")
    add_engine_flags(parser)


def main(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Search, and print the result. Returns the exit code."""
    record, path, more = search_layers(parser, words)
    from layerdrop.search.record import summary

    print(summary(record, path, more))
    return 0


def search_layers(parser: argparse.ArgumentParser, words: list[str]):
    """Execute a search. Returns (SearchRecord, path of its layer file, further flags for the command of a run).

    Raises UserError, and KeyboardInterrupt if the user stops it.
    """
    args, arguments = _parse(parser, words)

    from layerdrop.criteria.selection import search_space
    from layerdrop.finetune.distillation import check_depth
    from layerdrop.runs.store import Store
    from layerdrop.search.candidates import Candidates
    from layerdrop.search.methods import METHODS
    from layerdrop.search.record import level_words
    from layerdrop.search.run import search
    from layerdrop.system.distributed import log_notes
    from layerdrop.system.files import make_folder

    slots = find_slots(args)
    full_run = _full_run(args, arguments)
    spec, n_layers = full_run.spec, full_run.checkpoint.n_layers
    method, seeds = METHODS[args.method], tuple(args.seeds or [spec.seed])
    max_k = n_layers // 2 if args.max_k is None else args.max_k
    layers = search_space(full_run.checkpoint, max_k, "--max_k")
    check_depth(spec.distil, n_layers - max_k)
    make_folder("--store", args.store)
    log_notes(full_run.record.notes)
    prerequisites = [run for run in spec.prerequisites if not (method.proposes and run == spec.start)]
    total = (method.trainings(len(layers), max_k) + len(prerequisites)) * len(seeds)
    with executing(args, slots, arguments.gives_precision) as (engine, display, stop):
        display.log(f"{method.name}: at most {total} trainings, {engine.slots} at once; records in {args.store}")
        candidates = Candidates(
            full_run.record, full_run.options, Store(args.store), engine,
            seeds=seeds, total=total, select_on=args.select_on, on_progress=display.update, stop=stop,
        )  # fmt: skip
        record = search(
            method.name, layers, max_k, candidates, full_run.choose,
            digits=args.round, on_level=lambda level: display.log(level_words(level)),
        )  # fmt: skip
    return record, record.write(args.store), _beyond_spec(arguments)


def _beyond_spec(arguments) -> list[str]:
    """Flags outside a run's identity that both the search and a later run need."""
    values = {
        "validation_file": arguments.data.validation_file,
        "validation_split": arguments.data.validation_split,
        "cache_dir": arguments.model.cache_dir,
        "trust_remote_code": arguments.model.trust_remote_code or None,
    }
    return [word for name, value in values.items() if value for word in (f"--{name}", str(value))]


def _parse(parser: argparse.ArgumentParser, words: list[str]):
    """The search's own flags, and the Arguments of its runs. The command line overrides the file.

    Raises UserError for flags that a search cannot use.
    """
    settings = {}
    if words and not words[0].startswith("-"):
        settings = read_settings(words.pop(0), SEARCH)
        own = [action.dest for action in parser._actions]
        parser.set_defaults(**{name: settings.pop(name) for name in own if name in settings})
    args, rest = parse_known(parser, words, SELECTION)
    from layerdrop.cli.checks import logged_metrics
    from layerdrop.cli.parsing import parse_settings
    from layerdrop.data.tasks import check_metric
    from layerdrop.search.methods import METHODS
    from layerdrop.search.run import HOLD_OUT
    from layerdrop.sweeps.study import QUIET, refuse_flags_of_one_run

    if args.method not in METHODS:
        raise unknown("--method", args.method, METHODS)
    given = [*(f"--{name}" for name, value in settings.items() if value not in (None, False)), *rest]
    refuse_flags_of_one_run(given)
    refuse_flags(given, SELECTION, "a search selects the layers, for every K up to --max_k")
    refuse_flags(given, ("freeze_dropped",), "needs the layers to drop, which a search selects later")
    refuse_flags(given, ("do_train", "do_eval", "do_predict"), "a search trains and evaluates")
    start = CommandParser(parser.prog, allow_abbrev=False, add_help=False)
    start.add_argument("--drop_when", default=settings.get("drop_when"))
    if (when := start.parse_known_args(rest)[0].drop_when) in ("gradual", "elastic"):
        raise UserError(f"--drop_when {when}: not available in a search. Use pretrained, finetuned or after.")
    arguments = parse_settings(QUIET | {"eval_strategy": "no", "hold_out": HOLD_OUT} | settings, rest)
    check_metric("--select_on", args.select_on, arguments.task_name, logged_metrics(arguments))
    return args, arguments


def _full_run(args: argparse.Namespace, arguments):
    """The run of the full model, with its inputs."""
    from layerdrop.checkpoints import work_offline_unless_reachable
    from layerdrop.runs.store import SCORE_FOLDER
    from layerdrop.search.full_run import FullRun

    if arguments.needs_hub:
        work_offline_unless_reachable()
    spec, options = arguments.to_spec()
    scores = options.score_store or str(Path(args.store) / SCORE_FOLDER)
    return FullRun(spec, replace(options, score_store=scores))
