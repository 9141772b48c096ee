from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from layerdrop.data import glue as glue_files
from layerdrop.data import read
from layerdrop.data.examples import Examples, UnknownLabel, as_number, shortened
from layerdrop.data.glue import read_glue_split
from layerdrop.data.read import read_splits, row_fingerprints
from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import DEMO_TASKS, TASKS
from layerdrop.errors import UserError
from tests import tiny


# ---- the classical GLUE layout
@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_in_the_classical_layout(glue, name):
    task = TASKS[name]
    data = read_splits(DataSpec(name, glue), ["train", "validation", "test"])
    splits = data.examples
    assert data.task is task and list(splits) == ["train", *task.splits("validation"), *task.splits("test")]
    train, dev, test = splits["train"], splits[task.splits("validation")[0]], splits[task.splits("test")[0]]
    assert (len(train), len(dev), len(test)) == (24, 12, 12) and data.notes == []
    assert len(train.texts) == len(task.texts) and all(text.startswith("w") for text in train.texts[0])
    assert test.labels is None and test.index == [str(i) for i in range(12)]
    if not task.labels:
        assert train.labels.dtype == np.float32 and train.labels[:7].tolist() == [0, 1, 2, 3, 4, 5, 0]
    else:
        n = len(task.words)
        assert train.labels.dtype == np.int64 and train.labels.tolist() == [i % n for i in range(24)]


def test_mnlis_validation_sets_differ(glue):
    matched, mismatched = (
        read_glue_split(glue, TASKS["mnli"], f"validation_{kind}") for kind in ("matched", "mismatched")
    )
    assert matched.texts != mismatched.texts and matched.fingerprint() != mismatched.fingerprint()


def test_the_tasks_folder_itself_can_be_given(glue):
    task = TASKS["rte"]
    assert (
        read_glue_split(glue + "/RTE", task, "train").fingerprint()
        == read_glue_split(glue, task, "train").fingerprint()
    )


def test_only_what_is_needed_must_exist(tmp_path):
    tiny.glue(tmp_path, "mnli")
    for name in ("train", "dev_mismatched", "test_matched"):
        (tmp_path / "MNLI" / f"{name}.tsv").unlink()
    assert len(read_glue_split(str(tmp_path), TASKS["mnli"], "validation_matched")) == 12
    with pytest.raises(UserError, match=r"cannot read .*dev_mismatched.tsv"):
        read_glue_split(str(tmp_path), TASKS["mnli"], "validation_mismatched")


def test_no_such_folder():
    with pytest.raises(UserError, match="--data_dir nowhere: no such folder. Expected for rte: RTE/train.tsv"):
        read_glue_split("nowhere", TASKS["rte"], "train")


def rte(tmp_path, *lines: str) -> str:
    (tmp_path / "RTE").mkdir(exist_ok=True)
    text = "".join(line + "\n" for line in ("index\tsentence1\tsentence2\tlabel", *lines))
    (tmp_path / "RTE" / "train.tsv").write_text(text, encoding="utf-8")
    return str(tmp_path)


GOOD = "0\ta\tb\tentailment"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1\ta\tb", "3 columns instead of 4"),
        ("1\ta\tb\tentailment\textra", "5 columns instead of 4"),
        ("1\ta\tb\tmaybe", "label 'maybe' is none of entailment, not_entailment"),
    ],
)
def test_malformed_row(tmp_path, bad, message):
    folder = rte(tmp_path, GOOD, bad, GOOD)
    with pytest.raises(UserError, match=rf"train.tsv:3: {message}. .*--skip_bad_rows"):
        read_glue_split(folder, TASKS["rte"], "train")
    data = read_splits(DataSpec("rte", folder, skip_bad_rows=True), ["train"])
    examples = data.examples["train"]
    assert (len(examples), examples.bad_rows, examples.bad_lines) == (2, 1, (3,))
    assert data.notes == ["1 malformed row of train left out: line 3"]


