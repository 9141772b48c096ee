import csv
import io
import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerdrop.data.columns import class_names
from layerdrop.data.examples import BadRow
from layerdrop.data.files import own_task_name
from layerdrop.data.read import Data, read_splits
from layerdrop.data.readers import delimited_rows, read_table
from layerdrop.data.spec import DataSpec
from layerdrop.errors import UserError

ROWS = [
    {"sentence1": "w1 w2", "sentence2": "w3", "label": "yes"},
    {"sentence1": 'w "4"', "sentence2": "w5, w6", "label": "no"},
]


def write(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".json", ".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".tsv":
        lines = (rows[0].keys(), *(row.values() for row in rows))
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in lines))
    else:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def read(*paths: str, task: str = "", known_labels=(), known_positive=None, regression=None, **how) -> Data:
    """Train, validation and test file, as far as given; None leaves one out."""
    files = {split: path for split, path in zip(("train", "validation", "test"), paths, strict=False) if path}
    test_file = files.get("test")
    own = tuple((split, path) for split, path in files.items() if split != "test")
    spec = DataSpec(task or own_task_name(tuple(files.items())), "files", own, **how)
    config = SimpleNamespace(
        problem_type="regression" if regression else None, num_labels=2, id2label=dict(enumerate("ab"))
    )
    head = {"has_classifier": regression is not None, "config": config}
    checkpoint = SimpleNamespace(label_names=known_labels, positive_label=known_positive, **head)
    return read_splits(spec, list(files), checkpoint=checkpoint, test=test_file)


def column(path: Path, labels: list, **others: list) -> str:
    """A file with a text, a label and other columns."""
    rows = zip([f"w{i} w" for i in range(len(labels))], labels, *others.values(), strict=True)
    return write(path, [dict(zip(("text", "label", *others), row, strict=True)) for row in rows])


# ---- types of file
@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_own_files(tmp_path, kind):
    path = write(tmp_path / f"reviews.{kind}", ROWS)
    data = read(path, path, path)
    task, splits = data.task, data.examples
    assert (task.name, task.labels, task.texts) == ("reviews", ("no", "yes"), ("sentence1", "sentence2"))
    assert splits["train"].texts == (["w1 w2", 'w "4"'], ["w3", "w5, w6"])
    assert splits["validation"].labels.tolist() == [1, 0] and splits["test"].labels is None
    assert splits["test"].index == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.txt", "unknown file type '.txt'. Allowed: .csv, .tsv.* any other with --label_type token"),
        ("gone.csv", "--train_file .*gone.csv: cannot read the file"),
        ("x.parquet", "--train_file .*: not a readable parquet file"),
        ("x.json", "not a JSON object on one line"),
    ],
)
def test_unreadable_own_file(tmp_path, name, message):
    if "gone" not in name:
        (tmp_path / name).write_text("text\n")
    with pytest.raises(UserError, match=message):
        read(str(tmp_path / name))


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"text,label\n\xff,1\n")
    with pytest.raises(
        UserError, match=r"x.csv: not UTF-8 text .*. Convert the file: iconv -f LATIN1 -t UTF-8 .*x.csv"
    ):
        read(str(tmp_path / "x.csv"))


