"""How many layers can go within a loss: Sajjad et al. (2023), Table 4.

The development set in two halves: K is chosen on one, its loss is reported on the other. Ours, where they do not say:
the halves are drawn once, with a fixed seed, the same share of each class in both; a loss is a difference in points of
the task's metric, or in percent of the full model's; over several seeds the median; K is the largest one within the
loss, of those that were tried.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from layerdrop.data.tasks import Task

SEED = 41


def halves(labels: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the half that K is chosen on, and of the one that is reported, ascending. labels: (n,) ids or values; of
    an odd number of rows of a class the one more goes to the second half."""
    generator = np.random.default_rng(SEED)
    chosen = np.sort(
        np.concatenate([generator.permutation(rows)[: len(rows) // 2] for rows in task.kind.strata(labels)])
    )
    return chosen, np.setdiff1d(np.arange(len(labels)), chosen)


def score(predictions: np.ndarray, labels: np.ndarray, rows: np.ndarray, task: Task) -> float:
    """Points of the task's metric (F1 for MRPC and QQP, Spearman for STS-B, Matthews for CoLA, else accuracy)."""
    name = task.selection_metric
    return 100 * task.kind.measure((name,), predictions[rows], labels[rows])[name]


def loss(full: Sequence[float], cut: Sequence[float], percent: bool = False) -> float:
    """How far the median over seeds falls, in points or in percent of the full model's. A score that is not defined
    counts as 0."""
    before, after = (statistics.median(np.nan_to_num(scores)) for scores in (full, cut))
    return 100 * (before - after) / abs(before) if percent and before else before - after


@dataclass
class Tolerance:
    """The result for one threshold."""

    max_loss: float
    k: int
    """The largest number of layers within the loss; 0 if none is."""
    tried: list[int] = field(default_factory=list)
    """Every K whose loss was needed, ascending."""
    exceptions: list[int] = field(default_factory=list)
    """Numbers below `k` that are not within the loss: here it does not grow with K."""


def next_k(all_k: Sequence[int], losses: Mapping[int, float], max_loss: float, exhaustive: bool = False) -> list[int]:
    """The K whose losses are needed next, beside those that are known; empty once the largest one is decided.

    exhaustive: every K. Otherwise bisection, which assumes that the loss grows with K.
    """
    asked = sorted(all_k) if exhaustive else _bisect(all_k, losses, max_loss)[1]
    return [k for k in asked if k not in losses]


def largest_k(
    all_k: Sequence[int], losses: Mapping[int, float], max_loss: float, exhaustive: bool = False
) -> Tolerance:
    """The largest K whose loss is at most max_loss. By bisection it is a K within the loss whose successor is not.

    losses: of every K that `next_k` names.
    """
    best, tried = _bisect(all_k, losses, max_loss)
    if exhaustive:
        tried = sorted(all_k)
        best = max([k for k in tried if losses[k] <= max_loss], default=0)
    return Tolerance(max_loss, best, sorted(tried), [k for k in sorted(tried) if k < best and losses[k] > max_loss])


def _bisect(all_k: Sequence[int], losses: Mapping[int, float], max_loss: float) -> tuple[int, list[int]]:
    """(the largest K within the loss, every K on the way), up to the first one whose loss is not known."""
    all_k, tried = sorted(all_k), []
    low, high = 0, len(all_k)  # the first `low` are taken to be within, none from `high` on
    while low < high:
        middle = (low + high) // 2
        tried.append(all_k[middle])
        if all_k[middle] not in losses:
            break
        low, high = (middle + 1, high) if losses[all_k[middle]] <= max_loss else (low, middle)
    return (all_k[low - 1] if low else 0), tried
