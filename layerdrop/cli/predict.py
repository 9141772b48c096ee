"""Predict with a trained model.

  layerdrop predict MODEL reviews.csv --output predictions.tsv
  layerdrop predict MODEL --text "a text" ["a second text"]
  some-command | layerdrop predict MODEL

MODEL: the folder of a run that kept its model, of an export (model.onnx runs in onnxruntime), or the folder or
hub name of another classifier.
FILE: a .csv, .tsv, .json, .jsonl, .parquet or .conll file, as for layerdrop run --test_file, with the run's text
columns. Any other file, and stdin, contain plain lines: one text, or two texts separated by a tab. --dataset_name
predicts a split of a dataset, as for layerdrop run. Each input row gives one output row: its index (the value in
a column index, idx or id, else the row number from 0), then a class and its probability, or a value. With several
labels in a row, the prediction is a list. With labels of tokens, it has a tag for each word, separated by blanks. The
prediction of an empty line is empty. An --output file with the ending .csv is separated by commas, any other by tabs.
"""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from layerdrop.errors import UserError
from layerdrop.system.files import LocalPath
from layerdrop.system.text import csv_cell

EARLIER = rb"\A(([^\n]*\t)?index\t)?prediction(\tprobability)?\n|\A([^\n]*,)?index,prediction(,probability)?\n"
"""Start of every file of predictions."""
SKIPPING = "write an empty prediction for it"
"""The effect of --skip_bad_rows on a malformed row."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop predict`."""
    parser.add_argument("model", type=LocalPath, help="folder or hub name of a classifier")
    parser.add_argument("file", type=LocalPath, nargs="?", help="file of texts, or - for stdin (default: stdin)")
    parser.add_argument("--text", nargs="+", help="one text, or a pair of texts")
    parser.add_argument("--dataset_name", type=LocalPath, help="dataset on the hub, or in a folder")
    parser.add_argument("--dataset_config_name", help="configuration of the dataset")
    parser.add_argument("--test_split", help="split of the dataset to predict (default: test)")
    parser.add_argument("--cache_dir", type=LocalPath, help="folder of the download cache")
    parser.add_argument("--token", help="access token for private datasets on the hub")
    parser.add_argument("--text_columns", help="the one or two text columns, separated by a comma (default: the run's)")
    parser.add_argument("--max_seq_length", type=int, help="maximum number of tokens (default: the run's)")
    parser.add_argument("--skip_bad_rows", action="store_true", help="write an empty prediction for each malformed row")
    parser.add_argument("--keep_columns", action="store_true", help="write the input's columns before the predictions")
    parser.add_argument("--output", type=LocalPath, help="file of the predictions (default: stdout)")
    parser.add_argument("--batch_size", type=int, default=32, help="number of texts in a batch")


