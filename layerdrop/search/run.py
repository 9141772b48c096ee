"""Run a search: train the candidates of each level, and return the record."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from layerdrop.criteria.selection import Selection
from layerdrop.criteria.spec import DropSpec
from layerdrop.criteria.table import CRITERIA
from layerdrop.search.candidates import Candidates
from layerdrop.search.methods import METHODS, PROPOSED_BY, Level, shortlist
from layerdrop.search.record import SearchRecord

HOLD_OUT = 0.15
"""Fraction of the training set on which candidates are compared (Peer et al. 2022)."""
SCORE_ROWS = 1000
"""Number of training rows, from the first, on which criteria score layers for proposals."""
Select = Callable[[DropSpec], Selection]
"""Select the layers that a strategy drops from the searched model."""


def search(
    method: str,
    layers: Sequence[int],
    max_k: int,
    candidates: Candidates,
    select: Select,
    *,
    digits: int | None = None,
    on_level: Callable[[Level], Any] = lambda level: None,
) -> SearchRecord:
    """Search with a method of METHODS.

    layers: ids of the layers that can be dropped. select: scores with the rows that are not held out. digits:
    decimals to which scores are rounded before they are compared. on_level: called with each level. Raises the
    errors of Candidates.
    """
    row = METHODS[method]
    cost: dict[str, float] = {}
    record = SearchRecord(row.name, candidates.full_run.spec, candidates.seeds, digits=digits)
    levels: Iterable[Level]
    if row.search is None:
        proposed = {name: select(_proposal(name, max_k, candidates)) for name in PROPOSED_BY}
        cost["scoring_seconds"] = sum(selection.seconds for selection in proposed.values())
        levels = [shortlist({name: selection.order for name, selection in proposed.items()}, candidates, digits)]
    else:
        levels = row.search(layers, max_k, candidates, digits)
    for level in levels:
        record.levels.append(level)
        on_level(level)
    record.select_on, record.cost = candidates.metric, candidates.cost | cost
    record.constant = [len(level.best) for level in record.levels if candidates.predicts_one_value(level.best)]
    return record


def _proposal(strategy: str, k: int, candidates: Candidates) -> DropSpec:
    """The selection by a strategy. Criteria that need a head score the full model, fine-tuned with the first seed."""
    if strategy not in CRITERIA:
        return DropSpec(strategy, k)
    tuned, full = None, candidates.full_run.spec
    if CRITERIA[strategy].needs_head:
        tuned = candidates.model(full.start or replace(full, seed=candidates.seeds[0]))
    return DropSpec(strategy, k, score_on=tuned, score_split="train", score_samples=SCORE_ROWS)
