#!/usr/bin/env python
"""Benchmark searches: cost of the search, and regret of the selected layers on the validation set.

    python benchmarks/search.py configs/demo.yaml --tasks demo-rte demo-mrpc --k 2 4 6 [--seeds 1 2 3] [--all_sets 2]

The YAML file holds flags of run_glue.py. For each task, every search of --methods chooses layers on a held-out part of
the training set. The sets of the searches and strategies, and some random sets, are then trained on the whole training
set, and scored on the validation set. Regret: points below the best set of the same size in --store. --all_sets K
trains every set of up to K layers, and ranks the choices among these sets. A strategy NAME@tuned scores the fine-tuned
full model. Criteria that need a head always score this model. With --hold_out 0.15, runs are trained and
scored as in a search. Repeat the command to resume. --draw FOLDER draws three figures."""

import argparse
import math
import random
import statistics
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from layerdrop.data.metrics import rank_key
from layerdrop.search.methods import Ids

CONTROLS = RANDOM, EVERY = "random", "every set"


@dataclass
class Choice:
    """A set of layers that a search or a strategy drops."""

    name: str
    k: int
    dropped: list[int] | None
    """None if the strategy cannot drop k layers."""
    scores: tuple[float, ...] = ()
    """Points on the validation set, one for each seed."""

    @property
    def score(self) -> float | None:
        """The median over seeds."""
        return statistics.median(self.scores) if self.scores else None


@dataclass
class Task:
    """Results on a task."""

    name: str
    n_layers: int
    choices: list[Choice]
    cost: dict[str, dict[str, float]]
    """Search -> trainings, steps, seconds."""
    trained: dict[Ids, float] = field(default_factory=dict)
    """Set -> median score over seeds, for every set in the store."""

    def of(self, name: str, k: int) -> list[Choice]:
        """The choices of a search, strategy or control (`name`) with K dropped layers."""
        return [c for c in self.choices if (c.name, c.k) == (name, k)]

    def mean(self, name: str, k: int) -> float | None:
        """Mean score over the choices of `name`."""
        scores = [c.score for c in self.of(name, k) if c.score is not None]
        return statistics.fmean(scores) if scores else None

    def best(self, k: int) -> float:
        """The best score of all trained sets of k layers."""
        return self.trained[self.best_set(k)]

    def best_set(self, k: int) -> Ids:
        """The trained set of k layers with the best score. Ties: the set with the higher ids."""
        of_size = (ids for ids in self.trained if len(ids) == k)
        return max(of_size, key=lambda ids: (rank_key(self.trained[ids]), sorted(ids)))

    def regret(self, name: str, k: int) -> float | None:
        """Points below the best set."""
        mean = self.mean(name, k)
        return None if mean is None else self.best(k) - mean

    def names(self) -> list[str]:
        """Names of searches, strategies and controls."""
        return list(dict.fromkeys(c.name for c in self.choices))


# ---- choices ---------------------------------------------------------------------------------------------------------
def choices(task: str, full_run, candidates, args: argparse.Namespace) -> Task:
    """Execute missing searches, and choose all sets to train. full_run: the run of the full model."""
    n_layers = full_run.checkpoint.n_layers
    results = Task(task, n_layers, [], {})
    for method in args.methods:
        record = searched(method, task, args)
        results.cost[method] = record.cost
        results.choices += [Choice(method, k, record.sets[k - 1]) for k in args.k]
    for k in sorted(args.k, reverse=True):  # scores for a large K include the scores for a smaller K
        results.choices += [Choice(name, k, chosen(name, k, full_run, candidates, args)) for name in args.strategies]
    generator = random.Random(41)
    for k in args.k:
        results.choices += [Choice(RANDOM, k, sorted(generator.sample(range(n_layers), k))) for _ in range(args.random)]
        if k <= args.all_sets:
            results.choices += [Choice(EVERY, k, list(ids)) for ids in combinations(range(n_layers), k)]
    return results


def chosen(strategy: str, k: int, full_run, candidates, args: argparse.Namespace) -> list[int] | None:
    """The layers that a strategy drops; None if it cannot drop k layers."""
    from layerdrop.errors import UserError

    words = ["--drop_strategy", strategy.partition("@")[0], "--drop_k", str(k)]
    if looks_at_tuned(strategy):
        words += ["--score_on", candidates.model(full_run.spec)]
    try:
        return sorted(full_run.choose(read_flags(full_run.spec.data.task, args, words)[0].drop).dropped)
    except UserError as error:
        print(f"{strategy}, K = {k}: {error}", file=sys.stderr)
        return None


