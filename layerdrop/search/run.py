"""A search: its method's levels, scored by trainings, as a record."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from layerdrop.runs.inputs import quiet_options
from layerdrop.runs.record import Run, RunRecord
from layerdrop.runs.spec import Options
from layerdrop.runs.store import Store
from layerdrop.search.candidates import Candidates
from layerdrop.search.methods import METHODS, Level
from layerdrop.search.record import SearchRecord, step_words
from layerdrop.search.shortlist import Choose, Shortlist
from layerdrop.sweeps.engines.in_process import InProcessEngine
from layerdrop.sweeps.progress import Display

HOLD_OUT = 0.15
"""Share of the training set that candidates are compared on (Peer et al. 2022)."""


def search(
    method: str,
    layers: Sequence[int],
    max_k: int,
    trials: Candidates,
    choose: Choose,
    *,
    digits: int | None = None,
    tell: Callable[[Level], Any] = lambda level: None,
) -> SearchRecord:
    """Search with a method of layerdrop.search.methods.METHODS.

    layers: ids of those that may go. trials: does the trainings. choose: selects a strategy's layers. digits: decimals
    to which scores are rounded before they are compared. tell: called with each level. Raises as Candidates do.
    """
    row = METHODS[method]
    evaluate = Shortlist(trials, choose) if row.proposes else trials
    record = SearchRecord(row.name, trials.full_run.spec, trials.seeds, digits=digits)
    for level in row.search(layers, max_k, evaluate, digits):
        record.levels.append(level)
        tell(level)
    record.select_on, record.cost = trials.metric, evaluate.cost
    record.constant = [len(level.best) for level in record.levels if trials.predicts_one_value(level.best)]
    return record


def search_inside(
    method: str,
    layers: Sequence[int],
    k: int,
    full_run: RunRecord,
    choose: Choose,
    options: Options,
    store: str,
    run: Run,
) -> SearchRecord:
    """The search of a run that chooses its layers by one: in this process, with the run's seed.

    full_run: the run in full depth on the part that is not held out, with the fingerprints of its inputs. choose:
    selects a strategy's layers. options: of the candidates. store: folder of their runs. run: executes them. Raises as
    Candidates do.
    """
    seed, display = full_run.spec.seed, Display(sys.stderr)
    total = METHODS[method].trainings(len(layers), k)
    display.say(f"{method}: {total} trainings at most; records in {store}")
    try:
        trials = Candidates(
            full_run, options, Store(store), InProcessEngine(run), seeds=[seed], total=total, tell=display.update
        )
        return search(method, layers, k, trials, choose, tell=lambda level: display.say(step_words(level)))
    finally:
        display.close()


def candidate_options(options: Options) -> Options:
    """A run's options for the candidates of its search, whose models are not kept."""
    quiet = quiet_options(options)
    return replace(quiet, trainer=quiet.trainer | {"save_strategy": "no"}, save_model=False)