def test_json_without_an_object_on_each_line(tmp_path):
    (tmp_path / "x.json").write_text('["w1", 1]\n["w2", 2]\n')
    with pytest.raises(UserError, match="Write one object on each line"):
        read(str(tmp_path / "x.json"), skip_bad_rows=True)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "x.csv",
            "text,label\nw1,a\nw2,b\n",
            "no usable row (2 malformed; line 2: label 'a' of column 'label'",
        ),
        (
            "y.csv",
            "text,label\nw1\nw2\n",
            "no usable row (2 malformed; line 2: 1 columns instead of 2). ",
        ),
        ("z.json", "[1]\n", "no usable row (1 malformed; line 1: not a JSON object). Write one object on each line"),
        ("e.csv", "text,label\n", "no usable row. The first line must name the columns."),
    ],
)
def test_why_no_row_can_be_used(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        read(str(tmp_path / name), skip_bad_rows=True, label_type="number")


def test_missing_files_are_named(tmp_path):
    spec = DataSpec("x", "files", (("train", column(tmp_path / "x.csv", ["a", "b"])),))
    with pytest.raises(UserError, match="--validation_file is missing.*, or --validation_share 0.1"):
        read_splits(spec, ["train", "validation"])
    assert list(read_splits(spec, ["train"], test="unread.csv").examples) == ["train"]


# ---- headers
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_two_columns_of_one_name_are_refused(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    path.write_text("text,label,text\nw1,a,w2\nw3,b,w4\n".replace(",", "," if kind == "csv" else "\t"))
    with pytest.raises(UserError, match=r"--train_file .*x\.\w+: two columns are named 'text'"):
        read(str(path))


@pytest.mark.parametrize(
    ("name", "separator", "message"),
    [
        ("x.csv", ";", "the first line has semicolons between text, label, but a .csv file has commas"),
        ("x.csv", "\t", "has tabs between text, label, but a .csv file has commas. Convert the file, or name it .tsv"),
        ("x.tsv", ",", "has commas between text, label, but a .tsv file has tabs"),
        ("x.tsv", ";", "has semicolons between text, label, but a .tsv file has tabs"),
        ("x.csv", "|", "has vertical bars between text, label, but a .csv file has commas"),
        ("x.tsv", "|", "has vertical bars between text, label, but a .tsv file has tabs"),
    ],
)
def test_another_separator_is_named(tmp_path, name, separator, message):
    (tmp_path / name).write_text("text,label\nw1 w,a\nw2 w,b\n".replace(",", separator))
    with pytest.raises(UserError, match=message):
        read(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "id;text, full;label\n1;w, w;a\n2;w;b\n", "semicolons between id, text, full, label, but"),
        ("x.csv", "text, full|label\nw|a\nw|b\n", "vertical bars between text, full, label, but"),
        ("x.tsv", "id,text\tfull,label\n1,w,a\n2,w,b\n", "commas between id, text\tfull, label, but"),
    ],
)
def test_another_separator_is_named_in_a_header_with_both(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=f"the first line has {message}"):
        read(str(tmp_path / name), skip_bad_rows=True)


def test_names_of_columns_may_contain_other_separators(tmp_path):
    """Also beside a malformed row."""
    (tmp_path / "x.csv").write_text("text;a|b,label\nw;w|w,a\nw,w,w\nw;w,b\n")
    data = read(str(tmp_path / "x.csv"), skip_bad_rows=True, text_columns=("text;a|b",))
    assert data.examples["train"].texts == (["w;w|w", "w;w"],)


def test_a_column_of_numbers_is_named_as_such(tmp_path):
    message = r"cannot choose the text columns from text, stars \(only numbers: text, stars\). Add --text_columns"
    path = write(tmp_path / "x.csv", [{"text": i, "stars": i, "label": "ab"[i % 2]} for i in range(4)])
    with pytest.raises(UserError, match=message):
        read(path)
    assert read(path, text_columns=("text",)).examples["train"].texts == (["0", "1", "2", "3"],)


QUOTED = '"the ""dog"" 0"'


@pytest.mark.parametrize(
    ("name", "cell", "n"),
    [("x.tsv", QUOTED, 1), ("x.tsv", '"the dog"', 0), ("x.tsv", 'a "" b', 0), ("x.csv", QUOTED, 0)],
)
def test_texts_of_tsv_in_quotes_are_noted(tmp_path, name, cell, n):
    path = tmp_path / name
    path.write_text(f"text,label\n{cell},a\nw,b\n".replace(",", "," if name == "x.csv" else "\t"))
    data = read(str(path))
    assert data.examples["train"].texts[0][0] == (cell if name == "x.tsv" else 'the "dog" 0')
    assert sum("the texts of column 'text' of" in note and "keep their quotes" in note for note in data.notes) == n


