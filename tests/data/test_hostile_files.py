"""Files that are damaged, binary or of another kind: one line, or a right result. Large files: what is not kept."""

import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from layerdrop.data.examples import Examples
from layerdrop.data.read import read_splits
from layerdrop.data.readers import FILE_TYPES, read_table
from layerdrop.data.spec import DataSpec
from layerdrop.data.tokens import CHARACTERS, tokenize
from layerdrop.errors import UserError
from tests import tiny


def read(path, splits=("train",), validation=None, **settings):
    files = [("train", str(path)), *([("validation", str(validation))] if validation else [])]
    return read_splits(DataSpec("own", "files", files=tuple(files), **settings), list(splits))


def rows(n: int, label=lambda i: i % 2) -> str:
    return "text,label\n" + "".join(f"w{i} w,{label(i)}\n" for i in range(n))


# ---- by bytes
CONTENTS = (
    rows(6).encode(),
    rows(6).replace(",", "\t").encode(),
    "".join(json.dumps({"text": f"w{i} w", "label": i % 2}) + "\n" for i in range(6)).encode(),
    json.dumps([{"text": f"w{i} w", "label": i % 2} for i in range(6)], indent=1).encode(),
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.sampled_from(FILE_TYPES),
    st.sampled_from(CONTENTS),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 20), st.binary(max_size=6)), max_size=3),
    st.booleans(),
)
def test_any_bytes_are_one_line_or_read(kind, content, edits, skip):
    for start, n, new in edits:
        content = content[:start] + new + content[start + n :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"x{kind}")
        path.write_bytes(content)
        try:
            rows = read(path, skip_bad_rows=skip).examples["train"]
            assert len(rows) and all(
                " ".join(text).strip() and "\0" not in " ".join(text) for column in rows.texts for text in column
            )
        except UserError as error:
            assert str(error).count("\n") <= content.count(b"\n")


# ---- by construct
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("   ", "x.csv:3: an empty cell in column 'text'"),
        ("w\0w", "x.csv:3: column 'text' holds a non-text character"),
    ],
)
def test_cells_without_a_text(tmp_path, cell, message):
    (tmp_path / "x.csv").write_text(f"text,label\nw1 w,a\n{cell},b\nw3 w,a\nw4 w,b\n")
    with pytest.raises(UserError, match=message):
        read(tmp_path / "x.csv")
    assert read(tmp_path / "x.csv", skip_bad_rows=True).examples["train"].bad_lines == (3,)


@pytest.mark.parametrize("label", [" 1", "1 "])
def test_labels_with_blanks_are_no_decimals(tmp_path, label):
    """They would make a regression of two classes."""
    (tmp_path / "x.jsonl").write_text(
        "".join(json.dumps({"text": f"w{i} w", "label": ["0", label][i % 2]}) + "\n" for i in range(6))
    )
    with pytest.raises(
        UserError, match="x.jsonl:2: label .* begins or ends with a blank. Fix the row, or add --skip_b"
    ):
        read(tmp_path / "x.jsonl")
    with pytest.raises(UserError, match="only one class, '0'"):
        read(tmp_path / "x.jsonl", skip_bad_rows=True)
    assert read(tmp_path / "x.jsonl", label_type="class").task.labels == tuple(sorted(["0", label]))


def test_rows_whose_label_has_a_blank_at_its_end(tmp_path):
    """Malformed, also in a validation file and beyond --max_train_samples. A given --label_type keeps the class."""
    labels = ["a", "b", "a ", "b"]
    (tmp_path / "x.csv").write_text(rows(8, lambda i: labels[i % 4]))
    (tmp_path / "good.csv").write_text(rows(8, lambda i: "ab"[i % 2]))
    message = "x.csv:4: label 'a ' of column 'label' begins or ends with a blank. Fix the row, or add --skip_bad_rows"
    for files in (("x.csv",), ("good.csv", ("train", "validation"), tmp_path / "x.csv")):
        with pytest.raises(UserError, match=message):
            read(tmp_path / files[0], *files[1:])
        data = read(tmp_path / files[0], *files[1:], skip_bad_rows=True)
        assert data.task.labels == ("a", "b") and [*data.examples.values()][-1].bad_lines == (4, 8)
        assert not any("differ only" in note for note in data.notes)
    assert read(tmp_path / "x.csv", max_train_samples=2).task.labels == ("a", "b")
    data = read(tmp_path / "x.csv", label_type="class")
    note = "classes of column 'label' differ only in spelling: 'a' and 'a '. To join them, rename one"
    assert data.task.labels == ("a", "a ", "b") and note in data.notes


def test_numbers_with_blanks_are_numbers(tmp_path):
    (tmp_path / "x.csv").write_text(rows(4, lambda i: f" {i / 2}"))
    data = read(tmp_path / "x.csv")
    assert data.task.label_type == "number" and data.examples["train"].labels.tolist() == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("kind", FILE_TYPES)
