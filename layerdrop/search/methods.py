"""Which sets of layers a search tries, and which of them is best: pure functions of scores.

A set holds the ids of the layers that are dropped. Sources: greedy: Peer et al. (2022), "Greedy-layer pruning";
optimal: the same, every set of each size. shortlist: ours.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import comb
from typing import Protocol

from layerdrop.data.metrics import rank_key

Ids = frozenset[int]
"""Layers that are dropped together."""
Evaluate = Callable[[Sequence[Ids]], Sequence[Sequence[float]]]
"""Scores a whole level of sets at once: one number per seed for each set. Higher is better, NaN is a failure."""


PROPOSED_BY = ("logit-kl", "block-influence", "fisher", "top")
"""Strategies whose layers a shortlist tries; earlier ones win ties. One of each kind: outputs, states, gradients,
position."""


class Proposing(Protocol):
    """An Evaluate that also proposes sets."""

    def __call__(self, sets: Sequence[Ids]) -> Sequence[Sequence[float]]:
        """See Evaluate."""

    def propose(self, k: int) -> Mapping[str, Sequence[int]]:
        """Name of a strategy -> the k layers that it drops, first to go first."""


@dataclass(frozen=True)
class Proposal:
    """A set that strategies propose."""

    order: tuple[int, ...]
    """First to go first."""
    by: tuple[str, ...]
    """The strategies that propose it; `order` is the first one's."""


@dataclass(frozen=True)
class Level:
    """Sets of one size, all of which were tried."""

    scores: Mapping[Ids, tuple[float, ...]]
    """Set -> one score a seed."""
    digits: int | None = None
    """Decimals to which means are rounded before they are compared; None: no rounding."""
    proposed: Mapping[Ids, Proposal] = field(default_factory=dict)
    """How each set was proposed; empty for other methods."""

    def mean(self, ids: Ids) -> float:
        """Over seeds; NaN if one is."""
        mean = statistics.fmean(self.scores[ids])
        return mean if self.digits is None else round(mean, self.digits)

    @property
    def ranked(self) -> list[Ids]:
        """Best first. A NaN ranks below every number; of equals the one that was proposed first comes first, else the
        one with the higher ids."""
        places = {ids: -place for place, ids in enumerate(self.proposed)}
        return sorted(
            self.scores, key=lambda ids: (rank_key(self.mean(ids)), places.get(ids, 0), sorted(ids)), reverse=True
        )

    @property
    def best(self) -> Ids:
        """The set that is chosen."""
        return self.ranked[0]

    @property
    def ties(self) -> list[Ids]:
        """The other sets with the best mean."""
        return [ids for ids in self.ranked[1:] if self.mean(ids) == self.mean(self.best)]

    @property
    def margin(self) -> float | None:
        """The best mean minus the next; None without a second number."""
        if len(self.scores) < 2 or math.isnan(self.mean(self.ranked[1])):
            return None
        return self.mean(self.best) - self.mean(self.ranked[1])

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, pooled over sets; None with one seed."""
        variances = [statistics.variance(s) for s in self.scores.values() if len(s) > 1 and not any(map(math.isnan, s))]
        return math.sqrt(statistics.fmean(variances)) if variances else None


def greedy(layers: Sequence[int], max_k: int, evaluate: Evaluate, digits: int | None = None) -> Iterator[Level]:
    """One layer more at each level: every layer that is left is tried beside those that are gone.

    layers: ids of those that may go. The best sets of all levels form an order of dropping.
    """
    gone: Ids = frozenset()
    for _ in range(max_k):
        level = _tried([gone | {i} for i in layers if i not in gone], evaluate, digits)
        yield level
        gone = level.best


def optimal(layers: Sequence[int], max_k: int, evaluate: Evaluate, digits: int | None = None) -> Iterator[Level]:
    """Every set of each size. The best set of k need not contain the best set of k - 1."""
    for k in range(1, max_k + 1):
        yield _tried([frozenset(ids) for ids in combinations(layers, k)], evaluate, digits)


def shortlist(layers: Sequence[int], max_k: int, evaluate: Proposing, digits: int | None = None) -> Iterator[Level]:
    """The sets of max_k layers that strategies propose: one level. The best one's order holds for every smaller K."""
    proposed: dict[Ids, Proposal] = {}
    for name, order in evaluate.propose(max_k).items():
        there = proposed.setdefault(frozenset(order), Proposal(tuple(order), ()))
        proposed[frozenset(order)] = replace(there, by=(*there.by, name))
    yield replace(_tried(list(proposed), evaluate, digits), proposed=proposed)


def _tried(sets: list[Ids], evaluate: Evaluate, digits: int | None) -> Level:
    return Level({ids: tuple(scores) for ids, scores in zip(sets, evaluate(sets), strict=True)}, digits)


def order_of(sets: Sequence[Ids]) -> tuple[int, ...] | None:
    """The order of dropping that best sets of 1, 2, 3 ... layers form; None if one does not contain the one before."""
    order: list[int] = []
    for ids in sets:
        new = ids - set(order)
        if len(new) != 1:
            return None
        order += new
    return tuple(order)


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    summary: str
    search: Callable[..., Iterator[Level]]
    """(layers, max_k, evaluate, digits) -> levels."""
    trainings: Callable[[int, int], int]
    """(number of layers that may go, max_k) -> number of trainings for each seed."""
    proposes: bool = False
    """Whether its Evaluate is a Proposing."""


METHODS = {
    row.name: row
    for row in (
        Method(
            "greedy",
            "one layer more at each step, the one whose loss costs least (Peer et al. 2022)",
            greedy,
            lambda n, max_k: sum(n - gone for gone in range(max_k)),
        ),
        Method(
            "optimal",
            "every set of each size",
            optimal,
            lambda n, max_k: sum(comb(n, k) for k in range(1, max_k + 1)),
        ),
        Method(
            "shortlist",
            "the layers that four strategies propose, the fine-tuned model's scores among them; each set is trained",
            shortlist,
            lambda n, max_k: 1 + len(PROPOSED_BY),
            proposes=True,
        ),
    )
}
