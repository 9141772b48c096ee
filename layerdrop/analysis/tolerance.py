"""Number of layers that can be dropped within a maximum loss: Sajjad et al. (2023), Table 4.

The validation set is split in two halves. K is chosen on one half, and its loss is reported on the other. The paper
does not specify the rest: the halves are drawn once with a fixed seed and the same share of each class. A loss is a
difference of medians over seeds, in points of the task's metric or in percent of the full model's score. K is the
largest tried K with a loss of at most the maximum."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from layerdrop.data.tasks import Task

SEED = 41
BLOCKS = 50
"""Number of blocks of rows of the jackknife. With 50 blocks, a standard error is exact to about 10%."""


def halves(labels: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows into a half to choose K on and a half to report, ascending. labels: of n rows.

    With an odd number of rows in a class, the second half has one more.
    """
    generator = np.random.default_rng(SEED)
    drawn = [generator.permutation(rows)[: len(rows) // 2] for rows in task.kind.strata(labels).values()]
    chosen = np.sort(np.concatenate(drawn))
    return chosen, np.setdiff1d(np.arange(len(labels)), chosen)


def score(
    predictions: np.ndarray, labels: np.ndarray, rows: np.ndarray, task: Task, metric: str | None = None
) -> float:
    """Score of some rows in points; 0 if it is undefined. metric: None for the task's selection metric."""
    name = metric or task.selection_metric
    return 100 * float(np.nan_to_num(task.kind.measure((name,), predictions[rows], labels[rows])[name]))


def loss(full: Sequence[float], cut: Sequence[float], percent: bool = False) -> float:
    """Difference of the medians over seeds, in points or in percent of the full score."""
    before, after = statistics.median(full), statistics.median(cut)
    return 100 * (before - after) / abs(before) if percent and before else before - after


def standard_error(
    full: np.ndarray, cut: np.ndarray, labels: np.ndarray, task: Task, metric: str | None = None
) -> float:
    """Standard error in points of the paired difference of two models' scores on the same n rows.

    full, cut, labels: predictions and labels, (n,). The error is 100 sqrt(V + 1 / n^2). V is the jackknife variance of
    the difference: (g - 1) / g times the sum of squared deviations, where each of g = min(n, BLOCKS) blocks of rows is
    left out once. For accuracy and g = n, V = (b + c - (b - c)^2 / n) / (n (n - 1)), the binomial variance: on b rows
    only the full model is correct, on c rows only the reduced model. The term 1 / n^2 stands for one more row on which
    the models differ. Without it, models that never differ have error 0 (Agresti and Min 2005).
    """
    n = len(labels)
    left_out = [np.flatnonzero(np.arange(n) % BLOCKS != block) for block in range(min(n, BLOCKS) if n > 1 else 0)]
    both = [[score(predictions, labels, rows, task, metric) for rows in left_out] for predictions in (full, cut)]
    variance = (len(left_out) - 1) * np.var(np.subtract(*both)) if left_out else 0
    return float(np.sqrt(variance + (100 / max(n, 1)) ** 2))


@dataclass
class Tolerance:
    """The result for one threshold."""

    max_loss: float
    k: int
    """The largest K whose loss is at most max_loss; 0 if there is none."""
    tried: list[int] = field(default_factory=list)
    """Each K whose loss was needed, ascending."""
    exceptions: list[int] = field(default_factory=list)
    """Each tried K below `k` whose loss exceeds max_loss. A loss need not grow with K."""


def next_k(all_k: Sequence[int], losses: Mapping[int, float], max_loss: float, exhaustive: bool = False) -> list[int]:
    """Each K whose loss is needed next; empty once the largest K is decided.

    exhaustive: try every K. Otherwise by bisection, which assumes that the loss grows with K.
    """
    asked = sorted(all_k) if exhaustive else _bisect(all_k, losses, max_loss)[1]
    return [k for k in asked if k not in losses]


def largest_k(
    all_k: Sequence[int], losses: Mapping[int, float], max_loss: float, exhaustive: bool = False
) -> Tolerance:
    """The largest K with a loss of at most max_loss. Bisection finds a K within max_loss whose next K exceeds it.

    losses: K -> loss, for every K that `next_k` has returned.
    """
    best, tried = _bisect(all_k, losses, max_loss)
    if exhaustive:
        tried = sorted(all_k)
        best = max([k for k in tried if losses[k] <= max_loss], default=0)
    return Tolerance(max_loss, best, sorted(tried), [k for k in sorted(tried) if k < best and losses[k] > max_loss])


def _bisect(all_k: Sequence[int], losses: Mapping[int, float], max_loss: float) -> tuple[int, list[int]]:
    """(largest K found within max_loss, each tried K). Stops at the first K without a loss in `losses`."""
    all_k, tried = sorted(all_k), []
    low, high = 0, len(all_k)  # all_k[:low] are within the loss, all_k[high:] are not
    while low < high:
        middle = (low + high) // 2
        tried.append(all_k[middle])
        if all_k[middle] not in losses:
            break
        low, high = (middle + 1, high) if losses[all_k[middle]] <= max_loss else (low, middle)
    return (all_k[low - 1] if low else 0), tried
