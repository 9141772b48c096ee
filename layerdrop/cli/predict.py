"""Predict with a trained model.

  layerdrop predict MODEL reviews.csv --output predictions.tsv
  layerdrop predict MODEL --text "a text" ["a second text"]
  some-command | layerdrop predict MODEL

MODEL: the folder of a run that kept its model, of an export (model.onnx runs in onnxruntime), or of another classifier.
FILE: a .csv, .tsv, .json, .jsonl, .parquet or .conll file, as for layerdrop run --test_file, with the run's text
columns. Any other file, and stdin, contain plain lines: one text, or two texts separated by a tab. Each input row gives
one output row: its index (column index, idx or id, else the row number from 0), then a class and its probability, or a
value. With several labels in a row, the prediction is a list. With labels of tokens, it has a tag for each word, and
blanks between tags. The prediction of an empty line is empty.
"""

import argparse
import sys
from pathlib import Path

from layerdrop.errors import UserError
from layerdrop.system.files import LocalPath


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop predict`."""
    parser.add_argument("model", type=LocalPath, help="folder of a classifier")
    parser.add_argument("file", type=LocalPath, nargs="?", help="file of texts; default, or -: stdin")
    parser.add_argument("--text", nargs="+", help="one text, or a pair of texts")
    parser.add_argument("--text_columns", help="the one or two text columns, separated by a comma (default: the run's)")
    parser.add_argument("--max_seq_length", type=int, help="maximum number of tokens (default: the run's)")
    parser.add_argument("--skip_bad_rows", action="store_true", help="empty predictions for malformed rows")
    parser.add_argument("--output", type=LocalPath, help="file of the predictions (default: stdout)")
    parser.add_argument("--batch_size", type=int, default=32, help="texts in a batch")


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
        make_folder_of("--output", args.output, rb"\A(index\t)?prediction(\tprobability)?\n")
        if OwnFiles(Path(args.output).parent).owns(Path(args.output).name):
            raise UserError(f"--output {args.output}: belongs to the run in this folder. Give another name.")
    predictor = Predictor(args.model, args.max_seq_length)
    texts = _read(args, predictor)
    text = "".join("\t".join(row) + "\n" for row in predictor.table(texts, args.batch_size))
    notes = list(texts.notes)
    if n_empty := len(texts.texts) - len(texts.rows):
        notes.append(f"{n_empty} of {len(texts.texts)} rows have no text and get an empty prediction")
    if args.max_seq_length and predictor.length < args.max_seq_length:
        notes.append(f"--max_seq_length {args.max_seq_length}: the model takes at most {predictor.length} tokens")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if args.output:
        write_atomically(Path(args.output), text)
    else:
        print(text, end="")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise UserError for incompatible flags."""
    from layerdrop.cli.limits import check_numbers
    from layerdrop.data.to_predict import is_table

    if args.text and args.file:
        raise UserError("--text and a file both give the texts. Give one of them.")
    if args.text and not all(text.strip() for text in args.text):
        raise UserError("--text: an empty text has no prediction. Give a text.")
    if args.text and len(args.text) > 2:
        raise UserError(f"--text: takes one or two texts, not {len(args.text)}. Put each between quotes.")
    if not args.text and not args.file and sys.stdin.isatty():
        raise UserError("nothing to predict. Give a file, --text, or lines on stdin.")
    if args.text_columns and not (args.file and is_table(args.file)):
        raise UserError("--text_columns: only for csv, tsv, JSON and parquet files. Leave it out.")
    check_numbers(vars(args))


def _read(args: argparse.Namespace, predictor):
    """Read the texts for a Predictor. Raises UserError."""
    from layerdrop.data.to_predict import ToPredict, is_table, read_columns, read_lines

    if args.text:
        return ToPredict("--text", ["0"], [tuple(args.text)])
    if args.file in (None, "-"):
        return read_lines(sys.stdin.buffer.read(), "stdin")
    if is_table(args.file):
        chosen = [name.strip() for name in (args.text_columns or "").split(",") if name.strip()]
        return read_columns(args.file, predictor.columns, predictor.kind, chosen, args.skip_bad_rows)
    try:
        content = Path(args.file).expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"{args.file}: cannot read the file ({error.strerror}). Check the path.") from None
    return read_lines(content, args.file)
