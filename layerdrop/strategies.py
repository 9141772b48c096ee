"""Strategies for choosing the layers to drop: pure functions of the depth, K and scores, and a table of names.

Layer ids are 0-based: 0 is next to the embeddings, n_layers - 1 next to the classifier. Strategies that compute scores
are in `layerdrop/criteria/table.py`. Sources: Sajjad et al. (2023), "On the Effect of Dropping Layers of Pre-trained
Transformer Models", Section 3; Peer et al. (2022), "Greedy-layer pruning".
"""

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

from .errors import UserError, unknown

MOST_LAYERS = 1000
"""Maximum depth of a model. Building or listing 1,000,000,000 layers would not end."""
Positions = Callable[[int, int], list[int]]
"""(n_layers, k) -> ids of the k layers to drop, ascending."""


def top(n_layers: int, k: int) -> list[int]:
    """The k highest ids, next to the classifier."""
    return list(range(n_layers - k, n_layers))


def bottom(n_layers: int, k: int) -> list[int]:
    """The k lowest ids, next to the embeddings."""
    return list(range(k))


def odd_alternate(n_layers: int, k: int) -> list[int]:
    """Every other layer from the top. For 12 layers: the paper's 11, 9, 7 ..., ids 10, 8, 6 ..."""
    return _alternate("odd-alternate", n_layers, k, parity=1)


def even_alternate(n_layers: int, k: int) -> list[int]:
    """Every other layer from the top. For 12 layers: the paper's 12, 10, 8 ..., ids 11, 9, 7 ..."""
    return _alternate("even-alternate", n_layers, k, parity=0)


def _alternate(name: str, n_layers: int, k: int, parity: int) -> list[int]:
    candidates = [number - 1 for number in range(n_layers, 0, -1) if number % 2 == parity]  # the paper counts from 1
    if k > len(candidates):
        raise UserError(
            f"{name} can drop at most {len(candidates)} of {n_layers} layers. "
            f"Choose 0 to {len(candidates)}, or another --drop_strategy."
        )
    return sorted(candidates[:k])


def symmetric(n_layers: int, k: int) -> list[int]:
    """The k middle layers. Each end keeps (n_layers - k) / 2 layers."""
    if k == 0:
        return []
    if (n_layers - k) % 2:
        near = [str(j) for j in (k - 1, k + 1) if j < n_layers]
        raise UserError(
            f"symmetric keeps the same number of layers at each end, so {n_layers} - K must be even. "
            f"Nearest: K = {' or '.join(near)}."
        )
    start = (n_layers - k) // 2
    return list(range(start, start + k))


