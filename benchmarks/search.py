#!/usr/bin/env python
"""How good the layers are that searches choose, and what the choice costs: regret on the development set.

    python benchmarks/search.py configs/demo.yaml --tasks demo-rte demo-mrpc --k 2 4 6 [--seeds 1 2 3] [--all_sets 2]

FILE.yaml holds flags of run_glue.py. For each task every search of --methods chooses layers on a held-out part of the
training set. Then each choice, those of the strategies, and some random sets are trained on the whole training set and
scored on the development set. Regret: points below the best set that was tried, of all sets up to K = --all_sets, of
all that are trained beyond it. Runs lie in --store; the same command goes on.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

ROOT = Path(__file__).resolve().parent.parent
STRATEGIES = ("top", "bottom", "symmetric", "contribution")


# ---- choices --------------------------------------------------------------------------------------------------------
def searched(method: str, task: str, args: argparse.Namespace) -> dict:
    """The record of a search, which is done first where it is missing."""
    where = Path(args.store) / "search"
    words = [args.recipe, "--method", method, "--max_k", str(max(args.k)), "--task_name", task, "--store", str(where)]
    command = [sys.executable, str(ROOT / "scripts" / "search.py"), *words, *args.workers_words, *args.flags]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"{' '.join(command)}: failed")
    (found,) = where.glob(f"*_{task}_{method}.json")
    return json.loads(found.read_text())


def choices(task: str, n_layers: int, args: argparse.Namespace) -> tuple[dict[tuple[str, int], list[str]], dict]:
    """(name, K) -> flags of each choice of that name; and the cost of each search."""
    found: dict[tuple[str, int], list[str]] = {}
    cost = {}
    for method in args.methods:
        record = searched(method, task, args)
        cost[method] = record["cost"]
        found |= {(method, k): [_layers(record["sets"][k - 1])] for k in args.k}
    generator = random.Random(41)
    for k in args.k:
        found |= {(name, k): [f"--drop_strategy {name} --drop_k {k}"] for name in STRATEGIES}
        found["random", k] = [_layers(generator.sample(range(n_layers), k)) for _ in range(args.random)]
        if k <= args.all_sets:
            found["every set", k] = [_layers(ids) for ids in combinations(range(n_layers), k)]
    return found, cost


def _layers(ids) -> str:
    return f"--drop_layers {','.join(map(str, sorted(ids)))}"


# ---- runs -----------------------------------------------------------------------------------------------------------
def jobs_of(task: str, flags: str, args: argparse.Namespace) -> list:
    """One job for each seed, on the whole training set; empty where the strategy cannot drop so many layers."""
    from layerdrop.arguments import parse
    from layerdrop.engines.base import Job
    from layerdrop.runs.store import Store

    words = [args.recipe, "--task_name", task, "--save_model", "no", "--eval_strategy", "no", "--save_strategy", "no"]
    jobs = []
    for seed in args.seeds:
        spec, options = parse([*words, *flags.split(), "--seed", str(seed), *args.flags]).to_spec()
        folder = Store(f"{args.store}/development").folder(spec)
        jobs.append(Job(spec, replace(options, folder=folder, resume="auto")))
    return jobs


def table(task: str, found: dict, cost: dict, args: argparse.Namespace) -> list[str]:
    """Do the runs that are missing; a line for each name: regret at each K, and the cost of the choice."""
    from layerdrop.engines.local import LocalEngine
    from layerdrop.engines.places import places
    from layerdrop.execute import execute
    from layerdrop.progress import Display
    from layerdrop.trials import selection_metric
    from run_glue import run

    jobs = {key: [jobs_of(task, flags, args) for flags in each] for key, each in found.items()}
    engine, display = LocalEngine(run, places(args.workers)), Display()
    try:
        done = execute([j for each in jobs.values() for one in each for j in one], engine, display.update).records
    finally:
        display.close()
        engine.close()

    def score(one: list) -> float | None:
        """The median over seeds, in points; None where a run is missing."""
        records = [done.get(job.spec.id) for job in one]
        return 100 * statistics.median(r.metrics[selection_metric(r)] for r in records) if all(records) else None

    scores = {key: [s for one in each if (s := score(one)) is not None] for key, each in jobs.items()}
    best = {k: max(s for (_, of), each in scores.items() if of == k for s in each) for k in args.k}
    lines = [f"{task:<12}" + "".join(f"{f'K = {k}':>16}" for k in args.k) + "   trainings   steps"]
    for name in dict.fromkeys(name for name, _ in found):
        cells = []
        for k in args.k:
            mean = statistics.fmean(scores[name, k]) if scores.get((name, k)) else None
            cells.append("-" if mean is None else f"{mean:.1f} ({best[k] - mean:.1f})")
        spent = f"{cost[name]['trainings']:>12}{cost[name]['steps']:>8}" if name in cost else ""
        lines.append(f"{name:<12}" + "".join(f"{cell:>16}" for cell in cells) + spent)
    return lines


def main() -> None:
    """Search, train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="YAML file of flags of run_glue.py")
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--k", nargs="+", type=int, default=[2, 4, 6])
    parser.add_argument("--methods", nargs="+", default=["greedy", "one-shot"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="of the runs on the whole training set")
    parser.add_argument("--random", type=int, default=8, help="number of random sets")
    parser.add_argument("--all_sets", type=int, default=0, help="up to this K train every set")
    parser.add_argument("--store", default="runs/benchmark_search")
    parser.add_argument("--workers", type=int)
    args, args.flags = parser.parse_known_args()
    args.workers_words = ["--workers", str(args.workers)] if args.workers else []
    from layerdrop.arguments import parse
    from layerdrop.checkpoints import Checkpoint

    for task in args.tasks:
        spec, _ = parse([args.recipe, "--task_name", task, *args.flags]).to_spec()
        found, cost = choices(task, Checkpoint.open(spec.model).n_layers, args)
        print("\n".join(table(task, found, cost, args)), flush=True)
    print("points on the development set, median over seeds, mean over sets (regret to the best set tried)")


if __name__ == "__main__":
    main()