def test_the_note_on_many_malformed_rows_is_short(tmp_path):
    folder = rte(tmp_path, GOOD, *["bad"] * 8, GOOD)
    data = read_splits(DataSpec("rte", folder, skip_bad_rows=True, max_train_samples=1), ["train"])
    assert data.notes == ["8 malformed rows of train left out: lines 3, 4, 5, 6, 7 and 3 more"]
    assert data.examples["train"].bad_rows == 8 and len(data.examples["train"]) == 1


def test_quotes_and_odd_line_ends_are_text(tmp_path):
    folder = rte(tmp_path, '0\tsaid " so\tb\u2028c\u0085d\x0ce\tentailment\r')
    examples = read_glue_split(folder, TASKS["rte"], "train")
    assert examples.texts == (['said " so'], ["b\u2028c\u0085d\x0ce"])


def test_missing_column_and_no_rows(tmp_path):
    (tmp_path / "RTE").mkdir()
    path = tmp_path / "RTE" / "train.tsv"
    path.write_text("index\tsentence1\tlabel\n0\ta\tentailment\n")
    with pytest.raises(UserError, match=r"train.tsv:1: no column sentence2; found: index, sentence1, label"):
        read_glue_split(str(tmp_path), TASKS["rte"], "train")
    rte(tmp_path)
    with pytest.raises(UserError, match="no usable row"):
        read_glue_split(str(tmp_path), TASKS["rte"], "train")
    path.write_bytes(b"index\tsentence1\tsentence2\tlabel\n0\t\xff\xfe\tb\tentailment\n")
    with pytest.raises(
        UserError,
        match="train.tsv: not UTF-8 text .invalid start byte.. Convert the file: iconv -f .* UTF-8 .*train.tsv$",
    ):
        read_glue_split(str(tmp_path), TASKS["rte"], "train")


@pytest.mark.parametrize("value", ["five", "nan", "inf", "", "1_0"])
def test_regression_label_that_is_no_number(tmp_path, value):
    tiny.glue(tmp_path, "stsb")
    path = tmp_path / "STS-B" / "train.tsv"
    path.write_text(path.read_text().replace("\t3.000\n", f"\t{value}\n", 1))
    with pytest.raises(UserError, match=rf"train.tsv:5: label '{value}' of column 'score' is not a number. Fix"):
        read_glue_split(str(tmp_path), TASKS["stsb"], "train")


# ---- what any source has in common
def test_first_rows(glue):
    spec = DataSpec("mnli", glue, max_train_samples=7, max_eval_samples=5)
    data = read_splits(spec, ["train", "validation", "test"], max_predict_samples=3)
    whole = read_splits(DataSpec("mnli", glue), ["train"]).examples["train"]
    assert [len(rows) for rows in data.examples.values()] == [7, 5, 5, 3, 3]
    assert data.examples["train"].texts[0] == whole.texts[0][:7]
    assert data.examples["train"].labels.tolist() == whole.labels[:7].tolist()


def test_the_same_rows_for_training_and_validation_are_noted(tmp_path):
    folder = tiny.glue(tmp_path, "rte")
    (folder / "RTE" / "dev.tsv").write_bytes((folder / "RTE" / "train.tsv").read_bytes())
    spec = DataSpec("rte", str(folder), max_train_samples=4, max_eval_samples=6)
    (note,) = read_splits(spec, ["train", "validation"]).notes
    assert note == "validation contains the same rows as train: its scores do not measure generalization"
    assert read_splits(spec, ["validation"]).notes == []


@pytest.mark.parametrize("name", list(DEMO_TASKS))
def test_demo(name):
    data = read_splits(DataSpec(name, "demo"), ["validation", "test"])
    assert [len(rows) for rows in data.examples.values()] == [500, 200] and data.task is DEMO_TASKS[name]
    assert data.examples["test"].labels is None and data.examples["validation"].labels is not None


# ---- GLUE's diagnostic set
AX = 'index\tsentence1\tsentence2\n0\tThe cat sat.\tA cat sat.\n1\ta "b\tc\n'


