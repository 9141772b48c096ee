"""Search methods: propose the sets of layers to try, and select the best set. Pure functions of scores.

A set holds the ids of dropped layers. Source of greedy and optimal: Peer et al. (2022), "Greedy-layer pruning".
shortlist: ours.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import comb

from layerdrop.data.metrics import rank_key

Ids = frozenset[int]
"""A set of dropped layers."""
Evaluate = Callable[[Sequence[Ids]], Sequence[Sequence[float]]]
"""Score a level of sets: one number per seed for each set. Higher is better. NaN marks a failure."""
PROPOSED_BY = ("logit-kl", "block-influence", "fisher", "top")
"""Strategies that propose the sets of a shortlist: by outputs, states, gradients, position. The first wins a tie."""


@dataclass(frozen=True)
class Proposal:
    """A set that strategies propose."""

    order: tuple[int, ...]
    """The ids in the order of dropping of the first strategy."""
    by: tuple[str, ...]
    """The strategies that propose the set."""


@dataclass(frozen=True)
class Level:
    """Scores of sets of one size."""

    scores: Mapping[Ids, tuple[float, ...]]
    """Set -> one score per seed."""
    digits: int | None = None
    """Means are rounded to this number of decimals and then compared; None: no rounding."""
    proposed: Mapping[Ids, Proposal] = field(default_factory=dict)
    """The proposal of each set; empty for other methods."""

    def mean(self, ids: Ids) -> float:
        """Mean over seeds. NaN if the score of a seed is NaN."""
        mean = statistics.fmean(self.scores[ids])
        return mean if self.digits is None else round(mean, self.digits)

    @property
    def ranked(self) -> list[Ids]:
        """The sets, best first, NaN last. Ties: the earlier proposal first. Without proposals: the higher ids first."""
        positions = {ids: -place for place, ids in enumerate(self.proposed)}
        return sorted(
            self.scores, key=lambda ids: (rank_key(self.mean(ids)), positions.get(ids, 0), sorted(ids)), reverse=True
        )

    @property
    def best(self) -> Ids:
        """The selected set."""
        return self.ranked[0]

    @property
    def ties(self) -> list[Ids]:
        """The other sets with the best mean."""
        return [ids for ids in self.ranked[1:] if self.mean(ids) == self.mean(self.best)]

    @property
    def margin(self) -> float | None:
        """The best mean minus the second-best mean. None if the second set does not exist or has no score."""
        if len(self.scores) < 2 or math.isnan(self.mean(self.ranked[1])):
            return None
        return self.mean(self.best) - self.mean(self.ranked[1])

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, pooled over sets; None with one seed."""
        variances = [statistics.variance(s) for s in self.scores.values() if len(s) > 1 and not any(map(math.isnan, s))]
        return math.sqrt(statistics.fmean(variances)) if variances else None


def greedy(layers: Sequence[int], max_k: int, evaluate: Evaluate, digits: int | None = None) -> Iterator[Level]:
    """Greedy forward selection: each level tries every remaining layer in addition to those already dropped.

    layers: ids of the layers that can be dropped. The best sets of all levels form an order of dropping.
    """
    dropped: Ids = frozenset()
    for _ in range(max_k):
        level = _evaluate_level([dropped | {i} for i in layers if i not in dropped], evaluate, digits)
        yield level
        dropped = level.best


def optimal(layers: Sequence[int], max_k: int, evaluate: Evaluate, digits: int | None = None) -> Iterator[Level]:
    """Exhaustive search: every set of each size. The best set of k need not contain the best set of k - 1."""
    for k in range(1, max_k + 1):
        yield _evaluate_level([frozenset(ids) for ids in combinations(layers, k)], evaluate, digits)


def shortlist(proposals: Mapping[str, Sequence[int]], evaluate: Evaluate, digits: int | None = None) -> Level:
    """One level: the sets that strategies propose. The order of the best set is used for every smaller K.

    proposals: name of a strategy -> the layers that it drops, in the order of dropping.
    """
    proposed: dict[Ids, Proposal] = {}
    for name, order in proposals.items():
        first = proposed.setdefault(frozenset(order), Proposal(tuple(order), ()))
        proposed[frozenset(order)] = replace(first, by=(*first.by, name))
    return replace(_evaluate_level(list(proposed), evaluate, digits), proposed=proposed)


def _evaluate_level(sets: list[Ids], evaluate: Evaluate, digits: int | None) -> Level:
    return Level({ids: tuple(scores) for ids, scores in zip(sets, evaluate(sets), strict=True)}, digits)


def order_of(sets: Sequence[Ids]) -> tuple[int, ...] | None:
    """Convert nested best sets of 1, 2, 3 ... layers to an order of dropping. None if the sets are not nested."""
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
    trainings: Callable[[int, int], int]
    """(number of layers that can be dropped, max_k) -> number of trainings for each seed."""
    search: Callable[..., Iterator[Level]] | None = None
    """(layers, max_k, evaluate, digits) -> levels; None: strategies propose the sets."""

    @property
    def proposes(self) -> bool:
        """Whether strategies propose the sets."""
        return self.search is None


METHODS = {
    row.name: row
    for row in (
        Method(
            "greedy",
            "each level drops one more layer: the layer whose removal gives the best score (Peer et al. 2022)",
            lambda n, max_k: sum(n - dropped for dropped in range(max_k)),
            greedy,
        ),
        Method(
            "optimal", "every set of each size", lambda n, max_k: sum(comb(n, k) for k in range(1, max_k + 1)), optimal
        ),
        Method("shortlist", "the sets that four strategies propose", lambda n, max_k: 1 + len(PROPOSED_BY)),
    )
}
