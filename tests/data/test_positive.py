"""The positive class of own files with two classes: which one it is, and that every later run uses the same one."""

import json
from pathlib import Path

import numpy as np
import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.cli.parsing import parse
from layerdrop.data import metrics
from layerdrop.data.columns import positive_class
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import TASKS, custom_task
from layerdrop.errors import UserError
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.summary import summary
from tests.data.test_own_files import column, read
from tests.running import read_record


@pytest.mark.parametrize(
    ("names", "counts", "expected"),
    [
        (("0", "1"), {"0": 1, "1": 9}, "1"),
        (("-1", "1"), None, "1"),
        (("False", "True"), None, "True"),
        (("NEGATIVE", "POSITIVE"), None, "POSITIVE"),
        (("POS", "NEG"), None, "POS"),
        (("no", "yes"), {"no": 1, "yes": 9}, "yes"),
        (("fraud", "not_fraud"), {"fraud": 9, "not_fraud": 1}, "fraud"),
        (("non-toxic", "toxic"), {"non-toxic": 1, "toxic": 9}, "toxic"),
        (("fraud", "ok"), {"fraud": 2, "ok": 8}, "fraud"),
        (("ham", "spam"), {"ham": 8, "spam": 2}, "spam"),
        (("1", "2"), {"1": 8, "2": 2}, "2"),
        (("a", "b"), {"a": 5, "b": 5}, "b"),
        (("a", "b"), None, "b"),
    ],
)
def test_the_positive_class(names, counts, expected):
    assert positive_class(names, counts)[0] == expected


def test_f1_is_that_of_the_positive_class():
    predicted, labels = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 1, 0, 1, 1, 1])
    task = custom_task("x", ("text",), "label", ("fraud", "ok"), positive=0)
    found = metrics.compute(task.metrics, predicted, labels, task.positive)
    assert found["f1"] == pytest.approx(1 / 2) and task.positive_label == "fraud"
    assert found["f1_macro"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert metrics.f1_by_class(predicted, labels, 3) == pytest.approx([1 / 2, 3 / 4, 0])
    assert metrics.f1(np.array([1, 1]), np.array([1, 1]), positive=0) == 0
    assert TASKS["mrpc"].positive_label == "equivalent" and TASKS["sst2"].positive_label is None
    assert custom_task("x", (), "", ("a", "b", "c")).positive_label is None


def test_of_own_files(tmp_path):
    path = column(tmp_path / "x.csv", ["ok", "fraud", "ok", "ok"])
    data = read(path, path)
    assert data.task.positive_label == "fraud"
    assert any(note.startswith("f1 measures class 'fraud' (the rarer class in training") for note in data.notes)
    data = read(path, path, positive_label="ok")
    assert data.task.positive_label == "ok" and not any("f1" in note for note in data.notes)
    mostly_fraud = column(tmp_path / "y.csv", ["ok", "fraud", "fraud", "fraud"])
    assert read(path, mostly_fraud).task.positive_label == "fraud"  # validation and test sets do not decide
    assert read(None, path, known_labels=("fraud", "ok"), known_positive="fraud").task.positive_label == "fraud"
    assert read(None, path, known_labels=("fraud", "ok")).task.positive_label == "ok"
    assert read(mostly_fraud, known_labels=("fraud", "ok"), known_positive="fraud").task.positive_label == "ok"


@pytest.mark.parametrize(
    ("labels", "name", "message"),
    [
        (["a", "b"], "c", "--positive_label: unknown value 'c'.* Allowed: a, b"),
        (["a", "b", "c"], "a", "--positive_label a: needs two classes, and the labels of .*x.csv are 3 classes"),
        (["0.5", "1.5"], "1.5", "--positive_label 1.5: needs two classes, and the labels of .*x.csv are numbers"),
    ],
)
def test_a_positive_label_that_cannot_be(tmp_path, labels, name, message):
    with pytest.raises(UserError, match=message):
        read(column(tmp_path / "x.csv", labels), positive_label=name)


def test_flag_and_identity():
    own = ["--train_file", "a.csv", "--validation_file", "b.csv"]
    plain, named = (parse(words).to_spec()[0] for words in (own, [*own, "--positive_label", "spam"]))
    assert named.data.positive_label == "spam" and plain.data.positive_label is None and named.id != plain.id
    assert "positive_label" not in json.dumps(plain.flat()["files"]) and named.flat()["positive_label"] == "spam"
    with pytest.raises(UserError, match="--positive_label spam: the positive class of rte is fixed"):
        parse([*own, "--task_name", "rte", "--positive_label", "spam"])
    assert "--positive_label has no effect without own files or a dataset" in parse(["--positive_label", "x"]).notes


def test_a_record_says_it():
    record = RunRecord(RunSpec(ModelSpec("m"), DataSpec("x", "files", (("train", "x.csv"),))), "f", "success")
    record.labels, record.metrics, record.positive_label = ["fraud", "ok"], {"f1": 0.5, "f1_macro": 0.25}, "fraud"
    record.class_f1 = {"validation": {"fraud": 0.5, "ok": 0.0}}
    again = RunRecord.from_dict(json.loads(json.dumps(record.to_dict())))
    assert again.task.positive_label == "fraud" and again.class_f1 == record.class_f1
    assert "f1 (fraud) 0.5000  f1_macro 0.2500" in summary(again)
    old = {name: value for name, value in record.to_dict().items() if name not in ("positive_label", "class_f1")}
    assert RunRecord.from_dict(old).task.positive_label == "ok"  # as it was measured then


def test_later_runs_of_a_trained_model_use_the_same_class(run, tmp_path):
    """Also where the validation set would say otherwise; after `after`, whose own run does not train."""
    train = column(tmp_path / "train.csv", ["fraud", "ok", "ok", "ok"] * 4)
    dev = column(tmp_path / "dev.csv", ["fraud", "fraud", "fraud", "ok"] * 2)
    words = f"--train_file {train} --validation_file {dev} --max_steps 1"
    code, record, out, err = run(words, data=None, output="a")
    assert code == 0 and record["positive_label"] == "fraud" and "f1 (fraud)" in out and "'fraud'" in err
    truth = [line.split("\t")[1:] for line in Path("a/predictions_dev.tsv").read_text().splitlines()[1:]]
    hits = sum(a == b == "fraud" for a, b in truth)
    expected = 2 * hits / max(1, sum((a == "fraud") + (b == "fraud") for a, b in truth))
    assert record["metrics"]["f1"] == record["class_f1"]["validation"]["fraud"] == pytest.approx(expected)
    assert set(record["class_f1"]["validation"]) == {"fraud", "ok"}
    assert run(f"--validation_file {dev} --do_eval", model="a", data=None, output="b")[0] == 0
    later = read_record("b")
    assert later["positive_label"] == "fraud" and later["metrics"]["f1"] == record["metrics"]["f1"]
    only_ok = column(tmp_path / "only.csv", ["ok", "ok"])
    words = f"--train_file {train} --validation_file {only_ok} --max_steps 1 --drop_when after"
    code, record, _, err = run(f"{words} --drop_strategy top --drop_k 2", data=None, output="c")
    assert code == 0 and record["positive_label"] == "fraud" and record["labels"] == ["fraud", "ok"], err