def every_other(n_layers: int, k: int) -> list[int]:
    """k evenly spaced layers, including the last. For 12 layers: ids 1, 3, 5 ... (k = 6) or 2, 5, 8, 11 (k = 4).

    If k divides n_layers, these are Fan et al.'s depths d (from 1) with d mod (n_layers / k) = 0.
    """
    return [(i + 1) * n_layers // k - 1 for i in range(k)]


@dataclass(frozen=True)
class Strategy:
    """One row of the table. Exactly one of `positions`, `at_random`, `searched`, `listed` and `drops` is set."""

    name: str
    summary: str
    source: str = ""
    positions: Positions | None = None
    at_random: bool = False
    """Whether k layers are drawn with the run's seed."""
    searched: bool = False
    """Whether the ids are a search result."""
    listed: bool = False
    """Whether the user gives the ids."""
    drops: Literal["highest", "lowest"] | None = None
    """Whether the layers with the highest or with the lowest scores are dropped first."""
    unit: Literal["layer", "block", "steps"] = "layer"
    """Unit of a score. `layer`: one layer. `block`: the k layers that begin at a layer. `steps`: one layer of the model
    that earlier steps have reduced."""
    threshold: bool = False
    """Whether the strategy can drop all layers with a score above a threshold instead of k layers."""


_SAJJAD = "Sajjad et al. 2023, Section 3"
WITHOUT_SCORES = {
    row.name: row
    for row in (
        Strategy("top", "the k highest ids, next to the classifier", _SAJJAD, positions=top),
        Strategy("bottom", "the k lowest ids, next to the embeddings", _SAJJAD, positions=bottom),
        Strategy(
            "odd-alternate", "every other layer from the top: for 12 layers, ids 10, 8, 6 ...", _SAJJAD, odd_alternate
        ),
        Strategy(
            "even-alternate", "every other layer from the top: for 12 layers, ids 11, 9, 7 ...", _SAJJAD, even_alternate
        ),
        Strategy("every-other", "k evenly spaced layers", "Fan et al. 2020: Every Other", positions=every_other),
        Strategy("symmetric", "the k middle layers; n_layers - k must be even", _SAJJAD, positions=symmetric),
        Strategy("random", "k layers at random, with the run's seed: the control", at_random=True),
        Strategy("greedy", "the first k of a greedy search's order", "Peer et al. 2022", searched=True),
        Strategy("optimal", "the best set of k that an exhaustive search found", "Peer et al. 2022", searched=True),
        Strategy("shortlist", "the best of the sets that four strategies propose", "ours", searched=True),
        Strategy("list", "the ids of --drop_layers", "--remove_layers in the code of Sajjad et al. 2023", listed=True),
    )
}
"""Name -> strategy, for strategies without scores."""
BY_POSITION = tuple(name for name, row in WITHOUT_SCORES.items() if row.positions)
"""Names of the strategies that select layers by position."""


def is_whole(value: Any) -> bool:
    """Whether a value of any type is a whole number and not a Boolean."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_list(value: Any) -> bool:
    """Whether a value of any type has items in order: a sequence or an array, but no text and no single number."""
    ordered = isinstance(value, Collection) and hasattr(value, "__getitem__") and not isinstance(value, (str, Mapping))
    return ordered and getattr(value, "ndim", 1) > 0


def check_ids(flag: str, ids: Sequence[int], n_layers: int) -> list[int]:
    """Return `ids` in ascending order. Raises UserError for an id that is no whole number, out of range or repeated."""
    if not (is_list(ids) or isinstance(ids, Set)) or not all(map(is_whole, ids)):
        raise UserError(f"{flag}: {ids!r} is no list of layer ids. Give whole numbers, such as [3, 4].")
    wrong = sorted({i for i in ids if not 0 <= i < n_layers})
    if wrong:
        raise UserError(
            f"{flag}: no layer {', '.join(map(str, wrong))} in a model of {n_layers} layers. "
            f"Ids count from 0 (next to the embeddings) to {n_layers - 1}."
        )
    repeated = sorted({i for i in ids if list(ids).count(i) > 1})
    if repeated:
        raise UserError(f"{flag}: layer {', '.join(map(str, repeated))} is given more than once. Give each id once.")
    return sorted(ids)


def check_dropped(ids: Sequence[int], n_layers: int) -> list[int]:
    """Return the dropped `ids` in ascending order. Raises UserError as `check_ids`, and if no layer is kept."""
    dropped = check_ids("--drop_layers", ids, n_layers)
    if len(dropped) == n_layers:
        raise UserError(f"--drop_layers: names all {n_layers} layers. A model must keep at least one. Leave one out.")
    return dropped


def check_k(k: int, n_layers: int, flag: str = "--drop_k") -> int:
    """Return `k`. Raises UserError unless k is a whole number and 0 <= k < n_layers."""
    if not is_whole(k):
        raise UserError(f"must be a whole number. Choose 0 to {n_layers - 1}.", flag, repr(k))
    if not 0 <= k < n_layers:
        raise UserError(f"a model of {n_layers} layers must keep at least one. Choose 0 to {n_layers - 1}.", flag, k)
    return k


def by_score(
    scores: Sequence[float], k: int, drops: Literal["highest", "lowest"], among: Sequence[int] | None = None
) -> list[int]:
    """The k ids with the highest or lowest scores, in the order of dropping. Ties drop the higher id.

    among: ids that can be dropped; None: all.
    """
    among = range(len(scores)) if among is None else among
    _check_scores(scores, among)
    sign = -1 if drops == "highest" else 1
    return sorted(among, key=lambda i: (sign * scores[i], -i))[:k]


def lowest_block(distances: Sequence[float], k: int, among: Sequence[int] | None = None) -> list[int]:
    """The k ids of the block with the smallest distance, highest id first. Ties drop the higher ids.

    distances: one for each first layer of a block, ids ascending.
    """
    starts = [i for i in range(len(distances)) if among is None or set(range(i, i + k)) <= set(among)]
    _check_scores(distances, starts)
    start = min(starts, key=lambda i: (distances[i], -i))
    return list(range(start, start + k))[::-1]


def lowest_by_steps(rows: Sequence[Sequence[float]], among: Sequence[int] | None = None) -> list[int]:
    """For each row, the id with the lowest score among the ids not chosen before. Ties drop the higher id."""
    order: list[int] = []
    for row in rows:
        remaining = [i for i in (range(len(row)) if among is None else among) if i not in order]
        _check_scores(row, remaining)
        order.append(min(remaining, key=lambda i: (row[i], -i)))
    return order


def above_threshold(scores: Sequence[float], threshold: float, among: Sequence[int] | None = None) -> list[int]:
    """All ids with a score above `threshold`, highest score first. Raises UserError if no layer would be kept."""
    ranked = by_score(scores, len(scores), "highest", among)
    dropped = [i for i in ranked if scores[i] > threshold]
    if len(dropped) == len(scores):
        raise UserError(
            f"--drop_threshold {threshold}: all {len(scores)} layers score above it (lowest: {min(scores):.4f}). "
            "Choose a higher threshold, or --drop_k."
        )
    return dropped


def _check_scores(scores: Sequence[float], among: Sequence[int]) -> None:
    bad = [i for i in among if not _is_finite(scores[i])]
    if bad:
        more = f" (the first of {len(bad)})" if len(bad) > 1 else ""
        raise UserError(f"the score of layer {bad[0]}{more} is not a finite number. Check the weights of that layer.")


def _is_finite(score: Any) -> bool:
    try:
        return math.isfinite(score)
    except TypeError:
        return False


def _checked(row: Strategy, scores: Sequence[Any] | None, n_layers: int, k: int) -> Sequence[Any]:
    """Return the scores. Raises UserError for missing scores, or another number of scores than the strategy needs."""
    if scores is None:
        raise UserError(f"--drop_strategy {row.name}: is given no scores. Give a score for each {row.unit}.")
    rows: Sequence[Any] = [scores] if row.unit != "steps" else scores[:k] if is_list(scores) else [None]
    if not all(map(is_list, rows)):
        wanted = "row of scores for each step" if row.unit == "steps" else f"score for each {row.unit}"
        raise UserError(f"--drop_strategy {row.name}: {scores!r} is no list of scores. Give a list with a {wanted}.")
    needed = [n_layers - k + 1 if row.unit == "block" else n_layers] * (k if row.unit == "steps" else 1)
    lengths = [len(each) for each in rows]
    if lengths != needed:
        given, wanted = (", ".join(map(str, counts)) or "no" for counts in (lengths, needed))
        raise UserError(
            f"--drop_strategy {row.name}: {given} scores for a model of {n_layers} layers. Give {wanted}, one for each "
            f"{row.unit}."
        )
    return scores


def at_random(among: Sequence[int], k: int, seed: int) -> list[int]:
    """The first k ids of a permutation drawn with the seed. A larger k adds ids to the same set."""
    shuffled = sorted(among)
    random.Random(f"{seed}").shuffle(shuffled)
    return shuffled[:k]


def order_of_dropping(
    strategy: str | Strategy,
    n_layers: int,
    *,
    k: int | None = None,
    threshold: float | None = None,
    scores: Sequence[Any] | None = None,
    found: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    among: Sequence[int] | None = None,
    seed: int = 0,
    flag: str = "--drop_k",
) -> list[int]:
    """Select the ids to drop from a model of `n_layers` layers, in the order of dropping.

    The order is that of the scores, the search result, or the draw of `random`. All other strategies drop the highest
    id first (`bottom`: the lowest).

    strategy: a name in WITHOUT_SCORES, or a row. k: number of layers, ignored for `list` and with a threshold.
    scores: one for each layer; for blocks one for each first layer of a block; for steps one row for each of k steps.
    found: k ids of a search result. layers: the ids of `list`. among: ids that can be dropped by score or at random;
    None: all. flag: the flag of k, for messages.

    Raises UserError for an unknown strategy, a k or id out of range, or a k that the strategy cannot drop.
    """
    row = strategy if isinstance(strategy, Strategy) else WITHOUT_SCORES.get(strategy)
    if row is None:
        raise unknown("--drop_strategy", str(strategy), WITHOUT_SCORES)
    if not is_whole(n_layers) or not 1 <= n_layers <= MOST_LAYERS:
        raise UserError(f"n_layers {n_layers!r}: must be a number of layers from 1 to {MOST_LAYERS}.")
    if among is not None:
        check_ids("among", among, n_layers)
    if row.listed:
        return check_dropped([] if layers is None else layers, n_layers)[::-1]
    if threshold is not None:
        if not row.threshold:
            raise UserError(
                f"--drop_threshold {threshold}: {row.name} drops K layers, not all above a threshold. Give k."
            )
        return above_threshold(_checked(row, scores, n_layers, 1), threshold, among)
    if k is None:
        raise UserError(f"--drop_strategy {row.name}: needs the number of layers. Give k.")
    check_k(k, n_layers, flag)
    if row.positions:
        try:
            ids = check_ids(f"--drop_strategy {row.name}", row.positions(n_layers, k), n_layers)
        except UserError as error:
            raise UserError(error.text if error.flag == flag else str(error), flag, k) from None
        if len(ids) != k:
            raise UserError(f"the function of {row.name} returns {len(ids)} layers. It must return K.", flag, k)
        return sorted(ids, reverse=row.positions is not bottom)
    if k == 0:
        return []
    if row.at_random:
        return at_random(range(n_layers) if among is None else among, k, seed)
    if row.drops:
        scores = _checked(row, scores, n_layers, k)
        if row.unit == "layer":
            return by_score(scores, k, row.drops, among)
        return lowest_block(scores, k, among) if row.unit == "block" else lowest_by_steps(scores[:k], among)
    order = [] if found is None else found
    check_ids(f"--drop_strategy {row.name}, search result", order, n_layers)
    if len(order) != k:
        raise UserError(
            f"the search found {len(order)} layers to drop. Give a search result of K layers.", "--drop_k", k
        )
    return list(order)


def select(strategy: str | Strategy, n_layers: int, **arguments: Any) -> list[int]:
    """The ids of `order_of_dropping`, ascending."""
    return sorted(order_of_dropping(strategy, n_layers, **arguments))
