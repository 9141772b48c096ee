"""A search: its method's levels, scored by trainings, as a record."""

from collections.abc import Callable, Sequence
from typing import Any

from layerdrop.search.candidates import Candidates
from layerdrop.search.methods import METHODS, Level
from layerdrop.search.record import SearchRecord
from layerdrop.search.shortlist import Choose, Shortlist

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