def test_one_column_is_no_mistake(tmp_path):
    (tmp_path / "x.csv").write_text("text\nw1 w\nw2; w\n")
    data = read(None, None, str(tmp_path / "x.csv"), known_labels=("a", "b"))
    assert data.examples["test"].texts == (["w1 w", "w2; w"],)


def test_a_header_that_cannot_be_read(tmp_path):
    (tmp_path / "x.csv").write_text('"text"x,label\nw1,a\nw2,b\n')
    with pytest.raises(UserError, match="the first line must name the columns, but cannot be read"):
        read(str(tmp_path / "x.csv"))


# ---- malformed rows
@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("x.csv", "text,label\nw1,a\nw2\nw3,b\n", 3, "1 columns instead of 2"),
        ("x.csv", 'text,label\nw1,a\n"w2\nw4",b\nw3,b,c\n', 5, "3 columns instead of 2"),
        ("x.csv", "text,label\nw1,a\nw2,b\nw3,\n", 4, "an empty cell in column 'label'"),
        ("x.csv", "text,label\nw1,a\n,b\nw3,b\n", 3, "an empty cell in column 'text'"),
        ("x.csv", 'text,label\nw1,a\n"w2,b\nw3,b\n', 3, "not readable as csv"),
        ("x.tsv", "text\tlabel\nw1\ta\nw2\tb\nw\n", 4, "1 columns instead of 2"),
        ("x.jsonl", '{"text": "w1", "label": "a"}\n{"text": \n{"text": "w3", "label": "b"}\n', 2, "not a JSON object"),
        ("x.jsonl", '{"text": "w1", "label": "a"}\n\n[]\n{"text": "w3", "label": "b"}\n', 3, "not a JSON object"),
        (
            "x.jsonl",
            '{"text": "w1", "label": "a"}\n{"text": "w2", "label": "b"}\n{"label": "b"}\n',
            3,
            "no column text; found: label",
        ),
        (
            "x.jsonl",
            '{"text": "w1", "label": "a"}\n{"text": "w2", "label": "b"}\n{"text": null, "label": "b"}\n',
            3,
            "an empty cell",
        ),
    ],
)
def test_malformed_own_row(tmp_path, name, text, line, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=rf"{name}:{line}: {message}.*--skip_bad_rows"):
        read(str(path))
    data = read(str(path), skip_bad_rows=True)
    rows = data.examples["train"]
    assert (len(rows), rows.bad_lines) == (2, (line,))
    assert data.notes[-1] == f"1 malformed row of train left out: line {line}"