def looks_at_tuned(strategy: str) -> bool:
    """Whether a strategy scores the full model after fine-tuning on the task with the first seed."""
    from layerdrop.criteria.table import CRITERIA

    return strategy.endswith("@tuned") or (strategy in CRITERIA and CRITERIA[strategy].needs_head)


def searched(method: str, task: str, args: argparse.Namespace):
    """Execute the missing trainings of a search, and return its record."""
    from layerdrop.cli.command import command_parser
    from layerdrop.cli.search import search_layers

    words = [args.recipe, "--method", method, "--max_k", str(max(args.k)), "--task_name", task, "--store", args.store]
    return search_layers(command_parser("search"), [*words, *args.workers_words, *args.flags])[0]


# ---- runs ------------------------------------------------------------------------------------------------------------
def measured(task: str, args: argparse.Namespace) -> Task:
    """Train every choice on a task, each set once, and score it."""
    from layerdrop.runs.store import SCORE_FOLDER
    from layerdrop.search.full_run import FullRun

    spec, options = read_flags(task, args, ["--seed", str(args.seeds[0])])
    full_run = FullRun(spec, replace(options, score_store=f"{args.store}/{SCORE_FOLDER}"))
    with open_candidates(full_run, args.store, args.seeds, args.workers) as candidates:
        results = choices(task, full_run, candidates, args)
        chosen_sets = [frozenset(c.dropped) for c in results.choices if c.dropped is not None]
        sets = list(dict.fromkeys([*chosen_sets, *candidates.trained()]))
        candidates.total = len(candidates.records) + len(sets) * len(args.seeds)
        scores = dict(zip(sets, candidates(sets), strict=True))
    for choice in results.choices:
        if choice.dropped is not None:
            choice.scores = tuple(100 * score for score in scores[frozenset(choice.dropped)])
    results.trained = {ids: 100 * statistics.median(of_seeds) for ids, of_seeds in scores.items()}
    return results


@contextmanager
def open_candidates(full_run, store: str, seeds: list[int], workers: int | None) -> Iterator:
    """Yield Candidates that train on local workers and show progress. Set its `total` before use. full_run: the run of
    the full model."""
    from layerdrop.cli.command import recipe
    from layerdrop.runs.store import Store
    from layerdrop.search.candidates import Candidates
    from layerdrop.sweeps.engines.local import LocalEngine
    from layerdrop.sweeps.engines.slots import slots
    from layerdrop.sweeps.progress import Display

    engine, display = LocalEngine(recipe().run, slots(workers)), Display()
    try:
        yield Candidates(
            full_run.record, full_run.options, Store(store), engine, seeds=seeds, total=0, on_progress=display.update
        )
    finally:
        display.close()
        engine.close()


def read_flags(task: str, args: argparse.Namespace, words: list[str]) -> tuple:
    """(RunSpec, Options) of a run on a task."""
    from layerdrop.cli.parsing import parse

    quiet = ["--save_model", "no", "--eval_strategy", "no", "--save_strategy", "no"]
    return parse([args.recipe, "--task_name", task, *quiet, *args.flags, *words]).to_spec()


# ---- tables and pictures ---------------------------------------------------------------------------------------------
def table(task: Task, all_k: list[int]) -> Iterator[str]:
    """A Markdown row for each name: score and regret at each K, dropped layers at the largest K, cost of the choice."""
    yield f"| {task.name} | " + " | ".join(f"K = {k}" for k in all_k) + f" | dropped at K = {all_k[-1]} | cost |"
    yield "|---" * (len(all_k) + 3) + "|"
    for name in task.names():
        sets = [c.dropped for c in task.of(name, all_k[-1])]
        ids = " ".join(map(str, sets[0] or [])) if len(sets) == 1 else f"{len(sets)} sets" * bool(sets)
        cost = ""
        if name in task.cost and "greedy" in task.cost:
            cost = f"{task.cost[name]['steps'] / task.cost['greedy']['steps']:.2f} of greedy"
        yield f"| {name} | " + " | ".join([*(_cell(task, name, k) for k in all_k), ids, cost]) + " |"


def _cell(task: Task, name: str, k: int) -> str:
    """Text of a cell: score, range over seeds (for one set), regret."""
    mean, choices = task.mean(name, k), task.of(name, k)
    if mean is None:
        return ""
    scores = choices[0].scores
    between = f" [{min(scores):.1f}, {max(scores):.1f}]" if len(choices) == 1 and len(scores) > 1 else ""
    return f"{mean:.1f}{between} ({task.regret(name, k):.1f})"


