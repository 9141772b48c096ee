import numpy as np
import pytest

from layerdrop.analysis import bootstrap_interval, compare_systems, mcnemar


def test_mcnemar_exact_by_hand():
    """10 disagreements, 1 for the first: 2 * (C(10,0) + C(10,1)) / 2 ** 10."""
    first = np.array([True] + [False] * 9 + [True] * 50)
    second = np.array([False] + [True] * 9 + [True] * 50)
    assert mcnemar(first, second) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(first, first) == 1.0


def test_mcnemar_chi_square_by_hand():
    """40 against 20 disagreements: (|40 - 20| - 1) ** 2 / 60 = 6.0167, p = 0.0142."""
    first = np.array([True] * 40 + [False] * 20 + [True] * 9)
    second = np.array([False] * 40 + [True] * 20 + [True] * 9)
    assert mcnemar(first, second) == pytest.approx(0.01417, abs=1e-5)


def test_bootstrap_covers_no_difference_and_sees_a_large_one():
    random = np.random.default_rng(0)
    y = random.normal(size=300)
    good, alike, bad = (y + s * random.normal(size=300) for s in (0.5, 0.5, 3.0))
    low, high = bootstrap_interval(good, alike, y)
    assert low < 0 < high
    low, high = bootstrap_interval(good, bad, y)
    assert high < -0.2
    exact = np.corrcoef(bad, y)[0, 1] - np.corrcoef(good, y)[0, 1]
    assert low < exact < high


def test_systems():
    found = compare_systems(["a", "b"] * 20, ["a", "a"] * 20, ["a", "a"] * 20, regression=False)
    assert found.difference == 0.5 and found.significant and found.p == pytest.approx(2 * 0.5**20)
    y = [str(i) for i in range(20)]
    found = compare_systems(y, y, y, regression=True)
    assert found.difference == 0 and not found.significant and found.interval == (0, 0)
    constant = compare_systems(y, ["1"] * 20, y, regression=True)
    assert np.isnan(constant.difference) and not constant.significant
