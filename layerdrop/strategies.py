"""Which layers to drop: pure functions of the depth, of K and of scores, and the table of their names.

Layer ids are 0-based: 0 is next to the embeddings, n_layers - 1 next to the classifier.
Source: Sajjad et al. (2023), "On the Effect of Dropping Layers of Pre-trained Transformer Models", Section 3;
greedy: Peer et al. (2022), "Greedy-layer pruning".
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .errors import UserError, unknown

Positions = Callable[[int, int], list[int]]


def top(n_layers: int, k: int) -> list[int]:
    """The k highest ids, next to the classifier."""
    return list(range(n_layers - k, n_layers))


def bottom(n_layers: int, k: int) -> list[int]:
    """The k lowest ids, next to the embeddings."""
    return list(range(k))


def odd_alternate(n_layers: int, k: int) -> list[int]:
    """Every other layer from the top: of 12, the paper's layers 11, 9, 7 ..., which are the ids 10, 8, 6 ..."""
    return _alternate("odd-alternate", n_layers, k, parity=1)


def even_alternate(n_layers: int, k: int) -> list[int]:
    """Every other layer from the top: of 12, the paper's layers 12, 10, 8 ..., which are the ids 11, 9, 7 ..."""
    return _alternate("even-alternate", n_layers, k, parity=0)


def _alternate(name: str, n_layers: int, k: int, parity: int) -> list[int]:
    candidates = [number - 1 for number in range(n_layers, 0, -1) if number % 2 == parity]  # the paper counts from 1
    if k > len(candidates):
        raise UserError(
            f"--drop_k {k}: {name} can drop at most {len(candidates)} of {n_layers} layers. "
            f"Choose 0 to {len(candidates)}, or another --drop_strategy."
        )
    return sorted(candidates[:k])


def symmetric(n_layers: int, k: int) -> list[int]:
    """The k middle layers, so that (n_layers - k) / 2 stay at each end."""
    if k == 0:
        return []
    if (n_layers - k) % 2:
        near = [str(j) for j in (k - 1, k + 1) if j < n_layers]
        raise UserError(
            f"--drop_k {k}: symmetric keeps as many layers at each end, so {n_layers} - K must be even. "
            f"Nearest: --drop_k {' or '.join(near)}."
        )
    start = (n_layers - k) // 2
    return list(range(start, start + k))