@pytest.mark.parametrize("place", ["MNLI/diagnostic.tsv", "AX/AX.tsv", "diagnostic/diagnostic.tsv"])
def test_the_diagnostic_set_goes_with_mnlis_test_sets(tmp_path, place):
    folder = tiny.glue(tmp_path, "mnli")
    spec = DataSpec("mnli", str(folder))
    assert list(read_splits(spec, ["test"]).examples) == ["test_matched", "test_mismatched"]
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text(AX)
    data = read_splits(spec, ["test"], max_predict_samples=1)
    assert list(data.examples) == ["test_matched", "test_mismatched", "test_ax"] and data.notes == []
    assert data.examples["test_ax"].texts == (["The cat sat."], ["A cat sat."])
    rows = read_splits(spec, ["test"]).examples["test_ax"]
    assert rows.labels is None and rows.index == ["0", "1"] and rows.texts[0][1] == 'a "b'
    assert list(read_splits(spec, ["validation"]).examples) == ["validation_matched", "validation_mismatched"]


def test_the_diagnostic_set_in_mnlis_own_folder(tmp_path):
    folder = tiny.glue(tmp_path, "mnli") / "MNLI"
    (folder / "diagnostic.tsv").write_text(AX)
    assert len(read_splits(DataSpec("mnli", str(folder)), ["test"]).examples["test_ax"]) == 2


def test_no_other_task_has_the_diagnostic_set(tmp_path):
    folder = tiny.glue(tmp_path, "rte")
    (folder / "AX").mkdir()
    (folder / "AX" / "AX.tsv").write_text(AX)
    assert list(read_splits(DataSpec("rte", str(folder)), ["test"]).examples) == ["test"]


# ---- fingerprints of rows
@pytest.fixture
def reads(monkeypatch):
    """Files that are read from now on."""
    files, whole = [], glue_files.read_glue_tsv
    monkeypatch.setattr(
        "layerdrop.data.glue.read_glue_tsv", lambda path, *a: files.append(path.name) or whole(path, *a)
    )
    monkeypatch.setattr(read, "_fingerprints", {})
    return files


def fingerprints(data):
    return {split: [len(rows), rows.fingerprint()] for split, rows in data.examples.items()}


def test_rows_are_read_once_for_their_fingerprints(tmp_path, reads):
    spec = DataSpec("rte", str(tiny.glue(tmp_path, "rte")), max_eval_samples=5)
    assert row_fingerprints(spec, ["train", "validation"]) == fingerprints(read_splits(spec, ["train", "validation"]))
    before = len(reads)
    assert row_fingerprints(spec, ["validation"])["validation"][0] == 5 and len(reads) == before
    assert set(row_fingerprints(spec, ["train", "test"])) == {"train", "test"} and reads[before:] == [
        "train.tsv",
        "test.tsv",
    ]
    assert row_fingerprints(replace(spec, max_eval_samples=6), ["validation"])["validation"][0] == 6
    assert [row_fingerprints(spec, ["test"], max_predict_samples=n)["test"][0] for n in (2, 3, None)] == [2, 3, 12]


@pytest.mark.parametrize("source", ["glue", "files"])
def test_changed_files_have_other_fingerprints(tmp_path, source):
    path = tiny.glue(tmp_path, "rte") / "RTE" / "dev.tsv"
    spec = DataSpec("rte", str(tmp_path))
    if source == "files":
        spec = DataSpec("x", "files", (("validation", str(path)),), text_columns=("sentence1",))
    first = row_fingerprints(spec, ["validation"])
    assert row_fingerprints(spec, ["validation"]) == first == fingerprints(read_splits(spec, ["validation"]))
    path.write_text(path.read_text().replace("\tw", "\tv"))
    changed = row_fingerprints(spec, ["validation"])
    assert changed != first and changed == fingerprints(read_splits(spec, ["validation"]))


