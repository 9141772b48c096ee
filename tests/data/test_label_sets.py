"""Several labels at once: every type of file, losses and metrics by hand and against the library and scikit-learn."""

import json
import re

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch.nn.functional import kl_div
from transformers import BertConfig, BertForSequenceClassification

from layerdrop.data.kinds import Classes, LabelSets, Values, kind_of
from layerdrop.errors import UserError
from tests.data.test_own_files import column, read, write

LABELS = [["b"], [], ["a", "c"], ["c", "c"]]
IDS = [[0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1]]
KIND = LabelSets(("a", "b", "c"))


def rows(labels: list) -> list[dict]:
    return [{"text": f"w{i} w", "label": label} for i, label in enumerate(labels)]


# ---- files
@pytest.mark.parametrize(
    ("ending", "cells", "separator"),
    [
        ("jsonl", LABELS, None),
        ("json", LABELS, None),
        ("parquet", LABELS, None),
        ("csv", [json.dumps(names) for names in LABELS], None),
        ("tsv", [json.dumps(names) for names in LABELS], None),
        ("csv", [str(names) for names in LABELS], None),  # as pandas writes lists
        ("csv", ["b", "", "a;c", "c; c"], ";"),
        ("tsv", ["b", "", "a, c", "c,c"], ","),
        ("jsonl", ["b", "", "a|c", "c|c"], "|"),
    ],
)
def test_lists_in_every_type_of_file(tmp_path, ending, cells, separator):
    path = write(tmp_path / f"x.{ending}", rows(cells))
    how = {"label_type": "multi", "label_separator": separator} if separator else {}
    data = read(path, path, path, **how)
    task, train, validation, test = data.task, *data.examples.values()
    assert (task.labels, task.label_type, task.kind) == (("a", "b", "c"), "multi", KIND)
    assert train.labels.tolist() == validation.labels.tolist() == IDS and test.labels is None
    assert task.metrics == ("f1_micro", "f1_macro", "exact_match") and task.selection_metric == "f1_micro"
    assert task.positive_label is None


def test_classes_that_join_other_classes_are_noted(tmp_path):
    path = write(tmp_path / "x.csv", rows(["a", "b", "a; b", "c", "c, d"]))
    data = read(path, path)
    note = "'a; b' of column 'label' is a class of its own. For several labels in a row, add --label_separator ';'"
    assert note in data.notes and data.task.label_type == "class"
    assert any("'c, d' of column 'label'" in line and line.endswith("','") for line in data.notes)
    assert not any("--label_separator" in line for line in read(path, path, label_type="class").notes)


@pytest.mark.parametrize(
    "how", [{}, {"label_type": "class"}, {"label_type": "number"}], ids=["auto", "class", "number"]
)
@pytest.mark.parametrize("cell", ['["a", "b"]', "['a', 'b']", ["a", "b"], "['a' 'b']", "[1, 2]"], ids=str)
def test_a_list_is_never_a_class(tmp_path, cell, how):
    """Neither in a file of classes, nor in a file of lists that is read as classes."""
    ending = "csv" if isinstance(cell, str) else "jsonl"
    path = write(tmp_path / f"x.{ending}", rows(["a", "b", cell, "a"]))
    with pytest.raises(UserError, match=r"x.(csv:4|jsonl:3|csv:2|jsonl:1): "):
        read(path, **how)
    path = write(tmp_path / f"y.{ending}", rows([cell] * 4))
    if how:
        with pytest.raises(UserError, match=r"y.(csv:2|jsonl:1): "):
            read(path, **how)
    elif cell != "['a' 'b']":
        assert read(path).task.label_type == "multi"
    else:
        with pytest.raises(UserError, match="not a list in the notation of JSON"):
            read(path)


