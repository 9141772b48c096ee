"""Cells of own files that are no text or no label: lists, bytes, missing values, numbers of another spelling."""

import json
import re

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from layerdrop.data.readers import read_table
from layerdrop.errors import UserError
from tests.data.test_own_files import column, read, write


# ---- the file
@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_is_read(tmp_path, indent):
    rows = [{"text": f"w{i} w", "label": i % 2} for i in range(3)]
    (tmp_path / "x.json").write_text(json.dumps(rows, indent=indent))
    assert read(str(tmp_path / "x.json")).examples["train"].labels.tolist() == [0, 1, 0]
    (tmp_path / "x.json").write_text(json.dumps([*rows, 7, {"label": 1}], indent=indent))
    examples = read(str(tmp_path / "x.json"), skip_bad_rows=True).examples["train"]
    assert examples.bad_lines == (4, 5) and len(examples) == 3


frame = pandas.DataFrame({"text": ["a b", "c"], "label": [0, 1]})
ORIENTS = dict.fromkeys(("columns", "split", "index", "table"), "object holds all rows")
ORIENTS["values"] = "array holds lists"
ONE_ROW = r"Write one object for each row, each on one line \(pandas: orient='records', lines=True\)"
OBJECTS = [json.dumps(row) for row in frame.to_dict("records")]
SERIES = [" ".join(OBJECTS), ",\n".join(OBJECTS), ",\n".join([*OBJECTS, ""]), "\n".join(OBJECTS).replace("{", "{\n")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"text": "a", "label": 1},\n{"text": "b"', "x.json: its JSON array cannot be read .* at line 3"),
        ('{\n"version": 1,\n"data": []\n}', "x.json: its JSON object spans several lines. Write one object for each"),
        ("[]", "x.json: no usable row"),
        ("", "x.json: no usable row"),
        *((frame.to_json(orient=orient), f"x.json: its JSON {what}. {ONE_ROW}") for orient, what in ORIENTS.items()),
        *(
            (json.dumps(table), f"x.json: its JSON object holds all rows. {ONE_ROW}")
            for table in (frame.to_dict("list"), {"data": frame.to_dict("records")})
        ),
        *((text, f"x.json: its JSON objects are not on one line each. {ONE_ROW}") for text in SERIES),
    ],
)
def test_other_json_is_refused_with_its_shape(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read(str(tmp_path / "x.json"), skip_bad_rows=True)


@pytest.mark.parametrize(
    "row",
    [
        '{"tokens": ["New York", "v"], "ner_tags": ["O", "O"]}',
        '{"text": "w w", "label": ["a", "b"], "data": [[1]]}',
        '{"words": ["w"], "data": [1]}',
    ],
)
def test_one_row_may_have_lists(tmp_path, row):
    (tmp_path / "x.json").write_text(row + "\n")
    assert read_table("--test_file", str(tmp_path / "x.json")).rows == {1: json.loads(row)}


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_cell_may_be_longer_than_the_csv_modules_limit(tmp_path, kind):
    separator = {"csv": ",", "tsv": "\t"}[kind]
    lines = ["text,label", f"{'word ' * 30_000},a", "w,b"]
    (tmp_path / f"x.{kind}").write_text("".join(line.replace(",", separator) + "\n" for line in lines))
    assert len(read(str(tmp_path / f"x.{kind}")).examples["train"].texts[0][0]) == 150_000


def test_columns_without_a_name(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("v1,v2,,, \na,w w,,,\nb,v v,,,\n")
    assert read_table("--train_file", str(path)).columns == ("v1", "v2")
    path.write_text("v1,v2,,\na,w w,,\nb,v v,more,\n")  # one holds something: pandas' name
    assert read_table("--train_file", str(path)).columns == ("v1", "v2", "Unnamed: 2")
    assert read(str(path), text_columns=("v2",), label_column="v1").task.labels == ("a", "b")
    path.write_text(",text,label\n0,w w,a\n1,v v,b\n")  # pandas' index
    assert read(str(path)).task.texts == ("text",)
    path.write_text(",text,label,\n1,w w,a,\n2,v v,b,\n")
    assert read_table("--train_file", str(path)).columns == ("Unnamed: 0", "text", "label")


def test_a_repeated_header_is_no_row(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\nw,a\nv,b\ntext,label\nw,a\n")
    for header in ("text,label", "Text, LABEL", "\ufefftext,label", '\ufeff"text","label"'):
        path.write_text(f"\ufefftext,label\nw,a\nv,b\n{header}\nw,a\n", encoding="utf-8")
        with pytest.raises(UserError, match="x.csv:4: a repeated header line"):
            read(str(path))
        assert read(str(path), skip_bad_rows=True).task.labels == ("a", "b")
    path.write_text("text\ntext\nw w\n")  # with one column it may be a text
    assert len(read(None, None, str(path), known_labels=("a", "b")).examples["test"]) == 2


# ---- the cells
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": ["w", "v"], "label": 0}, "column 'text' holds a list"),
        ({"text": "w w", "label": [1, 2]}, r"label \[1, 2\] of column 'label' is a list.*--label_type multi"),
        ({"text": "w w", "label": {"a": 1}}, "column 'label' holds an object"),
        ({"text": "w w", "label": float("nan")}, "an empty cell in column 'label'"),
        ({"text": float("nan"), "label": 0}, "an empty cell in column 'text'"),
    ],
)
def test_a_cell_that_is_no_text_is_malformed(tmp_path, row, message):
    good = [{"text": "w w", "label": i} for i in (0, 1)]
    path = write(tmp_path / "x.jsonl", [*good, row, good[0]])
    with pytest.raises(UserError, match=f"x.jsonl:3: {message}"):
        read(path)
    data = read(path, skip_bad_rows=True)
    assert data.task.labels == ("0", "1") and data.examples["train"].bad_lines == (3,)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_labels_that_are_all_objects_are_refused(tmp_path, kind):
    path = write(tmp_path / f"x.{kind}", [{"text": "w w", "label": {"a": 1}}] * 3)
    with pytest.raises(UserError, match=rf"x.{kind}:1: column 'label' holds an object"):
        read(path)
    with pytest.raises(UserError, match="label"):
        read(path, skip_bad_rows=True)


def test_nan_in_parquet_is_missing(tmp_path):
    path = write(tmp_path / "x.parquet", [{"text": "w w", "label": x} for x in (0.5, float("nan"), 1.5)])
    with pytest.raises(UserError, match="x.parquet:2: an empty cell in column 'label'"):
        read(path)


def test_bytes_are_decoded(tmp_path):
    cells = {"text": [b"w w", b"v v", "é e".encode()], "label": [b"pos", b"neg", b"pos"]}
    pq.write_table(pa.table({name: pa.array(of, pa.binary()) for name, of in cells.items()}), tmp_path / "x.parquet")
    data = read(str(tmp_path / "x.parquet"))
    assert data.task.labels == ("neg", "pos") and data.examples["train"].texts == (["w w", "v v", "é e"],)
    cells["text"][1] = b"\xff"
    pq.write_table(pa.table({name: pa.array(of, pa.binary()) for name, of in cells.items()}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="x.parquet:2: column 'text' holds bytes that are not UTF-8 text"):
        read(str(tmp_path / "x.parquet"), text_columns=("text",))


def test_classes_are_those_of_usable_rows(tmp_path):
    path = write(tmp_path / "x.csv", [{"text": t, "label": y} for t, y in (("w", "a"), ("v", "b"), ("", "c"))])
    data = read(path, skip_bad_rows=True, text_columns=("text",))
    assert data.task.labels == ("a", "b")


# ---- labels that are missing or spelt otherwise
@pytest.mark.parametrize("word", ["nan", "NaN", "<NA>"])
def test_the_word_nan_is_a_missing_label(tmp_path, word):
    path = column(tmp_path / "x.csv", ["pos", "neg", word, "pos"])
    with pytest.raises(UserError, match=f"x.csv:4: label '{word}' stands for a missing label .*--label_type class"):
        read(path)
    assert read(path, skip_bad_rows=True).task.labels == ("neg", "pos")
    assert read(path, label_type="class").task.labels == tuple(sorted(("neg", "pos", word)))
    assert read(None, path, known_labels=("neg", "pos", word)).examples["validation"].labels.tolist() == [1, 0, 2, 1]


def test_missing_labels_do_not_turn_numbers_into_classes(tmp_path):
    path = column(tmp_path / "x.csv", ["0.5", "1.5", "nan", "nan", "nan"])
    data = read(path, skip_bad_rows=True)
    assert not data.task.labels and len(data.examples["train"]) == 2


def test_a_column_of_numbers_with_gaps_is_no_text(tmp_path):
    assert read(column(tmp_path / "x.csv", ["a", "b", "a"], stars=["1", "nan", "nan"])).task.texts == ("text",)
    rows = [{"review": f"w{i} w", "stars": s, "label": "ab"[i % 2]} for i, s in enumerate(("1", "nan", "nan"))]
    assert read(write(tmp_path / "y.csv", rows)).task.texts == ("review",)


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (["0", "1", "2", "-1"], "-1"),
        (["neg", "pos", "None"], "None"),
        (["neg", "pos", "null", "neg"], "null"),
        (["neg", "pos", "?"], "?"),
        (["-1", "1"], None),
        (["-2", "-1", "0", "1"], None),
        (["neg", "pos"], None),
        (["0", "1", "-100"], "-100"),
        (["-100", "1", "2"], None),
        (["#tag", "#top"], None),
        (["+", "*"], None),
        *((["neg", "pos", word], word) for word in ("NaT", "#REF!", "#VALUE!", "#DIV/0!", "--", ".", "???", "Unknown")),
        *((["neg", "pos", word], word) for word in ("missing", "undefined", "unlabeled", "no label", "TBD", "#N/A")),
    ],
)
def test_classes_that_may_be_missing_labels_are_noted(tmp_path, labels, named):
    data = read(column(tmp_path / "x.csv", labels))
    notes = [note for note in data.notes if "missing" in note]
    assert set(data.task.labels) == set(labels)
    assert len(notes) == (named is not None) and (named is None or f"'{named}'" in notes[0])