def ranking(task: Task, all_k: list[int]) -> Iterator[str]:
    """A Markdown row for each K with all sets trained: statistics of the sets, and each choice with its rank."""
    names = [name for name in task.names() if name not in CONTROLS]
    complete = [k for k in all_k if sum(len(ids) == k for ids in task.trained) == math.comb(task.n_layers, k)]
    if complete:
        yield f"| {task.name} | sets | best set | mean | worst | " + " | ".join(names) + " |"
        yield "|---" * (len(names) + 5) + "|"
    for k in complete:
        scores = sorted((score for ids, score in task.trained.items() if len(ids) == k), key=rank_key, reverse=True)
        best = f"{scores[0]:.1f} ({' '.join(map(str, sorted(task.best_set(k))))})"
        cells = [str(len(scores)), best, f"{statistics.fmean(scores):.1f}", f"{scores[-1]:.1f}"]
        means = [task.mean(name, k) for name in names]
        cells += ["" if m is None else f"{m:.1f} ({1 + sum(score > m for score in scores)})" for m in means]
        yield f"| K = {k} | " + " | ".join(cells) + " |"


def spread(tasks: list[Task], k: int) -> tuple[float, float]:
    """First and last decile of the regret of all sets, or of random sets if not all are trained; means over tasks."""
    deciles = []
    for task in tasks:
        regrets = [task.best(k) - c.score for c in task.of(EVERY, k) or task.of(RANDOM, k)]
        deciles.append(statistics.quantiles(regrets, n=10) if len(regrets) > 1 else regrets * 9)
    return statistics.fmean(d[0] for d in deciles), statistics.fmean(d[-1] for d in deciles)


def trainings(tasks: list[Task], name: str) -> float:
    """Trainings that a choice needs, including the fine-tuned model that criteria score; mean over tasks."""
    if name in tasks[0].cost:
        return statistics.fmean(task.cost[name]["trainings"] for task in tasks)
    return float(name not in CONTROLS and looks_at_tuned(name))


def over_tasks(values: Iterable[float | None]) -> float | None:
    """The mean; None if a task has no value."""
    values = list(values)
    return None if None in values else statistics.fmean(values)


def draw(tasks: list[Task], all_k: list[int], folder: str) -> None:
    """Draw search_regret.png (mean regret over tasks, shaded: the middle four fifths of random sets), search_cost.png
    (mean score over tasks against the cost of the choice) and search_layers.png (dropped layers at the largest K)."""
    from layerdrop.report.figures import STYLE, plt

    for picture in (regret_picture, cost_picture, layers_picture):
        with plt.style.context(STYLE):
            figure = picture(tasks, all_k, tasks[0].names())
            name = f"search_{picture.__name__.removesuffix('_picture')}.png"
            figure.savefig(Path(folder) / name, dpi=200, bbox_inches="tight")
            plt.close(figure)


def regret_picture(tasks: list[Task], all_k: list[int], names: list[str]):
    """A panel for each K, a row for each name, best first."""
    from layerdrop.report.figures import COLORS, GREY, plt

    regret = {name: [over_tasks(t.regret(name, k) for t in tasks) for k in all_k] for name in names}
    ranked = sorted(names, key=lambda name: statistics.fmean(r for r in regret[name] if r is not None))
    size = (1.6 + 1.6 * len(all_k), 0.7 + 0.17 * len(ranked))
    figure, grid = plt.subplots(1, len(all_k), figsize=size, sharey=True, squeeze=False)
    for place, (axes, k) in enumerate(zip(grid[0], all_k, strict=True)):
        if any(tasks[0].of(name, k) for name in CONTROLS):
            axes.axvspan(*spread(tasks, k), color="#DDDDDD", lw=0)
        for i, name in enumerate(ranked):
            if regret[name][place] is not None:
                axes.plot(regret[name][place], i, "o", ms=3.5, color=GREY if name in CONTROLS else COLORS[0])
        axes.set_xlim(left=-0.04 * axes.get_xlim()[1])
        axes.set_title(f"K = {k}", fontsize=7)
        axes.set_xlabel("regret, points")
        axes.grid(axis="y", lw=0.3)
    counts = {name: round(trainings(tasks, name)) for name in ranked}
    words = {name: f" ({n or 'no'} training{'s' * (n > 1)})" for name, n in counts.items() if name not in CONTROLS}
    grid[0][0].set_yticks(range(len(ranked)), [name + words.get(name, "") for name in ranked])
    grid[0][0].invert_yaxis()
    return figure