def test_quoting_errors_do_not_end_the_file(tmp_path):
    lines = [f"w{i} w,{'ab'[i % 2]}" for i in range(1000)]
    lines[10] = '"w10 w,a'  # never closed
    lines[20] = '"w20" w,a'
    lines[30] = "w30,w,a"
    lines[40] = '"w40, ""w""\nw",a'
    (tmp_path / "x.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    rows = read(str(tmp_path / "x.csv"), skip_bad_rows=True).examples["train"]
    assert len(rows) == 997 and rows.bad_lines == (12, 22, 32)
    assert rows.texts[0][9:11] == ["w9 w", "w11 w"] and 'w40, "w"\nw' in rows.texts[0]


def test_the_end_of_a_broken_cell_is_no_row(tmp_path):
    (tmp_path / "x.csv").write_text('text,label\nw1,a\n"w2\nw3" w,b\n"w4, w",b\n5" wide,b\n')
    rows = read(str(tmp_path / "x.csv"), skip_bad_rows=True).examples["train"]
    assert rows.texts[0] == ["w1", "w4, w", '5" wide'] and rows.bad_lines == (3, 4)


def test_a_malformed_row_is_said_before_what_it_leads_to(tmp_path):
    (tmp_path / "x.csv").write_text("text,label\nw1,a\nw2,b,c\n")
    with pytest.raises(UserError, match="x.csv:3: 3 columns instead of 2"):
        read(str(tmp_path / "x.csv"))


def test_line_ends_in_cells_stay(tmp_path):
    (tmp_path / "x.csv").write_bytes(b'text,label\r\n"w1\r\nw2",a\r\n\r\nw3,b\r\nw4\r\n')
    rows = read(str(tmp_path / "x.csv"), skip_bad_rows=True).examples["train"]
    assert rows.texts[0] == ["w1\r\nw2", "w3"] and rows.bad_lines == (6,)


@pytest.mark.parametrize("kind", ["csv", "tsv", "json"])
def test_cells_stay_as_they_are_written(tmp_path, kind):
    texts = ["007", "NA", "null", "1e5", "True", " padded ", "1.0"]
    data = read(column(tmp_path / f"x.{kind}", texts, words=texts), label_type="class", text_columns=("words",))
    assert data.examples["train"].texts == (texts,) and set(data.task.labels) == set(texts)


# ---- csv and tsv as others read them
exact = settings(derandomize=True, deadline=None, max_examples=80)


def tables(cell):
    return st.integers(2, 4).flatmap(lambda n: st.lists(st.lists(cell, min_size=n, max_size=n), min_size=1, max_size=8))


def cells(table):
    return [list(row.values()) for row in table.rows.values()]


@exact
@given(tables(st.text('ab ",;\n\té', max_size=6)))
def test_csv_is_read_as_pandas_and_csv_read_it(rows):
    header = [f"c{i}" for i in range(len(rows[0]))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        path.write_text(text.getvalue(), newline="")
        table = read_table("--train_file", str(path))
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False)
    assert list(table.columns) == list(frame.columns) == header
    assert cells(table) == frame.to_numpy().tolist() == rows
    at = [2 + sum(cell.count("\n") for row in rows[:i] for cell in row) + i for i in range(len(rows))]
    assert list(table.rows) == at


@exact
@given(tables(st.text('ab ",;é', max_size=6)))
def test_tsv_is_read_as_pandas_reads_it(rows):
    header = [f"c{i}" for i in range(len(rows[0]))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.tsv")
        path.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))
        table = read_table("--train_file", str(path))
        frame = pandas.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, dtype=str, keep_default_na=False)
    assert cells(table) == frame.to_numpy().tolist() == rows
    assert list(table.rows) == list(range(2, 2 + len(rows)))


@exact
@given(st.lists(st.sampled_from(["good", '"open', '"a"b,c', "one", "a,b,c"]), min_size=1, max_size=12))
def test_every_good_row_is_found_among_bad_ones(kinds):
    lines = [f"w{i},x{i}\n" if kind == "good" else kind + "\n" for i, kind in enumerate(kinds)]
    found = [fields for _, fields in delimited_rows(lines, ",") if not isinstance(fields, BadRow)]
    assert [f for f in found if len(f) == 2] == [[f"w{i}", f"x{i}"] for i, kind in enumerate(kinds) if kind == "good"]


# ---- text columns
def pair(first: str, second: str, **others) -> list[dict]:
    return [{first: f"w{i} w", second: f"v{i} v", **others, "label": "ab"[i % 2]} for i in range(4)]


@pytest.mark.parametrize(
    "names",
    ["sentence1 sentence2", "premise hypothesis", "question sentence", "question1 question2", "text_a text_b"],
)
def test_usual_pairs_of_columns(tmp_path, names):
    path = write(tmp_path / "x.csv", pair(*names.split(), source="web page", id="7"))
    data = read(path)
    assert data.task.texts == tuple(names.split())
    note = f"text taken from {' and '.join(data.task.texts)} of {path}; not used: source (to change: --text_columns)"
    assert data.notes[0] == note