def test_a_name_in_brackets_is_a_class(tmp_path):
    path = write(tmp_path / "x.csv", rows(["[NEG]", "[POS]", "[NEG]"]))
    assert read(path).task.labels == ("[NEG]", "[POS]")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a", r"label 'a' of column 'label' is not a list. Write it as \[\"a\", \"b\"\], or give --label_separator"),
        ([["a"]], r"the list in column 'label' contains \['a'\], which is not a word"),
        (["a", None], "contains None"),
        (["a", ""], "contains an empty text, which is not a word"),
        (None, "an empty cell in column 'label'"),
        ({"a": 1}, "holds an object"),
        (["a", "x"], "label 'x' is none of a, b, c"),
        (["nan"], "label 'nan' stands for a missing label .to use it as a class: --label_type multi"),
    ],
)
def test_malformed_lists(tmp_path, cell, message):
    train, path = write(tmp_path / "train.jsonl", rows(LABELS)), write(tmp_path / "x.jsonl", rows([["a"], cell]))
    with pytest.raises(UserError, match=f"x.jsonl:2: .*{message}"):
        read(train, path)
    data = read(train, path, skip_bad_rows=True)
    assert data.examples["validation"].bad_lines == (2,) and len(data.examples["validation"]) == 1


def test_a_label_with_a_blank_at_its_end_is_no_other_label(tmp_path):
    path = write(tmp_path / "x.jsonl", rows([["a"], ["b"], ["a "]]))
    with pytest.raises(UserError, match="x.jsonl:3: label 'a ' .* a blank. Fix the row, or add --skip_bad_rows"):
        read(path)
    assert read(path, skip_bad_rows=True).task.labels == ("a", "b")
    assert read(path, label_type="multi").task.labels == ("a", "a ", "b")


@pytest.mark.parametrize(
    ("labels", "separator"),
    [
        (["a;b", "b", ""], ";"),
        (["a, b", "b, c", ""], ","),
        (["a|b", "b|a", ""], "|"),
        (["a|b", "b|a", " "], None),
        (["a, x; b", "b", ""], ";"),
        (["a", "b", ""], None),
        (["a, of b", "a, of b", ""], None),
        (["[a, b]", "[b, c]", ""], None),
    ],
)
def test_an_empty_cell_beside_labels_with_a_separator(tmp_path, labels, separator):
    """The message proposes the separator, with which an empty cell is a row without labels."""
    path = write(tmp_path / "x.csv", rows(labels))
    hint = f" (for several labels in a row: --label_separator '{separator}')" if separator else ""
    message = f"x.csv:4: an empty cell in column 'label'{hint}. Fix the row, or add --skip_bad_rows"
    with pytest.raises(UserError, match=re.escape(message)):
        read(path)
    if separator:
        assert len(read(path, label_type="multi", label_separator=separator).examples["train"]) == 3
        with pytest.raises(UserError, match="in column 'label'. Fix"):
            read(path, label_type="class")


@pytest.mark.parametrize(("separator", "noted"), [(",", True), (";", False)])
def test_a_separator_that_fewer_cells_contain_than_another_is_noted(tmp_path, separator, noted):
    path = write(tmp_path / "x.csv", rows(["a;b", "billing, refund;a", "a"]))
    notes = "\n".join(read(path, label_type="multi", label_separator=separator).notes)
    words = "2 cells of column 'label' of .*x.csv contain ';' and 1 contain ','. Check --label_separator"
    assert bool(re.search(words, notes)) == noted and "no cell of column" not in notes


def test_a_separator_that_no_cell_contains_is_noted(tmp_path):
    path = write(tmp_path / "x.csv", rows(["a;b", "b", "a"]))
    for separator, noted in ((";", False), ("|", True)):
        notes = "\n".join(read(path, label_type="multi", label_separator=separator).notes)
        assert ("no cell of column 'label'" in notes) == noted
    texts = write(tmp_path / "texts.csv", [{"text": "w"}])  # to predict: nothing reads labels
    data = read(None, None, texts, label_type="multi", label_separator="|", known_labels=("a", "b"))
    assert not any("no cell of column" in note for note in data.notes)


@pytest.mark.parametrize(("separator", "noted"), [(";", False), ("|", False), (",", True)])
def test_the_note_on_a_separator_with_rows_that_are_left_out(tmp_path, separator, noted):
    """Cells of rows without a text count, because they are in the file. A row of another width has no cell."""
    path = tmp_path / "x.tsv"
    path.write_text("text\tlabel\nw1\ta;b\nw2\tb\nw3\ta\n\ta|b\nw4\ta,b\tw5\n")
    data = read(path, label_type="multi", label_separator=separator, skip_bad_rows=True)
    assert any("no cell of column 'label'" in note for note in data.notes) == noted
    assert "2 malformed rows of train left out: lines 5, 6" in data.notes and len(data.examples["train"]) == 3