@pytest.mark.parametrize(
    ("labels", "first"),
    [
        (["3,5", "4,0", "1,2"], "3,5"),
        (["35%", "12.5%", "8%"], "35%"),
        (["1,200.5", "3,400.1"], "1,200.5"),
        (["1_000", "2_500"], "1_000"),
        (["1.200,5", "3.400,1"], "1.200,5"),
        (["1", "2", "2,5"], "2,5"),
        (["$5", "€6"], "$5"),
        (["1\u202f000", "2\u00a0500", "2’000"], "1\u202f000"),
        (["1", "2", "−1"], "−1"),
        (["4/5", "3/5", "1 / 5"], "4/5"),
        (["１２", "１３"], "１２"),
        (["٢٫٥", "٣٫٥"], "٢٫٥"),
    ],
)
def test_numbers_of_another_spelling_are_refused(tmp_path, labels, first):
    path = column(tmp_path / "x.tsv", labels)
    message = re.escape(f"x.tsv:{labels.index(first) + 2}: label '{first}' of column 'label' is a number in another")
    with pytest.raises(UserError, match=f"{message}.*--label_type class"):
        read(path)
    assert len(read(path, label_type="class").task.labels) == len(labels)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["True", "true", "FALSE"], "'True' and 'true'"),
        (["Pos", "pos", "Neg", "neg"], "'Neg' and 'neg', 'Pos' and 'pos'"),
        (["1", "01", "2"], "'01' and '1'"),
        (["a", "b"], None),
    ],
)
def test_classes_that_differ_in_spelling_are_noted(tmp_path, labels, names):
    notes = [note for note in read(column(tmp_path / "x.csv", labels)).notes if "in spelling" in note]
    assert notes == (
        [f"classes of column 'label' differ only in spelling: {names}. To join them, rename one"] * bool(names)
    )


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("labels", "shown"),
    [([0.0, 1.0, 0.0], "0.0, 1.0"), (["0", "1", "1.0"], "0.0, 1.0")],
)
def test_two_whole_numbers_as_decimals_are_unclear(tmp_path, kind, labels, shown):
    """pandas writes class ids so if a cell of the column is missing."""
    path = column(tmp_path / f"x.{kind}", [*labels, *labels])
    message = f"x.{kind}: labels of column 'label' are two whole numbers, written as decimals: {shown}. Add -"
    with pytest.raises(UserError, match=re.escape(message)):
        read(path, skip_bad_rows=True)
    assert not read(path, label_type="number").task.labels
    assert read(path, label_type="class").task.labels == tuple(sorted(set(map(str, labels))))


