"""layerdrop predict: one prediction for each row of whatever run_glue.py reads, in order."""

import csv
import io
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import layerdrop
from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.cli.command import run_command
from layerdrop.data.spec import DataSpec
from layerdrop.deploy.predict import Prediction, Predictor
from layerdrop.errors import UserError
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.system.own_files import OwnFiles
from tests import tiny
from tests.data.test_own_files import write


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> str:
    """A trained classifier of single texts, with the record of a run on the column `review`, cut at 12 tokens."""
    return made(tmp_path_factory.mktemp("single"), ["review"], "reviews")


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> str:
    """One of MRPC's pairs."""
    return made(tmp_path_factory.mktemp("pair"), ["#1 String", "#2 String"], "mrpc")


def made(folder: Path, columns: list[str], task: str) -> str:
    tiny.save(folder)
    spec = RunSpec(ModelSpec("x"), DataSpec(task, max_seq_length=12))
    RunRecord(spec, str(folder), "success", labels=["a", "b"], text_columns=columns).write()
    return str(folder)


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """call("words") or call(words, stdin=b"...") -> (exit code, rows of cells without the header, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str, stdin: bytes = b""):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin), isatty=lambda: not stdin))
        code = run_command("predict", list(words))
        out, err = capsys.readouterr()
        return code, [line.split("\t") for line in out.split("\n")[1:-1]], err

    return call


ROWS = [{"id": f"r{i}", "label": "?", "review": f"w{i} w{i + 1}"} for i in range(7)]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_kind_of_file(call, single, tmp_path, kind):
    path = write(tmp_path / f"x.{kind}", ROWS)
    code, rows, err = call(single, path)
    assert code == 0 and [row[0] for row in rows] == [f"r{i}" for i in range(7)], err
    lines = "".join(f"{row['review']}\n" for row in ROWS).encode()
    assert [row[1:] for row in call(single, stdin=lines)[1]] == [row[1:] for row in rows]


@pytest.mark.parametrize(
    ("text", "empty", "n"),
    [
        (b"w1 w2\n\nw3 w4\n", [1], 3),
        ("w1 w2\u2028w5 w6\nw3 w4\n".encode(), [], 2),
        ("w1\u0085w2\x0cw5\r\nw3 w4".encode(), [], 2),
        (b"\xef\xbb\xbfw1 w2\nw3 w4\n\n", [2], 3),
        (b"\n \nw1\n", [0, 1], 3),
    ],
)
def test_a_prediction_for_every_line(call, single, tmp_path, text, empty, n):
    (tmp_path / "x.txt").write_bytes(text)
    code, rows, err = call(single, "x.txt")
    assert code == 0 and [row[0] for row in rows] == [str(i) for i in range(n)]
    assert [i for i, row in enumerate(rows) if row[1:] == ["", ""]] == empty
    lines = ", ".join(str(i + 1) for i in empty)
    assert bool(empty) == (f"{len(empty)} of {n} rows without a prediction: an empty line (line" in err)
    assert f" {lines})" in err or not empty
    assert call(single, "-", stdin=text)[1] == rows


def test_texts_of_unknown_tokens_are_noted(call, single):
    code, rows, err = call(single, stdin=b"neue Worte\nw1\n")
    assert code == 0 and len(rows) == 2
    assert err.startswith(
        "note: 67% of the tokens of stdin are unknown to the tokenizer ([UNK]), so predictions hardly"
    )
    assert call(single, stdin=b"w1 w2\nneue Worte\n")[2] == ""


def test_a_byte_order_mark_is_no_part_of_the_text(call, single):
    expected = call(single, stdin=b"w1 w2\nw3\n")[1]
    assert call(single, stdin=b"\xef\xbb\xbfw1 w2\n\xef\xbb\xbfw3\n")[1] == expected


def test_malformed_lines_can_be_skipped(call, single):
    code, rows, err = call(single, "--skip_bad_rows", stdin=b"w1\nw1\0w2\n\nw2\n")
    assert code == 0 and [bool(row[1]) for row in rows] == [True, False, False, True]
    assert "2 of 4 rows without a prediction: a non-text character, such as NUL (is the file binary?) (line 2), " in err
    code, rows, err = call(single, "--skip_bad_rows", stdin=b"a\tb\tc\nw1\nw2\tw3\n")
    assert code == 0 and [bool(row[1]) for row in rows] == [False, True, False]
    assert "2 texts, separated by tabs, but the first line has 1 (line 3)" in err


def test_quotes_of_tsv_are_noted(call, single, tmp_path):
    (tmp_path / "x.tsv").write_text('review\n"w1 ""w2"""\n')
    assert "note: the texts of column 'review' of x.tsv keep their quotes" in call(single, "x.tsv")[2]