def test_one_label_alone_is_refused(tmp_path):
    with pytest.raises(UserError, match="only one class, 'a'"):
        read(write(tmp_path / "x.jsonl", rows([["a"], []])))
    with pytest.raises(UserError, match="no label in column 'label'"):
        read(write(tmp_path / "x.jsonl", rows([[], []])))


def test_held_out_rows_are_drawn_from_all_rows(tmp_path):
    path = write(tmp_path / "x.jsonl", rows(LABELS * 5))
    data = read(path, None, hold_out=0.25)
    assert len(data.examples["train"]) == 15


# ---- losses
def test_loss_is_the_librarys():
    sizes = {
        "vocab_size": 8,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    config = BertConfig(**sizes, num_labels=3, problem_type="multi_label_classification")
    model = BertForSequenceClassification(config).eval()
    ids, labels = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 0, 1], [0, 0, 0]])
    output = model(ids, labels=labels.float())
    assert torch.allclose(KIND.loss(output.logits, labels.to(torch.int8)), output.loss, rtol=1e-6)
    assert type(kind_of(model.config)) is LabelSets


def test_loss_of_each_row_by_hand():
    logits, labels = torch.tensor([[0.0, 0.0, 0.0], [np.log(3.0), 0.0, 0.0]]), torch.tensor([[1, 0, 1], [0, 0, 0]])
    expected = [np.log(2), (np.log(4) + 2 * np.log(2)) / 3]
    assert KIND.losses(logits, labels).tolist() == pytest.approx(expected)
    assert float(KIND.loss(logits, labels)) == pytest.approx(np.mean(expected))


def test_divergence_is_that_of_two_outcomes_for_each_label():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 3, generator=generator) * 3 for _ in range(2))
    p, q = (torch.stack([(x / 2).sigmoid(), (-x / 2).sigmoid()], -1) for x in (teacher, student))
    expected = kl_div(q.log(), p, reduction="none").sum(-1).mean(-1)
    assert torch.allclose(KIND.divergences(student, teacher, 2.0), expected, atol=1e-6)
    assert torch.allclose(KIND.distillation_loss(student, teacher, 2.0), 4 * expected.mean(), atol=1e-6)
    assert KIND.divergences(teacher, teacher).abs().max() < 1e-7


def test_balanced_weights_count_rows_with_and_without_the_label():
    weights = KIND.balanced_weights(np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]], np.int8))
    assert weights.tolist() == pytest.approx([3.0, 1 / 3, 1.0]) and weights.dtype == np.float32
    logits, labels = torch.zeros(1, 3), torch.tensor([[1, 0, 0]])
    loss = KIND.loss(logits, labels, class_weights=torch.from_numpy(weights))
    assert float(loss) == pytest.approx((3 + 1 + 1) / 3 * np.log(2))


# ---- decisions and metrics
def test_a_label_is_predicted_above_one_half():
    logits = np.array([[0.0, 1e-3, -1e-3], [1000.0, -1000.0, np.log(3.0)]], np.float32)
    assert KIND.decide(logits).tolist() == [[0, 1, 0], [1, 0, 1]]
    first, second = KIND.confidence(logits)
    assert first == pytest.approx([0.50025], abs=1e-6) and second == pytest.approx([1.0, 0.75])
    assert KIND.predicted(KIND.decide(logits)) == [("b",), ("a", "c")]


def test_metrics_by_hand_and_by_scikit_learn():
    labels, predictions = np.array(IDS, np.int8), np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]], np.int8)
    measured = KIND.measure(("f1_micro", "f1_macro", "exact_match"), predictions, labels)
    assert measured == pytest.approx({"f1_micro": 6 / 8, "f1_macro": (2 / 3 + 1 + 2 / 3) / 3, "exact_match": 0.5})
    assert measured["f1_macro"] == pytest.approx(f1_score(labels, predictions, average="macro"))
    assert measured["exact_match"] == accuracy_score(labels, predictions)
    assert KIND.f1_by_class(predictions, labels) == pytest.approx({"a": 2 / 3, "b": 1.0, "c": 2 / 3})
    assert KIND.correct(predictions, labels).tolist() == [True, False, False, True]
    assert KIND.n_distinct(predictions) == 3