@pytest.mark.parametrize("labels", [["1.0", "2.0", "3.0"], ["0.0", "1.0", "0.5"]])
def test_other_decimals_are_numbers_with_a_note(tmp_path, labels):
    data = read(column(tmp_path / "x.csv", labels))
    assert not data.task.labels and "labels of column 'label': numbers (to change: --label_type)" in data.notes
    assert not any("numbers" in note for note in read(str(tmp_path / "x.csv"), label_type="number").notes)


@pytest.mark.parametrize(
    "labels", [["1.2.3", "1.2.4"], ["1-2", "3-4"], ["1/2/3", "①"], ["a,b", "c"], ["2,5", "good", "bad"]]
)
def test_other_labels_are_classes(tmp_path, labels):
    assert len(read(column(tmp_path / "x.tsv", labels)).task.labels) == len(labels)


# ---- names of rows
def test_rows_are_counted_in_the_file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('text\nw1 w\n""\nw3 w\nw4 w\n')
    data = read(None, None, str(path), known_labels=("a", "b"), skip_bad_rows=True)
    assert data.examples["test"].index == ["0", "2", "3"]
    path.write_text("text,label\nw1,a\nw3,w4,b\nw5,b\n")
    assert read(str(path), skip_bad_rows=True).examples["train"].index == ["0", "2"]


def test_ids_are_used_where_every_row_has_one(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,text,label\na7,w1 w2,a\n,w3 w4,b\nc9,w5 w6,a\n")
    data = read(str(path))
    assert data.examples["train"].index == ["0", "1", "2"]
    assert any("x.csv:3: no usable id, so rows are named by their numbers from 0" in note for note in data.notes)
    path.write_text("id,text,label\na7,w1 w2,a\nb8,,b\nc9,w5 w6,b\n")
    assert read(str(path), skip_bad_rows=True).examples["train"].index == ["a7", "c9"]


def test_rows_of_a_glue_file_are_counted_too(tmp_path):
    from layerdrop.data.glue import read_glue_tsv
    from layerdrop.data.tasks import TASKS

    (tmp_path / "dev.tsv").write_text("sentence\tlabel\nw1\t0\nw2\nw3\t1\n")
    rows = read_glue_tsv(tmp_path / "dev.tsv", TASKS["sst2"], True, skip_bad_rows=True)
    assert rows.index == ["0", "2"] and rows.labels.dtype == np.int64