@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        ({"text": ["w", "v"], "source": ["a web", "a book"]}, ("text",)),
        ({"sentence": ["w", "v"], "stars": ["1", "2"]}, ("sentence",)),
        ({"review": ["w w", "v v"]}, ("review",)),
        ({"review": ["w w", "v v"], "stars": ["1", "2.5"], "user": ["a17", "b2"]}, ("review",)),
        ({"review": ["w", "w"], "id": ["a b", "c d"]}, ("review",)),
        ({"review": ["w w", "v v"], "text": ["1", "2"]}, ("review",)),
        ({"review": ["w w", "v v"], "source": ["web", "web"]}, None),
        ({"review": ["w w", "v v"], "title": ["w v", "v w"]}, None),
        ({"text": ["w", "v"], "sentence": ["w", "v"]}, None),
        ({"text": ["w", "v"], "sentence1": ["w", "v"], "sentence2": ["w", "v"]}, None),
        ({"premise": ["w"] * 2, "hypothesis": ["w"] * 2, "sentence1": ["w"] * 2, "sentence2": ["w"] * 2}, None),
        ({"user": ["a17", "b2"]}, None),
        ({"stars": ["1", "2"]}, None),
        ({"review": ["", ""]}, None),
    ],
)
def test_text_is_not_guessed_among_several_columns(tmp_path, columns, texts):
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    path = write(tmp_path / "x.csv", [row | {"label": "ab"[i]} for i, row in enumerate(rows)])
    if texts is None:
        message = f"x.csv: cannot choose the text columns from {', '.join(columns)}.*Add --text_columns"
        with pytest.raises(UserError, match=message):
            read(path)
    else:
        assert read(path).task.texts == texts


def test_only_strings_are_text(tmp_path):
    rows = [{"review": f"w{i} w", "tags": ["a b", "c d"], "good": bool(i), "label": "ab"[i]} for i in range(2)]
    assert read(write(tmp_path / "x.jsonl", rows)).task.texts == ("review",)


def test_columns_can_be_named(tmp_path):
    rows = [{"id": 7, "a": "w1", "b": "w2", "c": "w3", "stars": n} for n in (1, 2)]
    path = write(tmp_path / "x.csv", rows)
    data = read(path, text_columns=("c", "a"), label_column="stars")
    assert data.task.texts == ("c", "a") and data.examples["train"].texts == (["w3", "w3"], ["w1", "w1"])
    assert data.examples["train"].index == ["7", "7"] and "text taken" not in data.notes[0]
    assert read(path, text_columns=("id",), label_column="stars").examples["train"].texts == (["7", "7"],)
    with pytest.raises(UserError, match="--text_columns: .* has no column d"):
        read(path, text_columns=("d",), label_column="stars")
    with pytest.raises(UserError, match="--label_column: .* has no column label. .*: id, a, b, c, stars"):
        read(path, text_columns=("a",))


def test_all_files_need_the_same_columns(tmp_path):
    train = write(tmp_path / "t.csv", ROWS)
    other = write(tmp_path / "d.csv", [{"sentence1": "w w", "label": "yes"}])
    with pytest.raises(UserError, match=r"--text_columns: .*d.csv has no column sentence2. .*: sentence1, label"):
        read(train, other, skip_bad_rows=True)
    unlabelled = write(tmp_path / "u.csv", [{"sentence1": "w w", "sentence2": "w"}])
    with pytest.raises(UserError, match=r"--label_column: .*u.csv has no column label. .*: sentence1, sentence2"):
        read(train, unlabelled, skip_bad_rows=True)
    assert len(read(train, None, unlabelled).examples["test"]) == 1


# ---- labels: classes or numbers
@pytest.mark.parametrize(
    ("labels", "how", "expected"),
    [
        (["0", "1", "10", "2"], {}, ("0", "1", "2", "10")),
        (["0.5", "1", "2.5"], {}, ()),
        (["0", "1", "2"], {"label_type": "number"}, ()),
        (["0.5", "1.5", "2.5"], {"label_type": "class"}, ("0.5", "1.5", "2.5")),
        ([True, False, True], {}, ("False", "True")),
        (["²", "³", "1"], {}, ("1", "²", "³")),
        (["--1", "-1", "1"], {}, ("--1", "-1", "1")),
        (["-1", "+2", "1", "0"], {}, ("-1", "0", "1", "+2")),
        (["good", "bad", "3.5", "bad"], {}, ("3.5", "bad", "good")),
    ],
)
def test_classes_or_numbers(tmp_path, labels, how, expected):
    data = read(column(tmp_path / "x.jsonl", labels), **how)
    assert data.task.labels == expected and data.task.texts == ("text",)
    assert data.examples["train"].labels.dtype == (np.int64 if expected else np.float32)


