import pytest

from layerdrop.data.labels import label_order, pairs_by_order
from layerdrop.data.tasks import TASKS, custom_task, get_task
from layerdrop.errors import UserError


@pytest.mark.parametrize(("written", "name"), [("RTE", "rte"), ("sst-2", "sst2"), ("STS-B", "stsb"), ("CoLA", "cola")])
def test_usual_spellings(written, name):
    assert get_task(written).name == name


def test_unknown_task():
    with pytest.raises(UserError, match="--task_name: unknown value 'mprc'. Did you mean 'mrpc'"):
        get_task("mprc")


def test_the_nine_tasks():
    """Label ids as on the hub: what class 1 is decides F1 and the submissions."""
    assert {name: task.labels for name, task in TASKS.items()} == {
        "cola": ("unacceptable", "acceptable"),
        "sst2": ("negative", "positive"),
        "mrpc": ("not_equivalent", "equivalent"),
        "stsb": (),
        "qqp": ("not_duplicate", "duplicate"),
        "mnli": ("entailment", "neutral", "contradiction"),
        "qnli": ("entailment", "not_entailment"),
        "rte": ("entailment", "not_entailment"),
        "wnli": ("not_entailment", "entailment"),
    }
    assert all(len(task.words) == len(task.labels) for task in TASKS.values())


def test_splits():
    assert TASKS["rte"].splits("validation") == ["validation"]
    assert TASKS["mnli"].splits("test") == ["test_matched", "test_mismatched"]
    assert TASKS["mnli"].splits("train") == ["train"]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([], None),
        (["entailment", "neutral", "contradiction"], None),
        (["CONTRADICTION", "NEUTRAL", "ENTAILMENT"], [2, 1, 0]),  # as roberta-large-mnli has them
        (["contradiction", "entailment", "neutral"], [2, 0, 1]),
        (["a", "b", "c"], None),
        (["entailment", "not_entailment"], None),
    ],
)
def test_label_order(names, order):
    assert label_order(TASKS["mnli"], names) == order


def test_custom_task():
    assert custom_task("x", ("a",), "y", ()).kind.n_outputs == 1
    assert custom_task("x", ("a",), "y", ("n", "p")).metrics == ("accuracy", "f1", "f1_macro")
    assert custom_task("x", ("a",), "y", ("1", "2", "3")).metrics == ("accuracy", "f1_macro")


NEGATIVE_FIRST = custom_task("mine", ("text",), "label", ("neg", "pos"))
NUMBERS = custom_task("mine", ("text",), "label", ("0", "1"))


@pytest.mark.parametrize(
    ("task", "classes", "how"),
    [
        (TASKS["sst2"], ["POS", "NEG"], "POS counts as negative, NEG counts as positive"),
        (TASKS["sst2"], ["Positive", "NEGATIVE"], None),
        (TASKS["sst2"], ["1", "0"], None),
        (TASKS["sst2"], ["LABEL_0", "LABEL_1"], None),
        (TASKS["mnli"], ["LABEL_0", "LABEL_1", "LABEL_2"], None),
        (NEGATIVE_FIRST, ["LABEL_0", "LABEL_1"], "LABEL_0 counts as neg, LABEL_1 counts as pos"),
        (NEGATIVE_FIRST, ["pos", "neg"], None),
        (NUMBERS, ["LABEL_0", "LABEL_1"], None),
        (NUMBERS, ["no", "yes"], "no counts as 0, yes counts as 1"),
    ],
)
def test_classes_that_only_their_order_pairs(task, classes, how):
    assert pairs_by_order(task, classes) == how
