import math

import numpy as np
import pytest

from layerdrop.data import metrics
from layerdrop.data.tasks import TASKS

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
        scores = metrics.compute(task.metrics, PREDICTED.astype(float) if not task.labels else PREDICTED, LABELS)
        assert set(scores) == set(task.metrics) and task.selection_metric in task.metrics


# ---- what `evaluate.load("glue", task).compute(...)` gives: evaluate 0.4.6, scikit-learn 1.9.1, SciPy 1.17.1
BITS = [int(bit) for bit in "11100000011111111111"]
TRUE = [int(bit) for bit in "01100110111001010000"]
WRONG = [1 - bit for bit in TRUE]
NO, YES = [0] * 20, [1] * 20
THREE = [int(digit) for digit in "10000211012112221221"]
THREE_TRUE = [int(digit) for digit in "22212012211011220211"]
SCORES = [1.736, 1.616, 0.512, 1.415, 1.63, 3.396, -0.524, 1.198, -0.196, 1.35, 4.079, 0.224]
SCORES_TRUE = [2.9, 1.6, 3.0, 1.7, 2.0, 4.5, 1.1, 3.1, 0.4, 4.2, 3.9, 1.2]
ROUNDED = [3.0, 2.0, 3.0, 2.0, 2.0, 4.0, 1.0, 3.0, 0.0, 4.0, 4.0, 1.0]
NAN = float("nan")

EVALUATE = [
    ("cola", BITS, TRUE, {"matthews_correlation": -0.0657951694959769}),
    ("cola", TRUE, TRUE, {"matthews_correlation": 1.0}),
    ("cola", WRONG, TRUE, {"matthews_correlation": -1.0}),
    ("cola", NO, TRUE, {"matthews_correlation": 0.0}),
    ("cola", YES, TRUE, {"matthews_correlation": 0.0}),
    ("cola", BITS, NO, {"matthews_correlation": 0.0}),
    ("cola", YES, YES, {"matthews_correlation": 0.0}),
    ("mrpc", BITS, TRUE, {"accuracy": 0.45, "f1": 0.5217391304347826}),
    ("mrpc", TRUE, TRUE, {"accuracy": 1.0, "f1": 1.0}),
    ("mrpc", WRONG, TRUE, {"accuracy": 0.0, "f1": 0.0}),
    ("mrpc", NO, TRUE, {"accuracy": 0.55, "f1": 0.0}),
    ("mrpc", YES, TRUE, {"accuracy": 0.45, "f1": 0.6206896551724138}),
    ("qqp", BITS, NO, {"accuracy": 0.3, "f1": 0.0}),
    ("qqp", BITS, YES, {"accuracy": 0.7, "f1": 0.8235294117647058}),
    ("qqp", NO, NO, {"accuracy": 1.0, "f1": 0.0}),
    ("sst2", BITS, TRUE, {"accuracy": 0.45}),
    ("mnli", THREE, THREE_TRUE, {"accuracy": 0.35}),
    ("mnli", [2] * 20, THREE_TRUE, {"accuracy": 0.45}),
    ("stsb", SCORES, SCORES_TRUE, {"pearson": 0.7383052110671997, "spearmanr": 0.6433566433566434}),
    ("stsb", ROUNDED, SCORES_TRUE, {"pearson": 0.980476975440979, "spearmanr": 0.9770084209183946}),
    ("stsb", [-x for x in SCORES_TRUE], SCORES_TRUE, {"pearson": -1.0, "spearmanr": -1.0}),
    ("stsb", [2.5] * 12, SCORES_TRUE, {"pearson": NAN, "spearmanr": NAN}),
    ("stsb", SCORES, [3.0] * 12, {"pearson": NAN, "spearmanr": NAN}),
    ("stsb", [NAN, *SCORES[1:]], SCORES_TRUE, {"pearson": NAN, "spearmanr": NAN}),
    ("stsb", [0.1, 0.2], [1.0, 2.0], {"pearson": 1.0, "spearmanr": 1.0}),
]


@pytest.mark.filterwarnings("error", "ignore:A single label was found")
@pytest.mark.parametrize(("name", "predicted", "labels", "expected"), EVALUATE)
def test_agrees_with_evaluate(name, predicted, labels, expected):
    kind = np.float32 if not TASKS[name].labels else np.int64
    predicted, labels = np.array(predicted, kind), np.array(labels, kind)
    found = metrics.compute(list(expected), predicted, labels)
    assert set(expected) <= set(TASKS[name].metrics)
    assert found == {metric: pytest.approx(value, abs=1e-6, nan_ok=True) for metric, value in expected.items()}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "predicted", [[NAN, 1, 2, 3], [math.inf, 1, 2, 3], [-math.inf, 1, 2, 3], [NAN] * 4, [math.inf] * 4]
)
def test_no_correlation_of_values_that_are_not_finite(predicted):
    scores = metrics.compute(("pearson", "spearmanr"), np.array(predicted), np.arange(4.0))
    assert all(math.isnan(score) for score in scores.values())
    scores = metrics.compute(("pearson", "spearmanr"), np.arange(4.0), np.array(predicted))
    assert all(math.isnan(score) for score in scores.values())


def test_no_correlation_of_one_row():
    assert math.isnan(metrics.pearson(np.ones(1), np.ones(1))) and math.isnan(metrics.spearmanr(np.ones(1), np.ones(1)))


def test_f1_macro_counts_every_class():
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])  # F1 of 2/3, 1/2, 0
    assert metrics.f1_macro(predicted, labels) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
