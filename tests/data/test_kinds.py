"""Kinds of labels: values worked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from layerdrop.data.kinds import Classes, Values
from layerdrop.data.labels import Labels
from layerdrop.data.tasks import custom_task
from layerdrop.data.tokens import ragged


def test_predictions_that_differ():
    a, b = np.array([1.0, 2.0, 3.0]), np.array([1.0005, 2.002, 3.0])
    assert Values().differs(a, b).tolist() == [False, True, False]
    assert Classes(("a", "b")).differs(np.array([0, 1]), np.array([1, 1])).tolist() == [True, False]


def test_a_split_is_stratified_if_each_class_occurs_twice():
    kind, twice = Classes(("a", "b")), np.array([0, 1, 1, 0])
    assert kind.stratified_by(twice) is twice and kind.stratified_by(np.array([0, 1, 1])) is None
    assert Values().stratified_by(np.array([0.5, 1.5])) is None


def test_groups_of_rows():
    of_classes, of_values = Classes(("a", "b", "c")).strata(np.array([2, 0, 2])), Values().strata(np.array([0.5, 1.5]))
    assert {name: rows.tolist() for name, rows in of_classes.items()} == {"class 'a'": [1], "class 'c'": [0, 2]}
    assert {name: rows.tolist() for name, rows in of_values.items()} == {"the training set": [0, 1]}


def test_confidence_is_the_largest_probability():
    logits = np.array([[np.log(3.0), 0.0], [1000.0, 1000.0]], dtype=np.float32)
    assert Classes(("a", "b")).confidence(logits) == pytest.approx([0.75, 0.5]) and Values().confidence(logits) is None


def test_balanced_weights_are_those_of_scikit_learn():
    kind, labels = Classes(("a", "b", "c", "d")), np.array([0, 0, 0, 2, 2, 3])
    weights = kind.balanced_weights(labels)
    assert weights[[0, 2, 3]] == pytest.approx(compute_class_weight("balanced", classes=np.unique(labels), y=labels))
    assert weights[1] == 1 and weights.dtype == np.float32  # no row has the class
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [np.log(5.0), 0.0, 0.0, 0.0]])
    loss = kind.loss(logits, torch.tensor([0, 3]), class_weights=torch.from_numpy(weights))
    assert float(loss) == pytest.approx((weights[0] * np.log(4) + weights[3] * np.log(8)) / (weights[0] + weights[3]))
    assert Values().balanced_weights(np.array([0.5])) is None


@pytest.mark.parametrize(
    ("label_type", "of_task", "of_model"),
    [
        ("class", np.array([0, 1, 2]), np.array([1, 2, 0])),
        ("multi", np.array([[1, 0, 0], [0, 1, 1]]), np.array([[0, 1, 0], [1, 0, 1]])),
        ("token", ragged([np.array([0, 1]), np.array([2, -1])]), ragged([np.array([1, 2]), np.array([0, -1])])),
    ],
)
def test_the_order_of_a_checkpoint_that_is_no_swap(label_type, of_task, of_model):
    task = custom_task("x", ("text",), "label", ("a", "b", "c"), label_type=label_type)
    labels = Labels(task, SimpleNamespace(label_names=["c", "a", "b"]))
    for converted, expected in ((labels.to_model(of_task), of_model), (labels.to_task(of_model), of_task)):
        assert [np.asarray(row).tolist() for row in converted] == [np.asarray(row).tolist() for row in expected]