def test_equal_whole_numbers_have_one_order():
    assert class_names(["2", "01", "1", "1.0"][:3]) == ("01", "1", "2")
    assert class_names(["+1", "1", "01"]) == class_names(["01", "1", "+1"]) == ("+1", "01", "1")


DECIMALS = [f"{i / 8}" for i in range(79)]


def test_one_word_among_decimals_is_a_malformed_row(tmp_path):
    path = column(tmp_path / "x.csv", [*DECIMALS[:40], "n/a", *DECIMALS[40:]])
    with pytest.raises(UserError, match=r"x.csv:42: label 'n/a' of column 'label' is not a number") as error:
        read(path)
    assert "--label_type class" in str(error.value) and "--skip_bad_rows" in str(error.value)
    data = read(path, skip_bad_rows=True)
    assert not data.task.labels and len(data.examples["train"]) == 79
    assert data.notes[-1] == "1 malformed row of train left out: line 42"
    assert len(read(path, label_type="class").task.labels) == 80


@pytest.mark.parametrize(
    ("numbers", "words", "kind"),
    [(9, 1, "number"), (18, 2, "number"), (89, 11, "unclear"), (5, 5, "unclear"), (49, 51, "class"), (1, 9, "class")],
)
def test_from_which_share_of_decimals_on_a_label_is_a_number(tmp_path, numbers, words, kind):
    labels = [f"{i}.5" for i in range(numbers)] + [f"word{i % 3}" for i in range(words)]
    path = column(tmp_path / "x.csv", labels)
    if kind == "unclear":
        line, total = numbers + 2, numbers + words
        with pytest.raises(UserError, match=f"x.csv:{line}: label 'word0' .* but {numbers} of {total} .*--label_type"):
            read(path, skip_bad_rows=True)
    else:
        assert (not read(path, skip_bad_rows=True).task.labels) == (kind == "number")


def test_numbers_and_words_as_classes_are_noted(tmp_path):
    data = read(column(tmp_path / "x.csv", ["1", "2", "n/a", "2"]))
    assert data.task.labels == ("1", "2", "n/a") and data.notes[-1].startswith(
        "both numbers and words are classes in 'label': n/a"
    )
    assert len(read(column(tmp_path / "x.csv", ["1", "2", "3", "2"])).notes) == 1


def test_a_validation_label_that_is_no_number(tmp_path):
    train, dev = column(tmp_path / "t.csv", DECIMALS), column(tmp_path / "d.csv", ["0.5", "nan", "1"])
    with pytest.raises(UserError, match=r"d.csv:3: label 'nan' of column 'label' is not a number"):
        read(train, dev)
    assert read(train, dev, skip_bad_rows=True).examples["validation"].labels.tolist() == [0.5, 1.0]


def test_label_that_training_does_not_know(tmp_path):
    train, dev = write(tmp_path / "t.csv", ROWS), write(tmp_path / "d.csv", [*ROWS, ROWS[0] | {"label": "perhaps"}])
    with pytest.raises(UserError, match="d.csv:4: label 'perhaps' is none of no, yes"):
        read(train, dev)


def test_the_message_on_an_unknown_label_is_short(tmp_path):
    train = column(tmp_path / "t.csv", [f"class{i}" for i in range(79)])
    dev = column(tmp_path / "d.csv", ["clas77"])
    with pytest.raises(
        UserError, match="label 'clas77' is none of class77, class0, class1, class10, class11 and 74 more"
    ):
        read(train, dev)