def cost_picture(tasks: list[Task], all_k: list[int], names: list[str]):
    """A panel for each K, a dot for each name. The best trained set is a dashed line."""
    from layerdrop.report.figures import GREY, plt, style_of
    from layerdrop.report.marks import marks_of
    from layerdrop.report.table_row import TableRow

    costs = {name: trainings(tasks, name) for name in names if name != EVERY}
    marks = marks_of(map(TableRow, costs))
    ticks = sorted({round(cost) for cost in costs.values()})
    size = (0.6 + 1.5 * len(all_k), 1.9)
    figure, grid = plt.subplots(1, len(all_k), figsize=size, sharey=True, squeeze=False)
    for axes, k in zip(grid[0], all_k, strict=True):
        axes.axhline(statistics.fmean(t.best(k) for t in tasks), color=GREY, lw=0.8, ls="--", label="best set trained")
        for name, cost in costs.items():
            score = over_tasks(t.mean(name, k) for t in tasks)
            if score is not None:
                axes.plot(cost, score, **style_of(marks[name]), ls="", ms=4, label=name)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(ticks, ticks)
        axes.minorticks_off()
        axes.set_xlim(-0.3, 1.5 * max(1, *ticks))
        axes.set_title(f"K = {k}", fontsize=7)
        axes.set_xlabel("trainings for the choice")
    grid[0][0].set_ylabel(f"mean over {len(tasks)} tasks, points" if len(tasks) > 1 else f"{tasks[0].name}, points")
    handles = {label: h for axes in grid[0] for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside right center")
    return figure


def layers_picture(tasks: list[Task], all_k: list[int], names: list[str]):
    """A panel for each task, a row for each name and for the best trained set. Dark layers are dropped."""
    from layerdrop.report.figures import GREY, plt

    k, rows = all_k[-1], [*(name for name in names if name not in CONTROLS), "best set trained"]
    size = (1 + 1.9 * len(tasks), 0.6 + 0.16 * len(rows))
    figure, grid = plt.subplots(1, len(tasks), figsize=size, squeeze=False)
    for axes, task in zip(grid[0], tasks, strict=True):
        sets = {c.name: c.dropped or [] for c in task.choices if c.k == k} | {rows[-1]: task.best_set(k)}
        for i, name in enumerate(rows):
            colors = [GREY if layer in sets.get(name, []) else "#DDDDDD" for layer in range(task.n_layers)]
            axes.scatter(range(task.n_layers), [i] * task.n_layers, c=colors, marker="s", s=25)
        axes.set_yticks(range(len(rows)), rows if axes is grid[0][0] else [])
        axes.set_xticks(range(task.n_layers))
        axes.tick_params(labelsize=5)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_title(f"{task.name}: dropped at K = {k} (dark)", fontsize=6)
    return figure


def main() -> None:
    """Search, train, print and draw."""
    from layerdrop.errors import UserError
    from layerdrop.search.candidates import Stopped
    from layerdrop.system.files import make_folder

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe", help="YAML file of flags of run_glue.py")
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--k", nargs="+", type=int, default=[2, 4, 6])
    parser.add_argument("--methods", nargs="*", default=["greedy", "shortlist"])
    parser.add_argument("--strategies", nargs="*", default=["top", "symmetric", "contribution"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="seeds of the runs on the whole training set")
    parser.add_argument("--random", type=int, default=8, help="number of random sets")
    parser.add_argument("--all_sets", type=int, default=0, help="train every set of up to this number of layers")
    parser.add_argument("--store", default="runs/benchmark_search")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--draw", help="folder for the figures")
    args, args.flags = parser.parse_known_args()
    args.workers_words = ["--workers", str(args.workers)] if args.workers else []
    tasks = []
    try:
        if args.draw:
            make_folder("--draw", args.draw)
        where = "held-out rows" if read_flags(args.tasks[0], args, [])[0].data.hold_out else "the validation set"
        print(f"Points on {where}: median over seeds, mean over sets (regret to the best trained set).")
        for name in args.tasks:
            tasks.append(measured(name, args))
            print("", *table(tasks[-1], args.k), "", *ranking(tasks[-1], args.k), sep="\n", flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, Stopped):
        sys.exit("stopped. Repeat the command to resume.")
    if args.draw:
        draw(tasks, args.k, args.draw)


if __name__ == "__main__":
    main()