def test_the_head_and_the_training_file_count_for_own_files(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\nw w,a\nv v,b\n")
    spec = DataSpec("x", "files", (("train", str(path)), ("validation", str(path))))
    rows = [
        row_fingerprints(spec, splits, SimpleNamespace(label_names=labels, has_classifier=False, positive_label=None))[
            "validation"
        ][1]
        for splits, labels in (
            (["validation"], ("a", "b")),
            (["validation"], ("b", "a")),
            (["train", "validation"], ("b", "a")),
        )
    ]
    assert rows[0] == rows[2] != rows[1]


def test_rows_of_the_hub_are_known_once_they_were_read(hub):
    assert row_fingerprints(DataSpec("rte"), ["train", "validation"]) == {} and not hub[0]
    data = read_splits(DataSpec("rte"), ["train", "validation"])
    assert row_fingerprints(DataSpec("rte"), ["train", "validation"]) == fingerprints(data)


# ---- the hub
@pytest.fixture
def hub(monkeypatch):
    """The configurations and splits that were asked for. The hub has three rows of each that is in `labels`."""
    import datasets

    asked, labels = [], {"rte": 1, "stsb": 2.5, "mnli": 2, "ax": -1}

    def load_dataset(path, config, split, **kwargs):
        asked.append((path, config, split))
        if config not in labels:
            raise ConnectionError("no hub")
        columns = TASKS["mnli" if config == "ax" else config].hub_texts
        texts = {column: [f"{column} {i}" for i in range(3)] for column in columns}
        return datasets.Dataset.from_dict({**texts, "label": [labels[config]] * 3, "idx": [4, 5, 6]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(read, "_fingerprints", {})  # the process remembers the rows of the hub
    return asked, labels


@pytest.mark.parametrize(("name", "label"), [("rte", 1), ("stsb", 2.5), ("mnli", 2)])
def test_hub_columns(hub, name, label):
    task = TASKS[name]
    splits = read_splits(DataSpec(name), ["validation", "test"]).examples
    dev, test = splits[task.splits("validation")[0]], splits[task.splits("test")[0]]
    assert hub[0][0] == ("nyu-mll/glue", name, task.splits("validation")[0])
    assert dev.labels.tolist() == [label] * 3 and test.labels is None and dev.index == ["4", "5", "6"]
    assert dev.texts[1][2] == f"{task.hub_texts[1]} 2" and ("test_ax" in splits) == (name == "mnli")


def test_the_diagnostic_set_of_the_hub(hub):
    asked, labels = hub
    data = read_splits(DataSpec("mnli"), ["test"])
    assert asked[-1] == ("nyu-mll/glue", "ax", "test") and data.notes == []
    assert data.examples["test_ax"].labels is None and data.examples["test_ax"].texts[0][0] == "premise 0"
    del labels["ax"]
    data = read_splits(DataSpec("mnli"), ["test"])
    assert "test_ax" not in data.examples and "diagnostic set" in data.notes[0]


def test_no_hub_for_the_data():
    with pytest.raises(
        UserError, match=r"cannot get nyu-mll/glue \(rte, train\) .* Without a hub: --data_dir"
    ) as error:
        read_splits(DataSpec("rte"), ["train"])
    assert len(str(error.value).splitlines()) == 1


# ---- small things
def test_head_and_fingerprint():
    def rows(label=0):
        return Examples((["a", "b"], ["c", "d"]), np.array([label, 1]), ["0", "1"], (7,))

    assert len(rows().head(1)) == 1 and len(rows().head(None)) == 2 and rows().head(1).bad_lines == (7,)
    assert rows().fingerprint() == rows().fingerprint() != rows(label=1).fingerprint()
    assert rows().fingerprint() != Examples((["a", "b", "c", "d"],), rows().labels, ["0", "1"]).fingerprint()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1.0), ("-2.5", -2.5), ("1e3", 1000.0), ("²", None), ("--1", None), ("nan", None), ("inf", None),
     ("1_000", None), ("n/a", None), ("", None)],
)  # fmt: skip
def test_numbers(text, value):
    assert as_number(text) == value


def test_long_lists_are_shortened():
    names = [f"label{i}" for i in range(79)]
    assert shortened(names[:5]) == "label0, label1, label2, label3, label4"
    assert shortened(names[:6]) == "label0, label1, label2, label3, label4 and 1 more"
    message = str(UnknownLabel("lable50", names))
    assert message == "label 'lable50' is none of label50, label0, label1, label2, label3 and 74 more"
