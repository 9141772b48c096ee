#!/usr/bin/env python
"""Whether successive halving finds better layers than whole trainings of few sets: a replay from learning curves.

    python benchmarks/halving.py configs/demo.yaml --tasks demo-rte demo-mrpc --k 6 [--sets 40]

FILE.yaml holds flags of run_glue.py. For each task: the sets of K layers that `shortlist` tries, and others that are
drawn by these sets' votes for each layer, are trained with the whole schedule, and scored on the held-out rows after
each tenth of the steps. Halving starts with shortlist's sets and twelve of the others; six go on after a tenth of the
steps, two after three tenths. Its score is the mean over draws of the twelve. Runs lie in --store; the same command
goes on.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.search import open_trials
from layerdrop.search.methods import Ids

POINTS = 10
"""Scores of a curve, after equal shares of the steps."""
ROUNDS = ((1, 6), (3, 2), (POINTS, 1))
"""Point of the curve, number of sets that go on."""
STARTS = 12
"""Sets that halving tries beside shortlist's."""
DRAWS = 500

Curves = Mapping[Ids, Sequence[float]]


def draw_sets(proposals: Sequence[Ids], n_sets: int, generator: random.Random) -> list[Ids]:
    """The proposals and others of their size, at most n_sets: layers drawn by the number of proposals with them."""
    votes = [i for ids in proposals for i in sorted(ids)]
    sets = list(proposals)
    for _ in range(100 * n_sets):
        if len(sets) == n_sets:
            break
        ids: set[int] = set()
        while len(ids) < len(proposals[0]):
            ids.add(generator.choice(votes))
        if ids not in sets:
            sets.append(frozenset(ids))
    return sets


def halved(curves: Curves, sets: Sequence[Ids]) -> Ids:
    """The set that wins; of equals the earlier one."""
    for point, left in ROUNDS:
        sets = sorted(sets, key=lambda ids: -curves[ids][point - 1])[:left]
    return sets[0]


def row(task: str, curves: Curves, proposals: Sequence[Ids]) -> str:
    """A line of the table; curves in shares of 1."""
    from scipy.stats import spearmanr

    final = {ids: 100 * curve[-1] for ids, curve in curves.items()}
    others = [ids for ids in curves if ids not in proposals]
    generator = random.Random(1)
    wins = [halved(curves, [*proposals, *generator.sample(others, min(STARTS, len(others)))]) for _ in range(DRAWS)]
    early = [spearmanr([curve[i - 1] for curve in curves.values()], list(final.values())).statistic for i in (1, 3, 5)]
    return (
        f"| {task}, {len(curves)} sets | {final[max(proposals, key=final.get)]:.1f} "
        f"| {statistics.fmean(final[ids] for ids in wins):.1f} | {max(final.values()):.1f} "
        f"| {', '.join(f'{rho:.2f}' for rho in early)} |"
    )


def table(args: argparse.Namespace) -> Iterator[str]:
    """The lines of Markdown, each after the trainings that it needs."""
    columns = ["shortlist's choice", "choice by halving", "best of the sets"]
    yield f"| | {' | '.join(columns)} | rank correlation with the end after 10%, 30%, 50% |"
    yield "|---|---|---|---|---|"
    for task in args.tasks:
        proposals, curves = curves_of(task, args)
        yield row(task, curves, proposals)


def curves_of(task: str, args: argparse.Namespace) -> tuple[list[Ids], Curves]:
    """(the sets that shortlist tries, each set's scores on the held-out rows); missing runs are done first."""
    from layerdrop.cli.command import command_parser
    from layerdrop.cli.parsing import parse
    from layerdrop.cli.search import search_layers
    from layerdrop.runs.steps import GlueRun

    words = [args.recipe, "--task_name", task, *args.flags]
    workers = ["--workers", str(args.workers)] if args.workers else []
    search = ["--method", "shortlist", "--max_k", str(args.k), "--store", f"{args.store}/shortlist", *workers]
    record = search_layers(command_parser("search"), [words[0], *search, *words[1:]])[0]
    proposals = list(record.levels[-1].proposed)

    evaluating = ["--eval_strategy", "steps", "--eval_steps", str(1 / POINTS)]
    spec, options = parse([*words, "--save_model", "no", "--save_strategy", "no", *evaluating]).to_spec()
    full_run = GlueRun(replace(spec, data=record.spec.data), options)
    full_run.read()
    sets = draw_sets(proposals, args.sets, random.Random(11))
    with open_trials(full_run, f"{args.store}/curves", [spec.seed], args.workers) as trials:
        trials.total = len(sets)
        trials(sets)
    curves = {frozenset(record.dropped): curve(record, trials.metric) for record in trials.records.values()}
    return proposals, curves


def curve(record, metric: str) -> list[float]:
    """A run's scores after equal shares of the steps, the last at its end. Raises UserError for too few steps."""
    from layerdrop.errors import UserError

    early = [entry[metric] for entry in record.epochs if metric in entry][: POINTS - 1]
    if len(early) < POINTS - 1:
        raise UserError(
            f"{record.folder}: {record.steps} steps are too few for {POINTS} scores. Train for more epochs."
        )
    return [*early, record.metrics[metric]]


def main() -> None:
    """Train and print."""
    from layerdrop.errors import UserError
    from layerdrop.search.candidates import Stopped

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe", help="YAML file of flags of run_glue.py")
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--k", type=int, default=6)
    parser.add_argument("--sets", type=int, default=40, help="sets to train for each task, shortlist's included")
    parser.add_argument("--store", default="runs/benchmark_halving")
    parser.add_argument("--workers", type=int)
    args, args.flags = parser.parse_known_args()
    try:
        for line in table(args):
            print(line, flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, Stopped):
        sys.exit("stopped. The same command goes on.")


if __name__ == "__main__":
    main()
