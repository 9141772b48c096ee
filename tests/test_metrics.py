import math

import numpy as np
import pytest

from layerdrop import metrics
from layerdrop.tasks import TASKS

LABELS = np.array([1, 1, 1, 0, 0, 1, 0, 0])
PREDICTED = np.array([1, 0, 1, 0, 1, 1, 0, 0])  # 3 true positives, 1 false positive, 1 false negative, 3 true negatives


def test_classification_by_hand():
    assert metrics.accuracy(PREDICTED, LABELS) == 6 / 8
    assert metrics.f1(PREDICTED, LABELS) == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert metrics.matthews_correlation(PREDICTED, LABELS) == pytest.approx((3 * 3 - 1 * 1) / 16)
    assert metrics.f1_macro(PREDICTED, LABELS) == pytest.approx(0.75)


def test_f1_is_that_of_class_one():
    assert metrics.f1(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])) == 0.0
    assert metrics.f1(np.array([1, 1]), np.array([1, 0])) == pytest.approx(2 / 3)


def test_correlations_by_hand():
    predicted, labels = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert metrics.pearson(predicted, labels) == pytest.approx(0.8)
    assert metrics.spearmanr(predicted, labels) == pytest.approx(0.8)
    assert metrics.spearmanr(predicted, np.exp(predicted)) == pytest.approx(1.0)


def test_constant_predictions():
    constant, values = np.full(4, 2.5), np.arange(4.0)
    assert math.isnan(metrics.pearson(constant, values)) and math.isnan(metrics.spearmanr(constant, values))
    assert metrics.matthews_correlation(np.ones(8, int), LABELS) == 0.0


def test_nan_ranks_below_every_number():
    assert sorted([0.1, float("nan"), -1.0], key=metrics.rank_key)[1:] == [-1.0, 0.1]


def test_every_task_can_be_scored():
    for task in TASKS.values():
        scores = metrics.compute(task.metrics, PREDICTED.astype(float) if task.is_regression else PREDICTED, LABELS)
        assert set(scores) == set(task.metrics) and task.selection_metric in task.metrics


@pytest.mark.hub
@pytest.mark.parametrize("name", list(TASKS))
def test_agrees_with_evaluate(name):
    """The hub's own metric, where a hub can be reached."""
    evaluate = pytest.importorskip("evaluate")
    try:
        theirs = evaluate.load("glue", name)
    except Exception as error:
        pytest.skip(f"no hub: {type(error).__name__}")
    task = TASKS[name]
    predicted = PREDICTED + np.linspace(0, 0.3, 8) if task.is_regression else PREDICTED
    expected = theirs.compute(predictions=predicted, references=LABELS)
    ours = metrics.compute(task.metrics, predicted, LABELS)
    assert all(ours[metric] == pytest.approx(value) for metric, value in expected.items())