def test_a_text_as_an_argument(call, single, pair):
    assert call(single, "--text", "w1 w2")[1] == call(single, stdin=b"w1 w2\n")[1]
    assert call(pair, "--text", "w1 w2", "w3")[1] == call(pair, stdin=b"w1 w2\tw3\n")[1]


def test_load_is_called_with_a_text_a_pair_or_a_list(call, single, pair):
    """The labels and scores of the file of predictions."""
    classify = layerdrop.load(single)
    one, two = classify(["w1 w2", "w3"])
    assert isinstance(one, Prediction) and classify("w1 w2") == one and classify([]) == []
    rows = call(single, stdin=b"w1 w2\nw3\n")[1]
    assert [[p.label, f"{p.score:.4f}"] for p in (one, two)] == [row[1:] for row in rows]
    both = layerdrop.load(pair)([("w1 w2", "w3"), ("w4", "w5")])
    assert layerdrop.load(pair)(("w1 w2", "w3")) == pytest.approx(both[0]) and len(both) == 2
    for model, texts, message in (
        (pair, "w1", "the model takes two texts in each row, not one"),
        (single, ["w1", ("w2", "w3")], "the list mixes single texts and pairs"),
        (single, "", "texts: an empty text has no prediction. Give a text, or leave it out."),
        (single, ["w1", "w2", " \n"], "texts[2]: an empty text has no prediction"),
        (pair, ("w1", ""), "texts[1]: an empty text has no prediction"),
        (pair, [("w1", "w2"), ("", "w2")], "texts[1][0]: an empty text has no prediction"),
        (pair, ("w1", None), "texts: must be a text, or a pair of texts as a tuple."),
        (pair, [("w1", "w2", "w3")], "texts[0]: must be a text, or a pair"),
        (single, ["w1", None], "texts[1]: must be a text, or a pair"),
        (single, 3, "texts: must be a text, a pair"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            layerdrop.load(model)(texts)


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
def test_load_of_values_and_of_a_decoder(tmp_path, model_type):
    """A value has no score."""
    folder = tiny.save(tmp_path / "values", model_type, num_labels=1)
    model, words = (
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    texts = ["w1 w2 w3", "w4"]
    with torch.no_grad():
        expected = [float(model(**words(text, return_tensors="pt")).logits) for text in texts]
    predictions = layerdrop.load(folder)(texts)
    assert [p.label for p in predictions] == pytest.approx(expected, abs=1e-5) and {p.score for p in predictions} == {
        None
    }


def test_malformed_rows(call, single, tmp_path):
    (tmp_path / "x.csv").write_text('id,review\nr0,w1 w2\nr1,""\nr2,w3,w4\nr3,w5\n')
    code, _, err = call(single, "x.csv")
    assert code == 2 and "x.csv:4: 3 columns instead of 2" in err and "--skip_bad_rows to write an empty" in err
    code, rows, err = call(single, "x.csv", "--skip_bad_rows")
    assert (
        code == 0
        and [row[0] for row in rows] == ["r0", "r1", "", "r3"]
        and (
            "2 of 4 rows without a prediction: an empty cell in column 'review' (line 3), malformed row: 3 columns "
            "instead of 2 (line 4)\n"
        )
        in err
    )
    assert [bool(row[1]) for row in rows] == [True, False, False, True]


def test_notes_name_the_empty_column_and_the_lines(call, pair, tmp_path):
    (tmp_path / "x.csv").write_text('id,a,b\nr0,w1,w2\nr1,w1,\nr2,w3,w4\nr3,w1,\nr4,"w1,w2\nr5,,w2\n')
    code, rows, err = call(pair, "x.csv", "--text_columns", "a,b", "--skip_bad_rows")
    assert code == 0 and [row[0] for row in rows] == ["r0", "r1", "r2", "r3", "", "r5"]
    assert [bool(row[1]) for row in rows] == [True, False, True, False, False, False]
    assert err == (
        "note: 4 of 6 rows without a prediction: an empty cell in column 'b' (lines 3, 5), malformed row: not readable "
        "as csv: unexpected end of data (line 6), an empty cell in column 'a' (line 7)\n"
    )


def test_the_columns_of_the_run(call, single, pair, tmp_path):
    write(tmp_path / "hub.csv", [{"sentence1": "w1", "sentence2": "w2", "idx": 5}])
    write(tmp_path / "own.csv", [{"a": "w1", "b": "w2"}])
    classical = write(
        tmp_path / "test.tsv", [{"index": 5, "#1 ID": 1, "#2 ID": 2, "#1 String": "w1", "#2 String": "w2"}]
    )
    expected = call(pair, stdin=b"w1\tw2\n")[1][0][1:]
    assert call(pair, "hub.csv")[1] == call(pair, classical)[1] == [["5", *expected]]
    assert call(pair, "own.csv", "--text_columns", "a,b")[1] == [["0", *expected]]
    for words, message in (
        ((pair, "own.csv"), "own.csv: no column #1 String, #2 String, .* found: a, b. .*--text_columns"),
        ((single, "hub.csv"), "hub.csv: no column review"),
        (
            (single, "own.csv", "--text_columns", "a,b"),
            "the model takes one text in each row, not two. Give one text, or name the column: --text_columns A.",
        ),
        ((pair, "--text", "w1"), "--text: the model takes two texts, not one. Give two texts."),
        ((single, "--text", "w1", "w2"), "--text: the model takes one text, not two. Give one text."),
        ((pair, "own.csv", "--text_columns", "a,c"), "--text_columns: own.csv has no column c"),
    ):
        code, _, err = call(*words)
        assert code == 2 and len(err.splitlines()) == 1 and re.search(message, err), err


def test_the_length_is_that_of_the_run(single, tmp_path):
    assert Predictor(single).length == 12 and Predictor(single, 5).length == 5 and Predictor(single, 999).length == 64
    folder = tiny.save(tmp_path / "plain")
    assert Predictor(folder).length == 64 and Predictor(folder).columns == []
    (tmp_path / "plain" / "export.json").write_text(json.dumps({"task": "rte", "max_seq_length": 20}))
    assert Predictor(folder).length == 20 and Predictor(folder).columns == [("sentence1", "sentence2")]


def test_a_model_without_a_limit(call, tmp_path):
    """XLNet's tokenizers may say 10^30."""
    folder = Path(tiny.save(tmp_path / "xlnet", "xlnet"))
    words = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(words | {"model_max_length": 10**30}))
    assert Checkpoint.open(str(folder)).max_length() < 2**31
    code, rows, err = call(str(folder), stdin=b"w1 w2\n" + b"w3 " * 90 + b"\n")
    assert code == 0 and len(rows) == 2, err


def test_a_folder_without_a_record(call, tmp_path):
    folder = tiny.save(tmp_path / "plain")
    write(tmp_path / "usual.csv", [{"text": "w1 w2"}])
    write(tmp_path / "other.csv", [{"review": "w1 w2"}])
    assert call(folder, "usual.csv")[1][0][0] == "0"
    code, _, err = call(folder, "other.csv")
    assert code == 2 and "other.csv: cannot choose the text columns from review. Add --text_columns A, or A,B." in err


def test_a_file_without_the_text_column(call, single, tmp_path):
    write(tmp_path / "other.csv", [{"body": "w1 w2"}])
    code, _, err = call(single, "other.csv")
    assert code == 2 and "no column review, which the model" in err and "Add --text_columns A. For" in err, err


def test_an_untrained_head_predicts_nothing(call, tmp_path):
    from transformers import BertModel

    tiny.tokenizer().save_pretrained(tmp_path / "encoder")
    BertModel(tiny.config("bert")).save_pretrained(tmp_path / "encoder")
    code, _, err = call("encoder", "--text", "w1")
    assert code == 2 and "MODEL encoder: has no trained classifier" in err


@pytest.mark.parametrize(
    ("words", "stdin", "message"),
    [
        (["nowhere.txt"], b"", "nowhere.txt: cannot read the file"),
        ([], b"", "nothing to predict. Give a file, --text, --dataset_name, or lines on stdin"),
        (["x.txt", "--text", "w1"], b"", "--text and a file: only one input is allowed"),
        (["-"], b"\n\n", "stdin: contains no text"),
        (
            ["-"],
            b"w1\tw2\tw3\n",
            "stdin:1: 3 texts, separated by tabs, but a line has one text or two. Correct the line",
        ),
        (
            ["-"],
            b"w1\n\nw1\tw2\n",
            r"stdin:3: 2 texts, separated by tabs, but the first line has 1. Correct the line",
        ),
        (["-"], b"\xff\n", "stdin: not UTF-8 text .*. Convert the file: iconv -f LATIN1 -t UTF-8$"),
        (["latin1.txt"], b"", "latin1.txt: not UTF-8 text .*. Convert the file: iconv -f LATIN1 -t UTF-8 latin1.txt$"),
        (["-"], b"w1\nw1\0w2\n", "stdin:2: a non-text character, such as NUL .* or add --skip_bad_rows"),
        (["-"], b"version https://git-lfs.github.com/spec/v1\noid", "stdin is a pointer of Git LFS, not the file"),
        (
            ["--dataset_name", __file__],
            b"",
            "test_predict.py: is a file, not a dataset. Leave --dataset_name out, and give the file: .*predict: FILE",
        ),
        (["--test_file", "x"], b"", "--test_file: no such flag. Did you mean the file without a flag?"),
        (["--text", "a", "b", "c"], b"", "--text: takes one text or one pair, not 3 texts"),
        (["--text", "a", "--batch_size", "0"], b"", "--batch_size 0: must be 1 or more"),
        (["--text", "a", "--max_seq_length", "1"], b"", "--max_seq_length 1: must be 2 or more"),
        (["--text", "a", "--text_columns", "x"], b"", "--text_columns: only for datasets and files with columns"),
        (["--text", "a", "--keep_columns"], b"", "--keep_columns: only for datasets and files with columns"),
    ],
)
def test_bad_input_is_one_line(call, single, words, stdin, message):
    Path("latin1.txt").write_bytes("w1 caf\u00e9\n".encode("latin1"))
    code, rows, err = call(single, *words, stdin=stdin)
    assert code == 2 and not rows and len(err.splitlines()) == 1 and re.search(message, err), err


def test_output(call, single, tmp_path, capsys):
    rows = call(single, "--text", "w1 w2")[1]
    assert call(single, "--text", "w1 w2", "--output", "p.tsv") == (0, [], "")
    assert [line.split("\t") for line in (tmp_path / "p.tsv").read_text().splitlines()] == [
        ["index", "prediction", "probability"],
        *rows,
    ]
    assert run_command("predict", [single, "--text", "w1 w2", "--output", "p.tsv"]) == 0  # an earlier result
    assert capsys.readouterr().out == "p.tsv: predictions of 1 row\n"
    for header in ("index\tprediction\tmy notes", "prediction\tof mine", "index\tprediction of mine"):
        (tmp_path / "p.tsv").write_text(f"{header}\n0\ta\tb\n")
        code, _, err = call(single, "--text", "w1 w2", "--output", "p.tsv")
        assert code == 2 and "p.tsv: exists and is not an earlier result" in err
    OwnFiles(tmp_path).write({"RTE.tsv": "index\tprediction\n0\tentailment\n"})
    code, _, err = call(single, "--text", "w1 w2", "--output", "RTE.tsv")
    assert code == 2 and "RTE.tsv: belongs to the run in this folder" in err
    code, _, err = call(single, "--text", "")
    assert code == 2 and "--text: an empty text has no prediction" in err


def read_csv(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_csv_output(call, single, tmp_path):
    """The cells of stdout, quoted. A text that a spreadsheet would execute gets an apostrophe."""
    ids = ["a,b", 'q"', "=1+1", "-3", "@x"]
    path = write(tmp_path / "x.csv", [{"id": name, "review": f"w{i}"} for i, name in enumerate(ids)])
    rows = call(single, path)[1]
    for _ in range(2):  # an earlier result is replaced
        assert call(single, path, "--output", "p.CSV") == (0, [], "")
    header, *written = read_csv(tmp_path / "p.CSV")
    assert header == ["index", "prediction", "probability"] and [row[1:] for row in written] == [r[1:] for r in rows]
    assert [row[0] for row in written] == ["a,b", 'q"', "'=1+1", "-3", "'@x"]
    (tmp_path / "p.CSV").write_text("index,prediction,of mine\n")
    assert call(single, path, "--output", "p.CSV")[0] == 2
    (tmp_path / "own.csv").write_text("review,index,prediction\nw1,0,a\n")
    assert "own.csv: is the file to predict" in call(single, "own.csv", "--output", "own.csv")[2]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_keep_columns(call, single, tmp_path, kind):
    """All rows in the input's order, also rows without a text and malformed rows."""
    (tmp_path / "x.csv").write_text('id,review,n\nr0,w1 w2,1\nr1,"",2\nr2,w3,w4,3\nr3,w5,4\n')
    (tmp_path / "x.tsv").write_text("id\treview\tn\nr0\tw1 w2\t1\nr1\t\t2\nr2\tw3\tw4\t3\nr3\tw5\t4\n")
    (tmp_path / "x.jsonl").write_text(
        '{"id": "r0", "review": "w1 w2", "n": 1}\n{"id": "r1", "review": null, "n": 2}\nbroken\n'
        '{"id": "r3", "review": "w5", "n": 4}\n'
    )
    words = single, f"x.{kind}", "--skip_bad_rows"
    rows, kept = call(*words)[1], [["r0", "w1 w2", "1"], ["r1", "", "2"], ["", "", ""], ["r3", "w5", "4"]]
    expected = [own + row for own, row in zip(kept, rows, strict=True)]
    assert call(*words, "--keep_columns")[1] == expected
    for _ in range(2):
        assert call(*words, "--keep_columns", "--output", "p.csv")[0] == 0
    assert read_csv(tmp_path / "p.csv") == [["id", "review", "n", "index", "prediction", "probability"], *expected]


def test_keep_columns_of_a_dataset(call, single, tmp_path):
    import datasets

    datasets.DatasetDict({"test": datasets.Dataset.from_list([{"review": "w1", "tags": ["a", "b"]}])}).save_to_disk(
        tmp_path / "d"
    )
    rows = call(single, "--dataset_name", str(tmp_path / "d"), "--keep_columns")[1]
    assert [row[:3] for row in rows] == [["w1", '["a", "b"]', "0"]]


def test_keep_columns_with_names_of_the_output(call, single, tmp_path):
    """The column `index` that names the rows is written once."""
    (tmp_path / "x.csv").write_text("index,review\n7,w1\n")
    assert [row[:2] for row in call(single, "x.csv", "--keep_columns")[1]] == [["w1", "7"]]
    for header, name in (("prediction,review", "prediction"), ("review,probability", "probability")):
        (tmp_path / "x.csv").write_text(f"{header}\nw1,w2\n")
        code, _, err = call(single, "x.csv", "--keep_columns")
        assert code == 2 and f"--keep_columns: x.csv has a column '{name}', as the output has" in err
    (tmp_path / "x.csv").write_text('review\n"w1\nw2"\n')
    code, _, err = call(single, "x.csv", "--keep_columns")
    assert code == 2 and "column 'review' of x.csv has a tab or a line end in a cell" in err
    assert call(single, "x.csv", "--keep_columns", "--output", "p.csv")[0] == 0
    assert read_csv(tmp_path / "p.csv")[1][:2] == ["w1\nw2", "0"]
