"""Kinds of labels: values worked by hand."""

import numpy as np
import pytest

from layerdrop.data.kinds import Classes, Values


def test_predictions_that_differ():
    a, b = np.array([1.0, 2.0, 3.0]), np.array([1.0005, 2.002, 3.0])
    assert Values().differs(a, b).tolist() == [False, True, False]
    assert Classes(("a", "b")).differs(np.array([0, 1]), np.array([1, 1])).tolist() == [True, False]


def test_a_split_is_stratified_if_each_class_occurs_twice():
    kind, twice = Classes(("a", "b")), np.array([0, 1, 1, 0])
    assert kind.stratified_by(twice) is twice and kind.stratified_by(np.array([0, 1, 1])) is None
    assert Values().stratified_by(np.array([0.5, 1.5])) is None


def test_groups_of_rows():
    assert [rows.tolist() for rows in Classes(("a", "b", "c")).strata(np.array([2, 0, 2]))] == [[1], [0, 2]]
    assert [rows.tolist() for rows in Values().strata(np.array([0.5, 1.5]))] == [[0, 1]]


def test_confidence_is_the_largest_probability():
    logits = np.array([[np.log(3.0), 0.0], [1000.0, 1000.0]], dtype=np.float32)
    assert Classes(("a", "b")).confidence(logits) == pytest.approx([0.75, 0.5]) and Values().confidence(logits) is None
