"""Prediction files: with labels for the validation set, in GLUE's submission format for the test set."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from layerdrop.data.examples import Examples
from layerdrop.data.tasks import Task
from layerdrop.system.own_files import OwnFiles
from layerdrop.system.process import is_first

SUFFIXES = {"": "", "_matched": "-m", "_mismatched": "-mm"}
"""Ending of a test split -> ending of its submission file."""
DIAGNOSTIC = "AX.tsv"
"""Submission of GLUE's diagnostic set, the split `test_ax`."""


def _table(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """Format rows as tab-separated text without quoting."""
    lines = ["\t".join(map(str, row)) for row in (header, *rows)]
    return "\n".join(lines) + "\n"


def predictions_file(task: Task, split: str) -> str:
    """Name of a split's predictions file: `predictions_dev.tsv` (MNLI: two), `RTE.tsv`, `MNLI-m.tsv`, `AX.tsv` ..."""
    if not split.startswith("test"):
        return f"predictions_{split.replace('validation', 'dev')}.tsv"
    suffix = split.removeprefix("test")
    return DIAGNOSTIC if suffix == "_ax" else f"{task.folder}{SUFFIXES[suffix]}.tsv"


def write_predictions(folder: str, task: Task, split: str, examples: Examples, predictions: np.ndarray) -> None:
    """Write a split's predictions: (n,) class ids in the task's order, or values, in the order of `examples`.

    Columns of a validation split: index, label, prediction (class names or values). Columns of a test split: index,
    prediction (GLUE's label words, or values clipped to the task's range).
    """
    name = predictions_file(task, split)
    if split.startswith("test"):
        text = _table(("index", "prediction"), zip(examples.index, task.kind.submitted(predictions), strict=True))
    else:
        rows = zip(examples.index, task.kind.shown(examples.labels), task.kind.shown(predictions), strict=True)
        text = _table(("index", "label", "prediction"), rows)
    if is_first():
        OwnFiles(folder).write({name: text})


def read_predictions(folder: str) -> tuple[list[str], list[str], list[str]] | None:
    """(index, label, prediction) of the first validation split (MNLI: matched); None without a file.

    Raises ValueError, which names the path, for a file in another format.
    """
    path = next(iter(sorted(Path(folder).glob("predictions_dev*.tsv"))), None)
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        index, labels, predictions = ([row[name] for row in rows] for name in ("index", "label", "prediction"))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise ValueError(f"{path}: no predictions: {error}") from error
    if None in (*index, *labels, *predictions):
        raise ValueError(f"{path}: no predictions: a line is cut off")
    return index, labels, predictions