@pytest.mark.parametrize(("labels", "unknown"), [("123", "0"), (("no", "yes"), "1")])
def test_a_label_is_no_class_id_where_the_files_name_the_classes(tmp_path, labels, unknown):
    train, dev = column(tmp_path / "t.csv", list(labels)), column(tmp_path / "d.csv", [labels[0], unknown])
    with pytest.raises(UserError, match=f"d.csv:3: label '{unknown}' is none of {labels[0]}, {labels[1]}"):
        read(train, dev)
    assert read(train, dev, skip_bad_rows=True).examples["validation"].labels.tolist() == [0]


def test_class_ids_in_a_file_are_noted(tmp_path):
    """The order of a model's classes is a matter of its configuration."""
    path, words = column(tmp_path / "x.csv", [0, 1, 1, "NEG"]), column(tmp_path / "y.csv", ["POS", "NEG"])
    note = "column 'label' has class ids: 0 counts as POS, 1 counts as NEG"
    assert note in read(None, path, known_labels=("POS", "NEG")).notes
    assert "class ids" not in " ".join(read(None, words, known_labels=("POS", "NEG")).notes)
    assert "class ids" not in " ".join(read(None, path, known_labels=("0", "1", "NEG")).notes)
    assert "class ids: 0 counts as entailment" in " ".join(
        read(None, column(tmp_path / "z.csv", [0, 1]), task="rte").notes
    )
    assert "class ids" not in " ".join(read(None, column(tmp_path / "z.csv", [0, 1]), task="sst2").notes)


def test_class_ids_of_known_classes(tmp_path):
    path = column(tmp_path / "x.csv", ["1", "0", "yes"])
    assert read(None, path, known_labels=("yes", "no")).examples["validation"].labels.tolist() == [1, 0, 0]
    path = column(tmp_path / "x.csv", ["1", "2", "3"])
    assert read(None, path, known_labels=("3", "2", "1")).examples["validation"].labels.tolist() == [2, 1, 0]
    with pytest.raises(UserError, match="label '1' is none of 2, 3, 4"):
        read(None, path, known_labels=("2", "3", "4"))


def test_classes_without_a_train_file(tmp_path):
    path = write(tmp_path / "x.csv", ROWS)
    assert read(None, path, known_labels=("yes", "no")).examples["validation"].labels.tolist() == [0, 1]
    assert read(None, path).examples["validation"].labels.tolist() == [1, 0]
    train = read(path, path, known_labels=("yes", "no", "perhaps"))
    assert train.task.labels == ("no", "yes") and train.examples["train"].labels.tolist() == [1, 0]


def test_the_head_decides_without_a_train_file(tmp_path):
    whole, decimals = column(tmp_path / "w.csv", ["1", "2", "5"]), column(tmp_path / "d.csv", ["1.5", "2.5"])
    data = read(None, whole, regression=True)
    assert not data.task.labels and data.examples["validation"].labels.tolist() == [1.0, 2.0, 5.0]
    assert read(None, whole).task.labels == ("1", "2", "5")
    assert read(None, decimals, regression=False).task.labels == ("1.5", "2.5")
    assert read(None, whole, regression=True, label_type="class").task.labels == ("1", "2", "5")
    assert read(whole, whole, regression=True).task.labels == ("1", "2", "5")
    assert not read(decimals, decimals, regression=False).task.labels


def test_the_head_decides_for_a_test_file_alone(tmp_path):
    path = write(tmp_path / "x.csv", [{"text": "w w"}, {"text": "v v"}])
    assert not read(None, None, path, regression=True).task.labels
    assert read(None, None, path, known_labels=("n", "p")).task.labels == ("n", "p")
    with pytest.raises(UserError, match="--test_file: the model is not fine-tuned, so its classes are unknown"):
        read(None, None, path)


def test_one_class_is_not_a_task(tmp_path):
    with pytest.raises(UserError, match="only one class, 'yes'"):
        read(write(tmp_path / "x.csv", ROWS[:1]))


def test_a_label_column_without_labels(tmp_path):
    path = column(tmp_path / "x.csv", ["", ""])
    with pytest.raises(UserError, match=r"x.csv:2: an empty cell in column 'label'"):
        read(path)
    with pytest.raises(UserError, match=r"x.csv: no label in column 'label'. Name another --label_column"):
        read(path, skip_bad_rows=True)