def test_a_pointer_or_a_pipe_is_no_data(tmp_path, kind):
    path = tmp_path / f"x{kind}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match=f"x{kind} is a pointer of Git LFS, not the file"):
        read(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="a pipe or a device"):
        read(path)


def test_json_nested_too_deep_and_numbers_too_long(tmp_path):
    for content in ("[" * 100_000, '{"text": ' + "[" * 100_000, '{"text": "w", "label": ' + "1" * 5000 + "}"):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(UserError) as error:
            read(tmp_path / "x.json")
        assert "\n" not in str(error.value)


def test_halves_of_characters_and_digits_of_other_scripts(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "w", "label": "\\ud800"}\n{"text": "w", "label": "a"}\n')
    with pytest.raises(UserError, match="x.jsonl:1: column 'label' holds a non-text character"):
        read(tmp_path / "x.jsonl", label_type="class")
    (tmp_path / "x.jsonl").write_text('{"text": "w", "\\ud800": "a"}\n')
    with pytest.raises(UserError, match="is not the name of a column"):
        read(tmp_path / "x.jsonl")
    (tmp_path / "x.csv").write_text(rows(6, lambda i: "0①"[i % 2]))
    data = read(tmp_path / "x.csv")
    assert data.task.labels == ("0", "①") and "both numbers and words are classes" in " ".join(data.notes)


# ---- as far as needed
@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_only_needed_rows_are_kept(tmp_path, kind):
    """The classes come from all rows of the training file; other files are not read further."""
    path = tmp_path / f"x{kind}"
    write(path, 100, lambda i: "abc"[min(i // 30, 2)])
    data = read(path, max_train_samples=10)
    assert data.task.labels == ("a", "b", "c") and len(data.examples["train"]) == 10
    whole = read(path)
    assert data.examples["train"].fingerprint() == whole.examples["train"].head(10).fingerprint()
    assert data.task == whole.task
    table = read_table("--train_file", str(path), limit=10, labels=["label", "tags"])
    assert (
        len(table.rows) == 10 and len(table.label_rows) == 90 and len({id(r) for r in table.label_rows.values()}) == 3
    )
    assert not read_table("--validation_file", str(path), limit=10).label_rows


def write(path: Path, n: int, label) -> None:
    values = [{"text": f"w{i} w", "label": label(i)} for i in range(n)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(values), path)
    elif path.suffix in (".json", ".jsonl"):
        lines = [json.dumps(value) for value in values]
        path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]")
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        path.write_text("\n".join(mark.join(row) for row in [("text", "label"), *(v.values() for v in values)]))


def test_a_malformed_row_beyond_the_limit(tmp_path):
    """Is refused in the file that decides the classes, and not read in another one."""
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text(rows(20))
    bad.write_text(rows(20) + "w\n")
    with pytest.raises(UserError, match="bad.csv:22: 1 columns instead of 2"):
        read(bad, max_train_samples=5)
    data = read(good, ("train", "validation"), bad, max_train_samples=5, max_eval_samples=5)
    assert len(data.examples["validation"]) == 5


@pytest.mark.parametrize("n", [1, 64, 5000, 100_000])
def test_a_long_text_gives_the_same_tokens(tmp_path, n):
    tokenizer = AutoTokenizer.from_pretrained(tiny.save(tmp_path / "bert"))
    texts = [" ".join(f"w{(i * i) % 60}" for i in range(n)), "w1 " * 3 + "x" * n, "w1"]
    data = tokenize(Examples((texts,), None, ["0", "1", "2"]), tokenizer, 16)
    expected = tokenizer(texts, truncation=True, max_length=16)["input_ids"]
    assert [data[i]["input_ids"].tolist() for i in range(3)] == expected
    assert n < 5000 or len(texts[0]) > 2 * CHARACTERS * 16


def test_a_text_without_a_token_is_named(tmp_path):
    folder = tiny.save(tmp_path / "gpt2", "gpt2")
    path = Path(folder, "tokenizer.json")
    content = json.loads(path.read_text()) | {"post_processor": None}
    content["model"]["unk_token"] = "w59"
    path.write_text(json.dumps(content))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer("\u200b")["input_ids"]:
        tokenizer = _Silent(tokenizer)
    with pytest.raises(UserError, match="gives no token for row 7 \\(1 of 2 rows\\)"):
        tokenize(Examples((["w1", "\u200b"],), None, ["3", "7"]), tokenizer, 16)


class _Silent:
    """A tokenizer that gives no token for the second text."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, *texts, **arguments):
        encoded = self.tokenizer(*texts, **arguments)
        return {name: [ids, []] for name, (ids, _) in encoded.items()}
