"""Splits of the classical GLUE folders and of the embedded demo tasks."""

from pathlib import Path

import numpy as np

from layerdrop.data.examples import BadRow, Examples, Row, as_number, class_id, collect
from layerdrop.data.tasks import Task
from layerdrop.demo.tasks import rows as demo_rows
from layerdrop.errors import UserError

LOCAL_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
"""Name of a split here -> stem of its file."""
DIAGNOSTIC_SPLIT = "test_ax"
"""GLUE's diagnostic set: a further test set of MNLI."""
DIAGNOSTIC_FILES = ("diagnostic.tsv", "MNLI/diagnostic.tsv", "AX/AX.tsv", "diagnostic/diagnostic.tsv")
"""Usual places of the diagnostic set, below the GLUE folder or below MNLI's own."""


def read_glue_tsv(path: Path, task: Task, labelled: bool, skip_bad_rows: bool = False) -> Examples:
    """A file of the classical GLUE layout: tab-separated, no quoting, a header (CoLA's labelled files have none).

    Raises UserError for a missing file or column, and with file and line for a malformed row.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"--data_dir: cannot read {path} ({error.strerror}). {_expected_layout(task)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Convert the file.") from None
    lines = enumerate((line.rstrip("\r") for line in text.split("\n")), 1)
    header = task.header if task.header and labelled else tuple(next(lines)[1].split("\t"))
    wanted = (*task.texts, task.label) if labelled else task.texts
    if missing := [column for column in wanted if column not in header]:
        raise UserError(
            f"{path}:1: no column {', '.join(missing)}; found: {', '.join(header)}. {_expected_layout(task)}"
        )
    texts = [header.index(column) for column in task.texts]
    label = header.index(task.label) if labelled else None
    index = next((header.index(name) for name in ("index", "id") if name in header), None)

    def parse(line: str) -> Row:
        fields = line.split("\t")
        if len(fields) != len(header):
            raise BadRow(f"{len(fields)} columns instead of {len(header)}")
        value = None if label is None else _parse_label(task, fields[label])
        return tuple([fields[i] for i in texts]), value, fields[index] if index is not None else ""

    return collect(path, ((number, line) for number, line in lines if line), parse, skip_bad_rows)


def _parse_label(task: Task, text: str) -> float | int:
    if task.labels:
        return class_id(text, task.words)
    value = as_number(text)
    if value is None:
        raise BadRow(f"label '{text}' is not a number")
    return value


def _expected_layout(task: Task) -> str:
    folder = task.folder
    return f"Expected for {task.name}: {folder}/train.tsv, {folder}/dev{task.suffixes[0]}.tsv ... as GLUE ships them."


def read_glue_split(data_dir: str, task: Task, split: str, skip_bad_rows: bool = False) -> Examples:
    """One split (`train`, `validation`, `test`, for MNLI with `_matched` or `_mismatched`) of a local GLUE folder.

    `data_dir` holds the task's folder (`RTE`), or is that folder.
    """
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"--data_dir {data_dir}: no such folder. {_expected_layout(task)}")
    if (folder / task.folder).is_dir():
        folder = folder / task.folder
    stem, _, suffix = split.partition("_")
    name = LOCAL_SPLITS[stem] + (f"_{suffix}" if suffix else "")
    return read_glue_tsv(folder / f"{name}.tsv", task, stem != "test", skip_bad_rows)


def read_glue_diagnostic(data_dir: str, task: Task, skip_bad_rows: bool = False) -> Examples | None:
    """GLUE's diagnostic set with MNLI's columns, without labels; None where the folder does not hold it."""
    path = next((path for name in DIAGNOSTIC_FILES if (path := Path(data_dir).expanduser() / name).is_file()), None)
    return None if path is None else read_glue_tsv(path, task, False, skip_bad_rows)


def read_demo_split(task: Task, split: str) -> Examples:
    """One split of a task of the embedded artificial language."""
    made = demo_rows(task.name, split)
    labels = np.array(list(made.values()), dtype=task.kind.dtype)
    texts = tuple(list(column) for column in zip(*made, strict=True))
    return Examples(texts, None if split == "test" else labels, [str(i) for i in range(len(made))])