@pytest.mark.parametrize("columns", [{"text_columns": ("label",)}, {"label_column": "text", "text_columns": ("text",)}])
def test_one_column_is_not_both_text_and_label(tmp_path, columns):
    path = write(tmp_path / "x.csv", [{"text": f"w{i} w", "label": f"v{i % 2} v"} for i in range(4)])
    with pytest.raises(UserError, match="x.csv: column '(label|text)' has both the texts and the labels. Name another"):
        read(path, **columns)
    assert (
        read(None, None, path, known_labels=("n", "p"), text_columns=("label",)).examples["test"].texts[0][0] == "v0 v"
    )


# ---- the task
def test_own_files_of_a_glue_task(tmp_path):
    for labels in (("entailment", "not_entailment"), ("0", "1")):
        rows = [{"sentence1": "w1", "sentence2": "w2", "label": label} for label in labels]
        data = read(write(tmp_path / "x.csv", rows), task="rte")
        assert data.task.name == "rte" and data.examples["train"].labels.tolist() == [0, 1]


@pytest.mark.parametrize("names", [("premise", "hypothesis"), ("sentence1", "sentence2")])
def test_a_glue_tasks_own_columns_come_first(tmp_path, names):
    rows = [{names[0]: "w1", names[1]: "w2", "text": "w3", "label": i} for i in range(3)]
    data = read(write(tmp_path / "x.csv", rows), task="mnli")
    assert data.task.texts == names and data.task.suffixes == ("",)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/reviews.csv", "reviews"),
        ("a/reviews/train.csv", "reviews"),
        ("a/reviews/dev.tsv", "reviews"),
        ("a/RTE/train.csv", "RTE-files"),
        ("a/sst-2.csv", "sst-2-files"),
    ],
)
def test_name_of_the_users_task(path, name):
    assert own_task_name((("train", path), ("validation", "other.csv"))) == name


def test_validation_rows_with_texts_of_the_training_set_are_counted(tmp_path):
    """All text columns are equal. Labels, order and the type of the file do not count."""
    end = "validation rows have texts that are also in the training set, so scores may be too high"
    train, copy = write(tmp_path / "t.csv", ROWS), write(tmp_path / "copy.jsonl", ROWS[::-1])
    other = write(tmp_path / "d.csv", [ROWS[0] | {"label": "no"}, ROWS[1] | {"sentence1": "w1 w2"}])
    assert read(train, train).notes[-1] == read(train, copy).notes[-1] == f"2 of 2 {end}"
    assert read(train, other).notes[-1] == f"1 of 2 {end.replace('have texts that are', 'has a text that is')}"
    swapped = write(tmp_path / "s.csv", [{"sentence1": "w3", "sentence2": "w1 w2", "label": "no"}])
    assert not any(end in note for paths in ((train, swapped), (None, train)) for note in read(*paths).notes)
    tagged = write(tmp_path / "words.jsonl", [{"tokens": ["w1", "w2"], "ner_tags": ["O", "B-a"]}] * 3)
    assert read(tagged, tagged).notes[-1] == f"3 of 3 {end}"


@pytest.mark.parametrize("share", ["validation_share", "hold_out"])
def test_texts_on_both_sides_of_a_part_of_the_training_set_are_counted(tmp_path, share):
    def parts(path):
        return read_splits(DataSpec("t", "files", (("train", path),), **{share: 0.2}), ["train", "validation"])

    path = column(tmp_path / "u.csv", ["yes", "no"] * 10)
    assert not any("also in the training set" in note for note in parts(path).notes)
    rows = [{"text": "w1 w2", "label": label} for label in ["yes", "no"] * 10]
    assert parts(write(tmp_path / "t.csv", rows)).notes[-1].startswith("4 of 4 validation rows have texts")
    spec = DataSpec("t", "files", (("train", str(tmp_path / "t.csv")),), **{share: 0.2})
    assert read_splits(spec, ["train"]).also_in_train == 0  # the validation set is not used
