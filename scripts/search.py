#!/usr/bin/env python
"""Search which layers to drop, by training candidates: python scripts/search.py [FILE.yaml] --method greedy --max_k 6

Candidates are trained on a part of the training set and compared on the rest; the development set is not read. The
other flags are those of run_glue.py (--model_name_or_path, --task_name, --data_dir, --learning_rate, ...). FILE.yaml
holds flags, one a line. What is done already is not done again: the same command goes on.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # before anything imports torch
    from layerdrop.system.process import prepare_process

    prepare_process()

from scripts.executing import add_engine_flags, asking_to_stop, find_slots, make_engine, refuse_misspelt


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 unusable input, 130 stopped by the user."""
    from layerdrop.errors import UserError

    try:
        record, path, more = search_layers(sys.argv[1:] if argv is None else list(argv))
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped. The same command goes on.", file=sys.stderr)
        return 130
    from layerdrop.search.record import summary

    print(summary(record, path, more))
    return 0


def search_layers(argv: list[str]):
    """Execute a search. Returns (SearchRecord, path of its layer file, words of a run's command that are not in the
    record). Raises UserError, and KeyboardInterrupt if the user stops it."""
    args, words = _parse(argv)

    from layerdrop.criteria.selection import search_space
    from layerdrop.finetune.distillation import check_depth
    from layerdrop.runs.store import Store
    from layerdrop.search.candidates import Candidates, Stopped
    from layerdrop.search.methods import METHODS
    from layerdrop.search.record import step_words
    from layerdrop.search.run import search
    from layerdrop.sweeps.progress import Display
    from layerdrop.system.distributed import log_notes
    from layerdrop.system.files import make_folder
    from layerdrop.system.process import collect_from_now_on

    where = find_slots(args)
    full_run, arguments = _full_run(args, words)
    method, seeds = METHODS[args.method], tuple(args.seeds or [full_run.spec.seed])
    max_k = full_run.checkpoint.n_layers // 2 if args.max_k is None else args.max_k
    layers = search_space(full_run.checkpoint.config, max_k, "--max_k")
    check_depth(full_run.spec.distil, full_run.checkpoint.n_layers - max_k)
    make_folder("--store", args.store)
    engine = make_engine(args, where, bool({"precision", "bf16", "fp16"} & arguments.given))
    collect_from_now_on()
    log_notes(full_run.record.notes)
    display = Display(sys.stderr)
    prerequisites = [run for run in full_run.spec.prerequisites if not (method.proposes and run == full_run.spec.start)]
    total = (method.trainings(len(layers), max_k) + len(prerequisites)) * len(seeds)
    display.say(f"{method.name}: {total} trainings at most, {engine.slots} at once; records in {args.store}")
    try:
        with asking_to_stop(display.say) as stop:
            trials = Candidates(
                full_run.record, full_run.options, Store(args.store), engine,
                seeds=seeds, total=total, select_on=args.select_on, tell=display.update, stop=stop,
            )  # fmt: skip
            record = search(
                method.name, layers, max_k, trials, full_run.choose,
                digits=args.round, tell=lambda level: display.say(step_words(level)),
            )  # fmt: skip
    except Stopped:
        raise KeyboardInterrupt from None
    finally:
        display.close()
        engine.close()
    return record, record.write(args.store), _not_in_a_spec(arguments)


def _not_in_a_spec(arguments) -> list[str]:
    """Flags outside a run's identity that the run needs as the search does."""
    values = {
        "validation_file": arguments.data.validation_file,
        "cache_dir": arguments.model.cache_dir,
        "trust_remote_code": arguments.model.trust_remote_code or None,
    }
    return [word for name, value in values.items() if value for word in (f"--{name}", str(value))]


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The search's own flags, and the words for run_glue.py; the words of a file come first, so that the command line
    wins."""
    from layerdrop.cli import flags_of, read_settings
    from layerdrop.cli.settings_files import SEARCH
    from layerdrop.search.methods import METHODS
    from layerdrop.system.files import LocalPath

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    methods = "; ".join(f"{row.name}: {row.summary}" for row in METHODS.values())
    parser.add_argument("--method", default="greedy", help=methods)
    parser.add_argument("--max_k", type=int, help="search up to so many dropped layers (default: half of them)")
    parser.add_argument("--seeds", nargs="+", type=int, help="average candidates over these (default: --seed)")
    parser.add_argument(
        "--select_on", help="metric, or loss (default: F1, Spearman, Matthews or accuracy, as the task)"
    )
    parser.add_argument("--round", type=int, help="compare scores rounded to so many decimals (GLP: 3)")
    parser.add_argument("--store", type=LocalPath, default="runs/search", help="folder of the runs and of the result")
    add_engine_flags(parser)
    settings = read_settings(argv.pop(0), SEARCH) if argv and not argv[0].startswith("-") else {}
    own = [action.dest for action in parser._actions]
    parser.set_defaults(**{name: settings.pop(name) for name in own if name in settings})
    args, words = parser.parse_known_args(argv)
    refuse_misspelt(parser, words)
    from layerdrop.search.run import HOLD_OUT
    from layerdrop.sweeps.study import QUIET

    return args, [*flags_of(QUIET | {"eval_strategy": "no", "hold_out": HOLD_OUT} | settings), *words]


def _full_run(args: argparse.Namespace, words: list[str]):
    """The run in full depth, its inputs read, and its flags. Raises UserError for flags that a search cannot use."""
    from layerdrop.checkpoints import work_offline_unless_reachable
    from layerdrop.cli import logged_metrics, parse
    from layerdrop.errors import UserError, unknown
    from layerdrop.runs.store import SCORE_FOLDER
    from layerdrop.search.full_run import FullRun
    from layerdrop.search.methods import METHODS
    from layerdrop.sweeps.study import refuse_flags_of_one_run

    if args.method not in METHODS:
        raise unknown("--method", args.method, METHODS)
    refuse_flags_of_one_run(words)
    arguments = parse(words)
    if arguments.named_strategy:
        raise UserError("--drop_strategy, --drop_layers, --keep_layers: a search chooses the layers. Leave them out.")
    when = arguments.when
    if when.drop_when == "gradual" or when.freeze_dropped:
        raise UserError("--drop_when gradual, --freeze_dropped: candidates have no order of layers. Leave them out.")
    if arguments.given & {"do_train", "do_eval", "do_predict"}:
        raise UserError("--do_train, --do_eval, --do_predict: a search trains and evaluates. Leave them out.")
    if args.select_on and args.select_on not in (allowed := logged_metrics(arguments)):
        raise UserError(
            f"--select_on {args.select_on}: no metric of {arguments.task_name}. Allowed: {', '.join(allowed)}."
        )
    if arguments.needs_hub:
        work_offline_unless_reachable()
    spec, options = arguments.to_spec()
    scores = options.score_store or str(Path(args.store) / SCORE_FOLDER)
    return FullRun(spec, replace(options, score_store=scores)), arguments


if __name__ == "__main__":
    sys.exit(main())