def main(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Write predictions. Returns the exit code."""
    args = parser.parse_args(words)
    _check(args)
    from layerdrop.deploy.predict import Predictor
    from layerdrop.system.files import make_folder_of, write_atomically
    from layerdrop.system.own_files import OwnFiles
    from layerdrop.system.process import freeze_imports

    freeze_imports()
    if args.output:
        make_folder_of("--output", args.output, EARLIER)
        if OwnFiles(Path(args.output).parent).owns(Path(args.output).name):
            raise UserError(f"--output {args.output}: belongs to the run in this folder. Give another name.")
        if args.file and Path(args.output).resolve() == Path(args.file).resolve():
            raise UserError(f"--output {args.output}: is the file to predict. Give another name.")
    predictor = Predictor(args.model, args.max_seq_length)
    texts = _read(args, predictor)
    as_csv = Path(args.output or "").suffix.lower() == ".csv"
    kept = _kept_columns(texts, as_csv) if args.keep_columns else [()] * (len(texts.texts) + 1)
    rows = predictor.table(texts, args.batch_size)
    text = _formatted([own + row for own, row in zip(kept, rows, strict=True)], as_csv)
    notes = [*texts.notes, *predictor.notes]
    if args.max_seq_length and predictor.length < args.max_seq_length:
        given, n = args.max_seq_length, predictor.length
        notes.append(
            f"--max_seq_length {given}: the model reads at most {n} tokens, so longer texts are truncated to {n}"
        )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if args.output:
        write_atomically(Path(args.output), text)
        n = len(rows) - 1
        print(f"{args.output}: predictions of {n} row{'s' * (n != 1)}")
    else:
        print(text, end="")
    return 0


def _kept_columns(texts, as_csv: bool) -> list[tuple[str, ...]]:
    """A header, then the input's cells of each row. Raises UserError for cells that do not fit into the output."""
    if clash := next((name for name in ("index", "prediction", "probability") if name in texts.columns), None):
        raise UserError(f"--keep_columns: {texts.source} has a column '{clash}', as the output has. Rename the column.")
    rows = [texts.columns, *texts.cells]
    broken = (name for row in rows for name, cell in zip(texts.columns, row, strict=True) if set(cell) & set("\t\r\n"))
    if not as_csv and (name := next(broken, None)):
        raise UserError(
            f"--keep_columns: column {name!r} of {texts.source} has a tab or a line end in a cell, which tsv cannot "
            "hold. Give an --output with the ending .csv."
        )
    return rows


def _formatted(rows: Sequence[Sequence[str]], as_csv: bool) -> str:
    """Rows as csv, in which no cell is a formula, or as tsv without quoting."""
    if not as_csv:
        return "".join("\t".join(row) + "\n" for row in rows)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(map(csv_cell, row) for row in rows)
    return text.getvalue()


def _check(args: argparse.Namespace) -> None:
    """Raise UserError for incompatible flags."""
    from layerdrop.data.to_predict import is_table
    from layerdrop.system.limits import check_numbers

    sources = {"--text": args.text, "a file": args.file, "--dataset_name": args.dataset_name}
    if len(given := [name for name, value in sources.items() if value]) > 1:
        raise UserError(f"{given[0]} and {given[1]}: only one input is allowed. Leave one of them out.")
    for name in ("dataset_config_name", "test_split"):
        if getattr(args, name) and not args.dataset_name:
            raise UserError(f"--{name}: only with --dataset_name. Leave --{name} out.")
    if args.text and not all(text.strip() for text in args.text):
        raise UserError("--text: an empty text has no prediction. Give a text.")
    if args.text and len(args.text) > 2:
        raise UserError(
            f"--text: takes one text or one pair, not {len(args.text)} texts. Quote each text. For several texts, give "
            "a file with one text on each line."
        )
    if not given and sys.stdin.isatty():
        raise UserError("nothing to predict. Give a file, --text, --dataset_name, or lines on stdin.")
    for name in ("text_columns", "keep_columns"):
        if getattr(args, name) and not (args.dataset_name or (args.file and is_table(args.file))):
            raise UserError(
                f"--{name}: only for datasets and files with columns, such as csv or CoNLL. Leave --{name} out."
            )
    check_numbers(vars(args))


def _read(args: argparse.Namespace, predictor):
    """Read the texts for a Predictor. Raises UserError."""
    from layerdrop.checkpoints import work_offline_unless_reachable
    from layerdrop.data.hub import is_folder, read_dataset_split
    from layerdrop.data.readers import STDIN, read_table
    from layerdrop.data.to_predict import ToPredict, is_table, read_columns, read_lines
    from layerdrop.system.text import names_in

    if args.text:
        return ToPredict("--text", ["0"], [tuple(args.text)])
    chosen = names_in(args.text_columns)
    if args.dataset_name:
        if not is_folder(args.dataset_name):
            work_offline_unless_reachable()
        dataset = args.dataset_name, args.dataset_config_name, args.test_split or "test"
        table = read_dataset_split(*dataset, "--test_split", args.cache_dir, args.token)
        table = replace(table, skipping=SKIPPING)
        return read_columns(table, predictor.columns, chosen, args.skip_bad_rows, predictor.kind.text_cell)
    if args.file in (None, "-"):
        return read_lines(sys.stdin.buffer.read(), STDIN, args.skip_bad_rows)
    if is_table(args.file):
        table = read_table("FILE", args.file, args.skip_bad_rows, skipping=SKIPPING)
        return read_columns(table, predictor.columns, chosen, args.skip_bad_rows, predictor.kind.text_cell)
    try:
        content = Path(args.file).read_bytes()
    except OSError as error:
        raise UserError(f"{args.file}: cannot read the file ({error.strerror}). Check the path.") from None
    return read_lines(content, args.file, args.skip_bad_rows)
