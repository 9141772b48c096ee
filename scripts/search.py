#!/usr/bin/env python
"""Search which layers to drop, by training candidates: python scripts/search.py [FILE.yaml] --method greedy --max_k 6

Candidates are trained on a part of the training set and compared on the rest; the development set is not read. The
other flags are those of run_glue.py (--model_name_or_path, --task_name, --data_dir, --learning_rate, ...). FILE.yaml
holds flags, one a line. What is done already is not done again: the same command goes on.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.executing import add_engine_flags, asking_to_stop, find_places, make_engine, refuse_misspelt


def main(argv: list[str]) -> int:
    """The exit code: 0 done, 2 unusable input, 130 stopped by the user."""
    from layerdrop.errors import UserError
    from layerdrop.search import METHODS

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
    parser.add_argument(
        "--verify", type=int, default=4, help="one-shot: train the N best sets of the last level, and choose among them"
    )
    parser.add_argument("--store", default="runs/search", help="folder of the runs and of the result")
    add_engine_flags(parser)
    try:
        return search(*_parse(parser, list(argv)))
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The search's own flags, and the words for run_glue.py; those of a file come first, so that the others win."""
    from layerdrop.arguments import read_settings

    settings = read_settings(argv.pop(0)) if argv and not argv[0].startswith("-") else {}
    own = [action.dest for action in parser._actions]
    parser.set_defaults(**{name: settings.pop(name) for name in own if name in settings})
    args, words = parser.parse_known_args(argv)
    refuse_misspelt(parser, words)
    from layerdrop.arguments import flags_of
    from layerdrop.study import QUIET

    return args, [*flags_of(QUIET | {"eval_strategy": "no", "hold_out": 0.15} | settings), *words]


def search(args: argparse.Namespace, words: list[str]) -> int:
    """Do what the flags say."""
    from layerdrop.one_shot import OneShot
    from layerdrop.progress import Display
    from layerdrop.runs.search_record import SearchRecord, step_words, summary
    from layerdrop.runs.store import Store
    from layerdrop.search import METHODS, Level
    from layerdrop.steps import tell
    from layerdrop.trials import Stopped, Trials

    where = find_places(args)
    whole, arguments = _whole_run(args, words)
    method, seeds = METHODS[args.method], tuple(args.seeds or [whole.spec.seed])
    layers, max_k = _space(args, whole.checkpoint)
    engine = make_engine(args, where, bool({"precision", "bf16", "fp16"} & arguments.given))
    tell(whole.record.notes)
    display = Display(sys.stderr)
    verify = args.verify if method.one_shot and args.verify > 1 else 0
    total = (method.trainings(len(layers), max_k) + verify) * len(seeds)
    display.say(f"{method.name}: {total} trainings at most, {engine.slots} at once; records in {args.store}")
    record = SearchRecord(method.name, whole.spec, seeds, digits=args.round)
    try:
        with asking_to_stop(display.say) as stop:
            trials = Trials(
                whole.record, whole.options, Store(args.store), engine,
                seeds=seeds, total=total, select_on=args.select_on, tell=display.update, stop=stop,
            )  # fmt: skip
            evaluate = OneShot(whole, trials) if method.one_shot else trials
            for level in method.search(layers, max_k, evaluate, args.round):
                record.levels.append(level)
                display.say(step_words(level))
            if verify:
                best = record.levels[-1].ranked[:verify]
                record.verified = Level(dict(zip(best, trials(best), strict=True)), args.round)
    except (KeyboardInterrupt, Stopped):
        display.close()
        print("stopped. The same command goes on.", file=sys.stderr)
        return 130
    finally:
        display.close()
        engine.close()
    record.select_on, record.cost = evaluate.metric, evaluate.cost
    print(summary(record, record.write(args.store)))
    return 0


def _whole_run(args: argparse.Namespace, words: list[str]):
    """The run in full depth, its inputs read, and its flags. Raises UserError for what a search cannot use."""
    from layerdrop.arguments import logged_metrics, parse
    from layerdrop.checkpoints import work_offline_unless_reachable
    from layerdrop.errors import UserError, unknown
    from layerdrop.search import METHODS
    from layerdrop.steps import GlueRun
    from layerdrop.study import refuse_flags_of_one_run

    if args.method not in METHODS:
        raise unknown("--method", args.method, METHODS)
    refuse_flags_of_one_run(words)
    arguments = parse(words)
    if arguments.drop.drop_strategy or arguments.drop.drop_layers:
        raise UserError("--drop_strategy, --drop_layers: a search chooses the layers. Leave them out.")
    if arguments.given & {"do_train", "do_eval", "do_predict"}:
        raise UserError("--do_train, --do_eval, --do_predict: a search trains and evaluates. Leave them out.")
    if args.select_on and args.select_on not in (allowed := logged_metrics(arguments)):
        raise UserError(
            f"--select_on {args.select_on}: no metric of {arguments.task_name}. Allowed: {', '.join(allowed)}."
        )
    if arguments.needs_hub:
        work_offline_unless_reachable()
    whole = GlueRun(*arguments.to_spec())
    whole.read()
    return whole, arguments


def _space(args: argparse.Namespace, checkpoint) -> tuple[list[int], int]:
    """The layers that may go, and how many may at most. Raises UserError."""
    from layerdrop.errors import UserError
    from layerdrop.surgery import droppable

    if checkpoint.family.shared:
        raise UserError(f"{checkpoint.family.name} shares one layer: all sets of K layers are the same model.")
    layers = droppable(checkpoint.config)
    max_k = checkpoint.n_layers // 2 if args.max_k is None else args.max_k
    most = min(len(layers), checkpoint.n_layers - 1)
    if not 1 <= max_k <= most:
        raise UserError(f"--max_k {max_k}: of {checkpoint.n_layers} layers choose 1 to {most}.")
    return layers, max_k


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
