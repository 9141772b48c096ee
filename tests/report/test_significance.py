import numpy as np
import pytest

from layerdrop.data.kinds import Classes, Values
from layerdrop.report.significance import LEVEL, SMALLEST_P, bootstrap, compare_systems, holm, mcnemar


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
    low, high, p = bootstrap(good, alike, y)
    assert low < 0 < high and p > 0.05
    low, high, p = bootstrap(good, bad, y)
    assert high < -0.2 and p == pytest.approx(2 / 2001) == SMALLEST_P
    exact = np.corrcoef(bad, y)[0, 1] - np.corrcoef(good, y)[0, 1]
    assert low < exact < high


def test_systems():
    found = compare_systems(["a", "b"] * 20, ["a", "a"] * 20, ["a", "a"] * 20, Classes(("a", "b")))
    assert found.difference == 0.5 and found.significant and found.p == pytest.approx(2 * 0.5**20)
    y = [str(i) for i in range(20)]
    found = compare_systems(y, y, y, Values())
    assert found.difference == 0 and not found.significant and found.interval == (0, 0)
    constant = compare_systems(y, ["1"] * 20, y, Values())
    assert np.isnan(constant.difference) and not constant.significant


def test_the_level_is_five_per_cent():
    """6 of 6 disagreements: p = 2 * 0.5 ** 6 = 0.031; 5 of 5: 0.0625."""
    assert LEVEL == 0.05
    for apart, significant in ((6, True), (5, False)):
        labels = ["a"] * apart + ["b"] * (40 - apart)
        assert compare_systems(["b"] * 40, labels, labels, Classes(("a", "b"))).significant is significant


def test_a_nearly_constant_system_does_not_differ_from_itself():
    """In many resamples it is constant, and has no correlation."""
    y = [str(i % 6) for i in range(60)]
    nearly = ["1.0"] * 59 + ["1.5"]
    itself = compare_systems(nearly, nearly, y, Values())
    assert not itself.significant and itself.difference == 0 and itself.interval == (0, 0) and itself.p == 1
    other = compare_systems(nearly, ["1.5"] + ["1.0"] * 59, y, Values())
    assert not other.significant and np.isfinite(other.interval).all()


@pytest.mark.parametrize("system", ["first", "second", "labels"])
def test_without_a_correlation_nothing_is_significant(system):
    words = {name: [str(i) for i in range(30)] for name in ("first", "second", "labels")} | {system: ["2"] * 30}
    found = compare_systems(**words, kind=Values())
    assert np.isnan(found.difference) and not found.significant and found.p is None and found.interval is None


def test_a_prediction_that_is_no_label_of_the_task_is_refused():
    with pytest.raises(ValueError, match="'c' is not a class of the task"):
        compare_systems(["c"], ["a"], ["a"], Classes(("a", "b")))


def test_holm_by_hand():
    """Holm (1979): the smallest of m times m, the next times m - 1, ..., never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.04]) == [0.04]
