"""Whether two runs differ: paired tests on their predictions."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from layerdrop.runs import RunRecord

LEVEL = 0.05
EXACT_BELOW = 25
"""Disagreements below which McNemar's test is exact."""


@dataclass(frozen=True)
class Comparison:
    """The second of two systems against the first, on the same examples."""

    difference: float
    """In accuracy or Pearson's r, as a fraction."""
    significant: bool
    p: float | None = None
    """McNemar's; None for regression."""
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


def bootstrap_interval(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """95% interval of Pearson's r of the second minus that of the first, over 2,000 paired resamples; (n,) each."""

    def difference(a, b, y, axis=-1):
        return stats.pearsonr(b, y, axis=axis).statistic - stats.pearsonr(a, y, axis=axis).statistic

    with np.errstate(all="ignore"):
        done = stats.bootstrap(
            (first, second, labels), difference, paired=True, n_resamples=2000, method="percentile", rng=0
        )
    return float(done.confidence_interval.low), float(done.confidence_interval.high)


def compare_systems(first: list[str], second: list[str], labels: list[str], regression: bool) -> Comparison:
    """Two systems' predictions and the labels, (n,) words each. A constant prediction has no correlation: NaN."""
    if regression:
        a, b, y = (np.array(words, dtype=float) for words in (first, second, labels))
        if np.ptp(a) == 0 or np.ptp(b) == 0:  # no correlation is defined
            return Comparison(float("nan"), significant=False)
        low, high = bootstrap_interval(a, b, y)
        difference = float(stats.pearsonr(b, y).statistic - stats.pearsonr(a, y).statistic)
        return Comparison(difference, not low <= 0 <= high, interval=(low, high))
    a, b, y = (np.array(words) for words in (first, second, labels))
    p = mcnemar(a == y, b == y)
    return Comparison(float((b == y).mean() - (a == y).mean()), p < LEVEL, p)


def read_predictions(folder: str) -> dict[str, tuple[list[str], list[str], list[str]]]:
    """File name -> (index, label, prediction) of a run's development-set predictions."""
    found = {}
    for path in sorted(Path(folder).glob("predictions_dev*.tsv")):
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        found[path.name] = tuple([row[name] for row in rows] for name in ("index", "label", "prediction"))
    return found


def compare_predictions(first: RunRecord, second: RunRecord, task: str) -> Comparison | None:
    """The second run against the first, on the (matched) development set; None where predictions are missing or not of
    the same examples."""
    a, b = (next(iter(read_predictions(record.folder).values()), None) for record in (first, second))
    if a is None or b is None or a[:2] != b[:2]:
        return None
    return compare_systems(a[2], b[2], a[1], regression="pearson" in first.metrics)
