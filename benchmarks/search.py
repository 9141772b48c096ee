#!/usr/bin/env python
"""Quality and cost of searches: the regret of their layers on the development set.

    python benchmarks/search.py configs/demo.yaml --tasks demo-rte demo-mrpc --k 2 4 6 [--seeds 1 2 3] [--all_sets 2]

FILE.yaml holds flags of run_glue.py. For each task every search of --methods chooses layers on a held-out part of the
training set. Then each choice, those of the strategies, and some random sets are trained on the whole training set and
scored on the development set. Regret: points below the best set of its size in --store, whoever trained it; --all_sets
K trains every set of up to K layers, and ranks the choices among them. A strategy NAME@tuned scores the full model that
is fine-tuned on the task first, on the training set; criteria that need a head always do. With --hold_out 0.15 runs and
scores are those that searches choose by. Runs lie in --store; the same command goes on. --draw FOLDER: three pictures.
"""

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

RANDOM, EVERY = "random", "every set"


@dataclass
class Choice:
    """A set of layers that a search or a strategy drops."""

    name: str
    k: int
    dropped: list[int] | None
    """None where the strategy cannot drop so many."""
    scores: tuple[float, ...] = ()
    """Points on the development set, one per seed."""

    @property
    def score(self) -> float | None:
        """The median over seeds."""
        return statistics.median(self.scores) if self.scores else None


@dataclass
class Task:
    """The results on a task."""

    name: str
    n_layers: int
    choices: list[Choice]
    cost: dict[str, dict[str, float]]
    """Search -> trainings, steps, seconds."""
    trained: dict[Ids, float] = field(default_factory=dict)
    """Set -> its median score over seeds, for every set in the store."""

    def mean(self, name: str, k: int) -> float | None:
        """Over the sets of that name."""
        scores = [c.score for c in self.choices if (c.name, c.k) == (name, k) and c.score is not None]
        return statistics.fmean(scores) if scores else None

    def best(self, k: int) -> float:
        """The best score of all sets of k layers that were trained."""
        return self.trained[self.best_set(k)]

    def best_set(self, k: int) -> Ids:
        """The set of k layers with the best score; of equals the one with the higher ids."""
        of_size = (ids for ids in self.trained if len(ids) == k)
        return max(of_size, key=lambda ids: (rank_key(self.trained[ids]), sorted(ids)))

    def regret(self, name: str, k: int) -> float | None:
        """Points below the best."""
        mean = self.mean(name, k)
        return None if mean is None else self.best(k) - mean

    def names(self) -> list[str]:
        """Searches, strategies, controls."""
        return list(dict.fromkeys(c.name for c in self.choices))


# ---- choices ---------------------------------------------------------------------------------------------------------
def choices(task: str, full_run, trials, args: argparse.Namespace) -> Task:
    """All choices to train; missing searches are done first. full_run: the run in full depth, its inputs read. trials:
    does the trainings."""
    n_layers = full_run.checkpoint.n_layers
    found = Task(task, n_layers, [], {})
    for method in args.methods:
        record = searched(method, task, args)
        found.cost[method] = record.cost
        found.choices += [Choice(method, k, record.sets[k - 1]) for k in args.k]
    for k in sorted(args.k, reverse=True):  # the scores for a K serve the smaller ones
        found.choices += [Choice(name, k, chosen(name, k, full_run, trials, args)) for name in args.strategies]
    generator = random.Random(41)
    for k in args.k:
        found.choices += [Choice(RANDOM, k, sorted(generator.sample(range(n_layers), k))) for _ in range(args.random)]
        if k <= args.all_sets:
            found.choices += [Choice(EVERY, k, list(ids)) for ids in combinations(range(n_layers), k)]
    return found


def chosen(strategy: str, k: int, full_run, trials, args: argparse.Namespace) -> list[int] | None:
    """The layers that a strategy drops; None where it cannot drop so many."""
    from layerdrop.errors import UserError

    words = ["--drop_strategy", strategy.partition("@")[0], "--drop_k", str(k)]
    if looks_at_tuned(strategy):
        words += ["--score_on", trials.model(full_run.spec)]
    try:
        return sorted(full_run.choose(read_flags(full_run.spec.data.task, args, words)[0].drop).dropped)
    except UserError as error:
        print(f"{strategy}, K = {k}: {error}", file=sys.stderr)
        return None


