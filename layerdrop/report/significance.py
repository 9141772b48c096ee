"""Paired significance tests on two systems' predictions for the same examples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from layerdrop.data.kinds import Kind

LEVEL = 0.05
EXACT_BELOW = 25
"""Number of disagreements below which McNemar's test is exact."""
RESAMPLES = 2000
SMALLEST_P = 2 / (RESAMPLES + 1)
"""The smallest p of the bootstrap, which counts the observed difference as one more resample."""


@dataclass(frozen=True)
class Comparison:
    """Comparison of the second of two systems with the first."""

    difference: float
    """Difference in accuracy or Pearson's r, as a fraction. NaN for a constant prediction, without correlation."""
    significant: bool
    """Significance at LEVEL, without a correction for several tests."""
    p: float | None = None
    """p value of McNemar's test or of the bootstrap; None if a correlation is undefined."""
    interval: tuple[float, float] | None = None
    """Regression: 95% interval of the difference."""


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """p value of McNemar's test for equal error rates. first, second: (n,) whether each prediction is correct.

    Exact (binomial) below EXACT_BELOW disagreements, else chi-square with continuity correction.
    """
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    apart = only_first + only_second
    if apart < EXACT_BELOW:
        return float(stats.binomtest(only_first, apart).pvalue) if apart else 1.0
    return float(stats.chi2.sf((abs(only_first - only_second) - 1) ** 2 / apart, 1))


def bootstrap(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """(low, high, p) of the difference in Pearson's r, second minus first, over paired resamples; (n,) each.

    low, high: 95% percentile interval. p: two-sided share of resamples beyond zero. A resample with constant
    predictions has no correlation, and counts as no difference.
    """

    def difference(a, b, y, axis=-1):
        return stats.pearsonr(b, y, axis=axis).statistic - stats.pearsonr(a, y, axis=axis).statistic

    def defined(*systems, axis=-1):
        return np.nan_to_num(difference(*systems, axis=axis), nan=0.0)

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant resamples warn; `defined` handles them
        done = stats.bootstrap(
            (first, second, labels), defined, paired=True, n_resamples=RESAMPLES, method="percentile", rng=0
        )
    drawn = done.bootstrap_distribution
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (beyond + 1) / (len(drawn) + 1))
    return float(done.confidence_interval.low), float(done.confidence_interval.high), float(p)


def compare_systems(first: Sequence[str], second: Sequence[str], labels: Sequence[str], kind: Kind) -> Comparison:
    """Compare two systems by their predictions and the labels, (n,) texts each: McNemar's test, or the bootstrap.

    Raises ValueError for a text that is not a label of `kind`.
    """
    a, b, y = map(kind.read, (first, second, labels))
    if (right := kind.correct(a, y)) is not None:
        p = mcnemar(right, kind.correct(b, y))
        return Comparison(float(kind.correct(b, y).mean() - right.mean()), p < LEVEL, p)
    if np.ptp(a) == 0 or np.ptp(b) == 0 or np.ptp(y) == 0:
        return Comparison(float("nan"), significant=False)
    low, high, p = bootstrap(a, b, y)
    difference = float(stats.pearsonr(b, y).statistic - stats.pearsonr(a, y).statistic)
    return Comparison(difference, low > 0 or high < 0, p, (low, high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values, in the same order, for a family of tests."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()
