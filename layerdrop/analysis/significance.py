"""Whether two systems differ: paired tests on their predictions of the same examples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.05
EXACT_BELOW = 25
"""Disagreements below which McNemar's test is exact."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Comparison:
    """The second of two systems against the first, on the same examples."""

    difference: float
    """In accuracy or Pearson's r, as a fraction. NaN where a constant prediction has no correlation."""
    significant: bool
    """At LEVEL, without a correction for several tests."""
    p: float | None = None
    """McNemar's, or the bootstrap's; None where no correlation is defined."""
    interval: tuple[float, float] | None = None
    """Regression: of the difference, 95%."""


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """p of McNemar's test: do two systems err equally often? first, second: (n,) whether each example is right.

    Exact (binomial) where fewer than 25 examples tell them apart, else chi-square with continuity correction.
    """
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    apart = only_first + only_second
    if apart < EXACT_BELOW:
        return float(stats.binomtest(only_first, apart).pvalue) if apart else 1.0
    return float(stats.chi2.sf((abs(only_first - only_second) - 1) ** 2 / apart, 1))


def bootstrap(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """(low, high, p) of Pearson's r of the second minus that of the first, over 2,000 paired resamples; (n,) each.

    The interval is the 95% percentile one, p the two-sided share of resamples beyond zero. A resample in which a
    system is constant has no correlation and counts as no difference.
    """

    def difference(a, b, y, axis=-1):
        return stats.pearsonr(b, y, axis=axis).statistic - stats.pearsonr(a, y, axis=axis).statistic

    def defined(*systems, axis=-1):
        return np.nan_to_num(difference(*systems, axis=axis), nan=0.0)

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant resamples, which `defined` accounts for
        done = stats.bootstrap(
            (first, second, labels), defined, paired=True, n_resamples=RESAMPLES, method="percentile", rng=0
        )
    drawn = done.bootstrap_distribution
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (beyond + 1) / (len(drawn) + 1))
    return float(done.confidence_interval.low), float(done.confidence_interval.high), float(p)


def compare_systems(first: Sequence[str], second: Sequence[str], labels: Sequence[str], regression: bool) -> Comparison:
    """Two systems' predictions and the labels, (n,) words each. A constant prediction has no correlation: NaN."""
    if not regression:
        a, b, y = (np.array(words) for words in (first, second, labels))
        p = mcnemar(a == y, b == y)
        return Comparison(float((b == y).mean() - (a == y).mean()), p < LEVEL, p)
    a, b, y = (np.array(words, dtype=float) for words in (first, second, labels))
    if np.ptp(a) == 0 or np.ptp(b) == 0 or np.ptp(y) == 0:
        return Comparison(float("nan"), significant=False)
    low, high, p = bootstrap(a, b, y)
    difference = float(stats.pearsonr(b, y).statistic - stats.pearsonr(a, y).statistic)
    return Comparison(difference, low > 0 or high < 0, p, (low, high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values, in the same order: those below a level are significant at it when all tests
    are taken together."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