def looks_at_tuned(strategy: str) -> bool:
    """Whether it scores the full model, fine-tuned on the task with the first seed."""
    from layerdrop.criteria.table import SCORERS

    return strategy.endswith("@tuned") or (strategy in SCORERS and SCORERS[strategy].needs_head)


def searched(method: str, task: str, args: argparse.Namespace):
    """The record of a search, whose trainings are done where they are missing."""
    from layerdrop.cli.command import command_parser
    from layerdrop.cli.search import search_layers

    words = [args.recipe, "--method", method, "--max_k", str(max(args.k)), "--task_name", task, "--store", args.store]
    return search_layers(command_parser("search"), [*words, *args.workers_words, *args.flags])[0]


# ---- runs ------------------------------------------------------------------------------------------------------------
def measured(task: str, args: argparse.Namespace) -> Task:
    """Every choice on a task with its score; the runs that are missing are done first, each set once."""
    from layerdrop.runs.store import SCORE_FOLDER
    from layerdrop.search.full_run import FullRun

    spec, options = read_flags(task, args, ["--seed", str(args.seeds[0])])
    full_run = FullRun(spec, replace(options, score_store=f"{args.store}/{SCORE_FOLDER}"))
    with open_trials(full_run, args.store, args.seeds, args.workers) as trials:
        found = choices(task, full_run, trials, args)
        chosen_sets = [frozenset(c.dropped) for c in found.choices if c.dropped is not None]
        sets = list(dict.fromkeys([*chosen_sets, *trials.trained()]))
        trials.total = len(trials.records) + len(sets) * len(args.seeds)
        scores = dict(zip(sets, trials(sets), strict=True))
    for choice in found.choices:
        if choice.dropped is not None:
            choice.scores = tuple(100 * score for score in scores[frozenset(choice.dropped)])
    found.trained = {ids: 100 * statistics.median(of_seeds) for ids, of_seeds in scores.items()}
    return found