def every_other(n_layers: int, k: int) -> list[int]:
    """k layers evenly spaced, the last one among them: of 12, ids 1, 3, 5 ... (k = 6) or 2, 5, 8, 11 (k = 4).

    Where k divides n_layers these are the depths d = 0 modulo n_layers / k of Fan et al., counted from 1.
    """
    return [(i + 1) * n_layers // k - 1 for i in range(k)]


@dataclass(frozen=True)
class Strategy:
    """One row of the table. One of `positions`, `scorer`, `at_random`, `searched` and `listed` says how layers are
    chosen."""

    name: str
    summary: str
    source: str
    positions: Positions | None = None
    """(n_layers, k) -> ids, ascending."""
    scorer: str | None = None
    """Name of a row of layerdrop.criteria.SCORERS."""
    drops: Literal["highest", "lowest"] = "highest"
    """With a scorer: which end of the scores goes first."""
    of: Literal["layer", "block", "steps"] = "layer"
    """With a scorer: the unit of a score. A layer; a block of k layers that begins there; or a layer given the layers
    dropped before it, so that layers go one by one."""
    at_random: bool = False
    """k layers drawn with the run's seed."""
    threshold: bool = False
    """With a scorer: whether all layers above a score can be dropped instead of k."""
    searched: bool = False
    """The k ids that a search found."""
    listed: bool = False
    """The ids themselves are given."""


_SAJJAD = "Sajjad et al. 2023, Section 3"
STRATEGIES = {
    row.name: row
    for row in (
        Strategy("top", "the k highest ids, next to the classifier", _SAJJAD, positions=top),
        Strategy("bottom", "the k lowest ids, next to the embeddings", _SAJJAD, positions=bottom),
        Strategy("odd-alternate", "every other layer from the top: of 12, ids 10, 8, 6 ...", _SAJJAD, odd_alternate),
        Strategy("even-alternate", "every other layer from the top: of 12, ids 11, 9, 7 ...", _SAJJAD, even_alternate),
        Strategy(
            "every-other",
            "k layers evenly spaced",
            "Fan et al. 2020: Every Other",
            positions=every_other,
        ),
        Strategy("symmetric", "the k middle layers; n_layers - k must be even", _SAJJAD, positions=symmetric),
        Strategy(
            "contribution",
            "the layers whose output is most like their input, at the sentence token",
            _SAJJAD,
            scorer="contribution",
            threshold=True,
        ),
        Strategy(
            "block-influence",
            "the layers that turn the states of all tokens least",
            "Men et al. 2024, ShortGPT",
            scorer="block-influence",
            drops="lowest",
        ),
        Strategy(
            "angular-block",
            "the block of k layers with the smallest angle between its input and its output, at the sentence token",
            "Gromov et al. 2024",
            scorer="angular-block",
            drops="lowest",
            of="block",
        ),
        Strategy(
            "relative-magnitude",
            "the layers that add least, relative to their output",
            "Samragh et al. 2023",
            scorer="relative-magnitude",
            drops="lowest",
        ),
        Strategy(
            "linearity",
            "the layers of which a linear map explains most",
            "Razzhigaev et al. 2024",
            scorer="linearity",
            drops="lowest",
        ),
        Strategy("cka", "the layers with the most aligned output and input", "Kornblith et al. 2019", scorer="cka"),
        Strategy(
            "loss-drop",
            "the layers without which the loss grows least, each alone",
            "Kim et al. 2024, Shortened LLaMA",
            scorer="loss-drop",
            drops="lowest",
        ),
        Strategy(
            "sleb",
            "the same, one after the other",
            "Song et al. 2024, SLEB",
            scorer="sleb",
            drops="lowest",
            of="steps",
        ),
        Strategy(
            "logit-kl",
            "the layers without which the outputs change least",
            "Sieberling et al. 2024, EvoPress",
            scorer="logit-kl",
            drops="lowest",
        ),
        Strategy(
            "sleb-kl",
            "the same, one after the other",
            "after Song et al. 2024 and Sieberling et al. 2024; the combination is ours",
            scorer="sleb-kl",
            drops="lowest",
            of="steps",
        ),
        Strategy(
            "taylor",
            "the layers with the smallest sum of |weight x gradient|",
            "Ma et al. 2023, LLM-Pruner",
            scorer="taylor",
            drops="lowest",
        ),
        Strategy(
            "fisher",
            "the layers with the smallest sum of squared gradients",
            "Lee et al. 2023",
            scorer="fisher",
            drops="lowest",
        ),
        Strategy("random", "k layers at random, with the run's seed: the control", "", at_random=True),
        Strategy(
            "variance",
            "the k layers with the lowest variance of their weights",
            "Sajjad et al. 2023, Section 5.1",
            scorer="variance",
            drops="lowest",
        ),
        Strategy(
            "aggregation",
            "the k layers with the lowest mean magnitude of their weights",
            "Sajjad et al. 2023, Section 5.1",
            scorer="aggregation",
            drops="lowest",
        ),
        Strategy("greedy", "the first k of a greedy search's order", "Peer et al. 2022", searched=True),
        Strategy("optimal", "the best set of k that an exhaustive search found", "Peer et al. 2022", searched=True),
        Strategy("shortlist", "the best of the sets that four strategies propose", "ours", searched=True),
        Strategy("list", "the ids of --drop_layers", "the fork's --remove_layers", listed=True),
    )
}


def get_strategy(name: str) -> Strategy:
    """The row of that name. Raises UserError with the nearest match."""
    if name not in STRATEGIES:
        raise unknown("--drop_strategy", name, STRATEGIES)
    return STRATEGIES[name]


def check_ids(flag: str, ids: Sequence[int], n_layers: int) -> list[int]:
    """`ids` in ascending order. Raises UserError on an id that is out of range or given twice."""
    wrong = sorted({i for i in ids if not 0 <= i < n_layers})
    if wrong:
        raise UserError(
            f"{flag}: no layer {', '.join(map(str, wrong))} in a model of {n_layers} layers. "
            f"Ids count from 0 (next to the embeddings) to {n_layers - 1}."
        )
    twice = sorted({i for i in ids if list(ids).count(i) > 1})
    if twice:
        raise UserError(f"{flag}: layer {', '.join(map(str, twice))} is given more than once. Give each id once.")
    return sorted(ids)


def check_k(k: int, n_layers: int, flag: str = "--drop_k") -> int:
    """`k` if 0 <= k < n_layers; else UserError."""
    if not 0 <= k < n_layers:
        raise UserError(f"{flag} {k}: a model of {n_layers} layers must keep at least one. Choose 0 to {n_layers - 1}.")
    return k


def by_score(
    scores: Sequence[float], k: int, drops: Literal["highest", "lowest"], among: Sequence[int] | None = None
) -> list[int]:
    """The k ids with the highest (or lowest) score, first to go first. Ties drop the higher id.

    among: the ids that may go; None: all.
    """
    among = range(len(scores)) if among is None else among
    _check_scores(scores, among)
    sign = -1 if drops == "highest" else 1
    return sorted(among, key=lambda i: (sign * scores[i], -i))[:k]


def lowest_block(distances: Sequence[float], k: int, among: Sequence[int] | None = None) -> list[int]:
    """The k ids of the block with the lowest of `distances` (one for each id at which a block of k begins), highest
    first. Ties drop the higher ids."""
    starts = [i for i in range(len(distances)) if among is None or set(range(i, i + k)) <= set(among)]
    _check_scores(distances, starts)
    start = min(starts, key=lambda i: (distances[i], -i))
    return list(range(start, start + k))[::-1]


def lowest_by_steps(rows: Sequence[Sequence[float]], among: Sequence[int] | None = None) -> list[int]:
    """The id with the lowest score of each row that no row before has chosen. Ties drop the higher id."""
    order: list[int] = []
    for row in rows:
        left = [i for i in (range(len(row)) if among is None else among) if i not in order]
        _check_scores(row, left)
        order.append(min(left, key=lambda i: (row[i], -i)))
    return order


def above_threshold(scores: Sequence[float], threshold: float, among: Sequence[int] | None = None) -> list[int]:
    """All ids with a score above `threshold`, the highest score first. Raises UserError if no layer would be left."""
    ranked = by_score(scores, len(scores), "highest", among)
    dropped = [i for i in ranked if scores[i] > threshold]
    if len(dropped) == len(scores):
        raise UserError(
            f"--drop_threshold {threshold}: all {len(scores)} layers score above it (lowest: {min(scores):.4f}). "
            "Choose a higher threshold, or --drop_k."
        )
    return dropped


def _check_scores(scores: Sequence[float], among: Sequence[int]) -> None:
    bad = [i for i in among if not math.isfinite(scores[i])]
    if bad:
        more = f" (the first of {len(bad)})" if len(bad) > 1 else ""
        raise UserError(f"the score of layer {bad[0]}{more} is not finite. Check the weights of that layer.")


def at_random(among: Sequence[int], k: int, seed: int) -> list[int]:
    """k of the ids, the first k of a permutation that is drawn with the seed: a larger k drops these and others."""
    shuffled = sorted(among)
    random.Random(f"{seed}").shuffle(shuffled)
    return shuffled[:k]


def order_of_dropping(
    strategy: str,
    n_layers: int,
    *,
    k: int | None = None,
    threshold: float | None = None,
    scores: Sequence[Any] | None = None,
    found: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
    seed: int = 0,
) -> list[int]:
    """The ids that `strategy` drops from a model of `n_layers` layers, in the order in which they go one by one: by
    score, as a search found them, else from the classifier down (`bottom`: from the embeddings up).

    Which of the keyword arguments is needed follows from the strategy's row: `k` for all but `list` and a threshold;
    `scores` where the row names a scorer: one for each layer; one for each layer at which a block of k begins; or a row
    of one for each layer for each of k steps; `found` (k ids) for a search's result; `layers` for `list`. among: the
    ids that may go by their scores or at random; None: all. Dropping nothing (k = 0) is possible with every strategy.

    Raises UserError for an unknown strategy, a k or an id out of range, or a strategy that cannot drop k layers.
    """
    row = get_strategy(strategy)
    if row.listed:
        dropped = check_ids("--drop_layers", layers or [], n_layers)
        check_k(len(dropped), n_layers, "--drop_layers: number of layers")
        return dropped[::-1]
    if row.scorer and row.of == "layer" and len(scores or ()) != n_layers:
        raise UserError(
            f"{len(scores or ())} scores for a model of {n_layers} layers: there must be one for each layer."
        )
    if threshold is not None:
        return above_threshold(scores, threshold, among)
    if k is None:
        raise UserError(f"--drop_strategy {strategy}: how many layers? Give k.")
    check_k(k, n_layers)
    if row.positions:
        return sorted(row.positions(n_layers, k), reverse=row.positions is not bottom)
    if k == 0:
        return []
    if row.at_random:
        return at_random(range(n_layers) if among is None else among, k, seed)
    if row.of == "block":
        return lowest_block(scores, k, among)
    if row.of == "steps":
        return lowest_by_steps(scores[:k], among)
    if row.scorer:
        return by_score(scores, k, row.drops, among)
    if len(found or ()) != k:
        raise UserError(f"--drop_k {k}: the search found {len(found or ())} layers to drop. Give as many as K.")
    check_ids("--drop_order_file", found, n_layers)
    return list(found)


def select(strategy: str, n_layers: int, **chosen_by: Any) -> list[int]:
    """The ids of order_of_dropping, ascending."""
    return sorted(order_of_dropping(strategy, n_layers, **chosen_by))