def test_nothing_predicted_and_nothing_there():
    empty = np.zeros((2, 3), np.int8)
    assert KIND.measure(("f1_micro", "f1_macro", "exact_match"), empty, empty) == {
        "f1_micro": 0.0, "f1_macro": 0.0, "exact_match": 1.0,
    }  # fmt: skip


def test_shown_and_read():
    kind, labels = LabelSets(('a "b"', "c, d", "é")), np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]], np.int8)
    assert kind.shown(labels) == ['["a \\"b\\"", "c, d"]', "[]", '["é"]']
    assert np.array_equal(kind.read(kind.shown(labels)), labels)
    for text in ("a", '["x"]', ""):
        with pytest.raises(ValueError, match="is not a list of labels of the task"):
            kind.read([text])


def test_another_order_of_the_labels():
    labels, ids = np.array(IDS, np.int8), np.array([2, 0, 1])
    renumbered = KIND.renumbered(labels, ids)
    assert renumbered[:, 2].tolist() == labels[:, 0].tolist() and renumbered[:, 0].tolist() == labels[:, 1].tolist()
    assert np.array_equal(KIND.renumbered(renumbered, np.argsort(ids)), labels)


def test_probes_of_each_label():
    x = np.array([[0.0, 1.0], [0.0, 0.9], [1.0, 0.0], [0.9, 0.1]])
    y = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
    with pytest.warns(UserWarning, match="Label not 2"):
        probe = KIND.linear_model(1e3, 500).fit(x, y)
    assert probe.predict(x).tolist() == y.tolist()


def test_kinds_of_configurations():
    for words, kind in (
        ({"problem_type": "multi_label_classification", "num_labels": 1}, LabelSets),
        ({"num_labels": 1}, Values),
        ({"num_labels": 3}, Classes),
    ):
        assert type(kind_of(BertConfig(**words))) is kind


@pytest.mark.parametrize(
    ("name", "cells", "n"),
    [
        ("x.jsonl", [[1, 0, 0], [0, 1, 1]], 3),
        ("x.jsonl", [[True, False], [False, True]], 2),
        ("x.csv", ["[1, 0]", "[0, 1]"], 2),
        ("x.parquet", [[0, 0, 0, 1], [0, 0, 1, 0]], 4),
    ],
)
def test_labels_by_position_are_refused(tmp_path, name, cells, n):
    """Also in a validation file: 0 and 1 could be ids of the model's classes."""
    path = column(tmp_path / name, cells)
    message = f"{name}: column 'label' has lists of {n} marks .0 or 1, true or false.. Write the names"
    for files, how in (((path,), {}), ((path,), {"label_type": "multi"}), ((None, path), {"label_type": "multi"})):
        with pytest.raises(UserError, match=message):
            read(*files, known_labels=("a", "b"), **how)


@pytest.mark.parametrize("cells", [[["0", "1"]] * 4, [[1], [0], [1, 0]], [[1, 2], [2, 1]]])
def test_ids_of_classes_are_labels(tmp_path, cells):
    assert len(read(column(tmp_path / "x.jsonl", cells)).task.labels) == 2


def test_positions_as_decimals_are_refused_with_advice(tmp_path):
    path = column(tmp_path / "x.jsonl", [[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(UserError, match=r"contains 1.0, which is not a word \(write the names of the classes\)"):
        read(path)


def test_a_long_text_in_a_bracket_is_no_array(tmp_path):
    """A pattern that backtracks would take years."""
    label = "[" + "10 " * 60
    assert read(column(tmp_path / "x.csv", [f"{label}and more", f"{label}x]"] * 2)).task.labels


@pytest.mark.parametrize("label", ["[0 1 0]", "[0. 1. 0.]", "[ 12  -3 ]"])
def test_arrays_of_numpy_are_no_classes(tmp_path, label):
    path = column(tmp_path / "x.csv", [label, label.replace("1", "7")] * 2)
    with pytest.raises(UserError, match=r"x.csv:2: .* is not a list in the notation of JSON"):
        read(path)


@pytest.mark.parametrize("label", ["[2020-01-01]", "[a 1]", "[1.2.3]"])
def test_other_words_in_brackets_are_classes(tmp_path, label):
    assert read(column(tmp_path / "x.csv", [label, "b"])).task.labels == (label, "b")