@contextmanager
def open_trials(full_run, store: str, seeds: list[int], workers: int | None) -> Iterator:
    """Trainings on local workers, shown on the terminal: yields Candidates, whose `total` the caller sets. full_run:
    the run in full depth, its inputs read."""
    from layerdrop.runs.store import Store
    from layerdrop.search.candidates import Candidates
    from layerdrop.sweeps.engines.local import LocalEngine
    from layerdrop.sweeps.engines.slots import slots
    from layerdrop.sweeps.progress import Display
    from run_glue import run

    engine, display = LocalEngine(run, slots(workers)), Display()
    try:
        yield Candidates(
            full_run.record, full_run.options, Store(store), engine, seeds=seeds, total=0, tell=display.update
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
    """A line of Markdown for each name: score and regret at each K, the layers of the largest, cost of the choice."""
    yield f"| {task.name} | " + " | ".join(f"K = {k}" for k in all_k) + f" | dropped at K = {all_k[-1]} | cost |"
    yield "|---" * (len(all_k) + 3) + "|"
    for name in task.names():
        cells = [_cell(task, name, k) for k in all_k]
        sets = [c.dropped for c in task.choices if (c.name, c.k) == (name, all_k[-1])]
        ids = " ".join(map(str, sets[0] or [])) if len(sets) == 1 else f"{len(sets)} sets" * bool(sets)
        cost = task.cost.get(name)
        spent = (
            f"{cost['steps'] / task.cost['greedy']['steps']:.2f} of greedy" if cost and "greedy" in task.cost else ""
        )
        yield f"| {name} | " + " | ".join([*cells, ids, spent]) + " |"


def ranking(task: Task, all_k: list[int]) -> Iterator[str]:
    """A line of Markdown for each K of which every set is trained: these sets, and each choice with its rank."""
    names = [name for name in task.names() if name not in (RANDOM, EVERY)]
    complete = [k for k in all_k if sum(len(ids) == k for ids in task.trained) == math.comb(task.n_layers, k)]
    if complete:
        yield f"| {task.name} | sets | best set | mean | worst | " + " | ".join(names) + " |"
        yield "|---" * (len(names) + 5) + "|"
    for k in complete:
        scores = sorted((score for ids, score in task.trained.items() if len(ids) == k), key=rank_key, reverse=True)
        best = f"{scores[0]:.1f} ({' '.join(map(str, sorted(task.best_set(k))))})"
        cells = [str(len(scores)), best, f"{statistics.fmean(scores):.1f}", f"{scores[-1]:.1f}"]
        for name in names:
            score = task.mean(name, k)
            cells.append("" if score is None else f"{score:.1f} ({1 + sum(other > score for other in scores)})")
        yield f"| K = {k} | " + " | ".join(cells) + " |"


def _cell(task: Task, name: str, k: int) -> str:
    """Score, of one set and several seeds the lowest and highest, regret."""
    if task.mean(name, k) is None:
        return ""
    seeds = [c.scores for c in task.choices if (c.name, c.k) == (name, k)]
    between = f" [{min(seeds[0]):.1f}, {max(seeds[0]):.1f}]" if len(seeds) == 1 and len(seeds[0]) > 1 else ""
    return f"{task.mean(name, k):.1f}{between} ({task.regret(name, k):.1f})"


def spread(tasks: list[Task], k: int) -> tuple[float, float]:
    """The regrets that nine and one in ten random sets exceed, of all sets where they are trained; means over tasks."""
    tenths = []
    for task in tasks:
        name = EVERY if (EVERY, k) in {(c.name, c.k) for c in task.choices} else RANDOM
        regrets = [task.best(k) - c.score for c in task.choices if (c.name, c.k) == (name, k)]
        tenths.append(statistics.quantiles(regrets, n=10) if len(regrets) > 1 else regrets * 9)
    return statistics.fmean(t[0] for t in tenths), statistics.fmean(t[-1] for t in tenths)


def trainings(tasks: list[Task], name: str) -> float:
    """The cost of the choice, in trainings, including the fine-tuned model that criteria score. A mean over tasks."""
    if name in tasks[0].cost:
        return statistics.fmean(task.cost[name]["trainings"] for task in tasks)
    return float(name not in (RANDOM, EVERY) and looks_at_tuned(name))


def draw(tasks: list[Task], all_k: list[int], folder: str) -> None:
    """search_regret.png: mean regret over tasks; the shaded part is that of the middle four fifths of random sets.
    search_cost.png: mean score over tasks against the cost of the choice. search_layers.png: which layers go at the
    largest K."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from layerdrop.report.figures import STYLE

    names = tasks[0].names()
    pictures = {
        "regret": lambda: regret_picture(tasks, all_k, names),
        "cost": lambda: cost_picture(tasks, all_k, [name for name in names if name != EVERY]),
        "layers": lambda: layer_picture(tasks, all_k[-1], [name for name in names if name not in (RANDOM, EVERY)]),
    }
    for name, picture in pictures.items():
        with plt.style.context(STYLE):
            figure = picture()
            figure.savefig(Path(folder) / f"search_{name}.png", dpi=200, bbox_inches="tight")
            plt.close(figure)


def regret_picture(tasks: list[Task], all_k: list[int], names: list[str]):
    """A panel for each K, a row for each name, best first."""
    import matplotlib.pyplot as plt

    from layerdrop.report.marks import COLOURS, GREY

    regret = {name: [over_tasks(t.regret(name, k) for t in tasks) for k in all_k] for name in names}
    ranked = sorted(names, key=lambda name: statistics.fmean(r for r in regret[name] if r is not None))
    size = (1.6 + 1.6 * len(all_k), 0.7 + 0.17 * len(ranked))
    figure, grid = plt.subplots(1, len(all_k), figsize=size, sharey=True, squeeze=False)
    for place, (axes, k) in enumerate(zip(grid[0], all_k, strict=True)):
        if any(c.name in (RANDOM, EVERY) and c.k == k for c in tasks[0].choices):
            axes.axvspan(*spread(tasks, k), color="#DDDDDD", lw=0)
        for i, name in enumerate(ranked):
            if regret[name][place] is not None:
                axes.plot(regret[name][place], i, "o", ms=3.5, color=GREY if name in (RANDOM, EVERY) else COLOURS[0])
        axes.set_xlim(left=-0.04 * axes.get_xlim()[1])
        axes.set_title(f"K = {k}", fontsize=7)
        axes.set_xlabel("regret, points")
        axes.grid(axis="y", lw=0.3)
    grid[0][0].set_yticks(range(len(ranked)), [f"{name}{cost_words(tasks, name)}" for name in ranked])
    grid[0][0].invert_yaxis()
    figure.tight_layout()
    return figure


def cost_words(tasks: list[Task], name: str) -> str:
    """The cost of the choice; empty for controls."""
    if name in (RANDOM, EVERY):
        return ""
    n = round(trainings(tasks, name))
    return f" ({n} training{'s' * (n != 1)})" if n else " (no training)"


def cost_picture(tasks: list[Task], all_k: list[int], names: list[str]):
    """A panel for each K, a dot for each name; the best set that was trained is a dashed line."""
    import matplotlib.pyplot as plt

    from layerdrop.report.marks import GREY, PLAIN, style_of

    size = (0.6 + 1.5 * len(all_k), 1.9)
    figure, grid = plt.subplots(1, len(all_k), figsize=size, sharey=True, squeeze=False)
    costs = {name: trainings(tasks, name) for name in names}
    for axes, k in zip(grid[0], all_k, strict=True):
        axes.axhline(statistics.fmean(t.best(k) for t in tasks), color=GREY, lw=0.8, ls="--", label="best set trained")
        for i, name in enumerate(names):
            score = over_tasks(t.mean(name, k) for t in tasks)
            if score is not None:
                axes.plot(costs[name], score, **style_of(PLAIN.get(name, len(PLAIN) + i)), ls="", ms=4, label=name)
        axes.set_xscale("symlog", linthresh=1)
        ticks = sorted({round(cost) for cost in costs.values()})
        axes.set_xticks(ticks, ticks)
        axes.minorticks_off()
        axes.set_xlim(-0.3, 1.5 * max(1, *ticks))
        axes.set_title(f"K = {k}", fontsize=7)
        axes.set_xlabel("trainings for the choice")
    of = f"mean over {len(tasks)} tasks" if len(tasks) > 1 else tasks[0].name
    grid[0][0].set_ylabel(f"{of}, points")
    marks = {label: mark for axes in grid[0] for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(marks.values(), marks, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    return figure


def layer_picture(tasks: list[Task], k: int, names: list[str]):
    """A panel for each task, a row for each name and for the best set that was trained; dark layers go."""
    import matplotlib.pyplot as plt

    rows = [*names, "best set trained"]
    size = (1 + 1.9 * len(tasks), 0.6 + 0.16 * len(rows))
    figure, grid = plt.subplots(1, len(tasks), figsize=size, squeeze=False)
    for axes, task in zip(grid[0], tasks, strict=True):
        sets = {c.name: c.dropped or [] for c in task.choices if c.k == k}
        sets[rows[-1]] = sorted(task.best_set(k))
        for i, name in enumerate(rows):
            gone = sets.get(name, [])
            kept = [j for j in range(task.n_layers) if j not in gone]
            axes.plot(gone, [i] * len(gone), "s", color="#333333", ms=5)
            axes.plot(kept, [i] * len(kept), "s", color="#DDDDDD", ms=5)
        axes.set_yticks(range(len(rows)), rows if axes is grid[0][0] else [])
        axes.set_xticks(range(task.n_layers))
        axes.tick_params(labelsize=5)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_title(f"{task.name}: dropped at K = {k} (dark)", fontsize=6)
    figure.tight_layout()
    return figure


def over_tasks(values: Iterable[float | None]) -> float | None:
    """The mean; None where a task has no value."""
    there = list(values)
    return None if None in there else statistics.fmean(there)


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
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="of the runs on the whole training set")
    parser.add_argument("--random", type=int, default=8, help="number of random sets")
    parser.add_argument("--all_sets", type=int, default=0, help="up to this K train every set")
    parser.add_argument("--store", default="runs/benchmark_search")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--draw", help="folder of the pictures")
    args, args.flags = parser.parse_known_args()
    args.workers_words = ["--workers", str(args.workers)] if args.workers else []
    tasks = []
    try:
        if args.draw:
            make_folder("--draw", args.draw)
        where = "held-out rows" if read_flags(args.tasks[0], args, [])[0].data.hold_out else "the development set"
        print(f"Points on {where}: median over seeds, mean over sets (regret to the best set that was trained).")
        for name in args.tasks:
            tasks.append(measured(name, args))
            print("", *table(tasks[-1], args.k), "", *ranking(tasks[-1], args.k), sep="\n", flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, Stopped):
        sys.exit("stopped. The same command goes on.")
    if args.draw:
        draw(tasks, args.k, args.draw)


if __name__ == "__main__":
    main()
