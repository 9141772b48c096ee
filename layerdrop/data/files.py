"""The user's own files: the task that they describe, and the examples of each split."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from layerdrop.data.columns import INDEX_COLUMNS, class_names, label_is_number, text_columns
from layerdrop.data.examples import BadRow, Examples, Row, UnknownLabel, as_number, collect, shortened
from layerdrop.data.tables import Table, read_table
from layerdrop.errors import UserError
from layerdrop.spec import DataSpec
from layerdrop.tasks import Task, custom_task, get_task

Files = Sequence[tuple[str, str]]
"""(split, path) pairs."""


def own_task_name(files: Files) -> str:
    """Name of the task of own files: the first file's, or its folder's where the file's only says which split it is.

    `-files` is added to the name of a GLUE or demo task: it is not that task.
    """
    path = Path(files[0][1]).absolute()
    name = path.parent.name if path.stem in ("train", "validation", "dev", "test") else path.stem
    try:
        get_task(name)
    except UserError:
        return name
    return f"{name}-files"


def read_own_files(
    spec: DataSpec,
    files: Files,
    task: Task | None,
    known_labels: Sequence[str] = (),
    regression: bool | None = None,
) -> tuple[Task, dict[str, Examples], list[str]]:
    """The task (or `task` with the files' columns), the examples of each split, and notes for the user.

    Classes are those of the train file; without one `known_labels` (the checkpoint's), else those of the first file.
    Whether labels are numbers: `spec.label_type`; if that is auto, the train file's values (`label_is_number`),
    without one `regression` (the checkpoint's head), else the first file's values.
    Raises UserError for unreadable files, unclear columns, and with file and line for a malformed row.
    """
    tables = {split: read_table(f"--{split}_file", path, spec.skip_bad_rows) for split, path in files}
    split, first = next(iter(tables.items()))
    if split == "train":
        known_labels, regression = (), None
    texts = text_columns(first, spec.label_column, spec.text_columns, task)
    notes = [] if spec.text_columns else [_note_on_texts(first, texts, spec.label_column)]
    by_id = task is not None or bool(known_labels)
    if task is not None:
        task = replace(task, texts=texts, label=spec.label_column, suffixes=("",))
    else:
        task = custom_task(spec.task, texts, spec.label_column, _classes(first, spec, known_labels, regression))
        if not by_id and spec.label_type == "auto":
            notes += _notes_on_classes(task)
    ids = _label_ids(task, by_id)
    read = {split: _examples(table, task, ids, split != "test", spec.skip_bad_rows) for split, table in tables.items()}
    return task, read, notes


def _classes(table: Table, spec: DataSpec, known_labels: Sequence[str], regression: bool | None) -> tuple[str, ...]:
    """Class names in id order; empty where labels are numbers."""
    if spec.label_type != "auto":
        regression = spec.label_type == "number"
    elif regression is None:
        regression = not known_labels and label_is_number(table, spec.label_column)
    if regression:
        return ()
    if known_labels:
        return tuple(known_labels)
    names = class_names(map(str, table.values(spec.label_column)))
    if not names:
        raise _no_label_column(table, spec.label_column)
    if len(names) == 1:
        raise UserError(
            f"{table.path}: only one class, '{names[0]}'. Where the label is a number: --label_type number."
        )
    return names


def _no_label_column(table: Table, column: str) -> UserError:
    if column in table.columns:
        return UserError(f"--label_column {column}: empty in every row of {table.path}. Name another column.")
    return UserError(f"--label_column: {table.path} has no '{column}'; found: {', '.join(table.columns)}.")


def _note_on_texts(table: Table, texts: tuple[str, ...], label: str) -> str:
    rest = [name for name in table.columns if name not in (*texts, label, *INDEX_COLUMNS)]
    unused = f"; not used: {shortened(rest)}" if rest else ""
    return f"text taken from {' and '.join(texts)} of {table.path}{unused} (--text_columns names others)"


def _notes_on_classes(task: Task) -> list[str]:
    numbers = [name for name in task.labels if as_number(name) is not None]
    if not numbers or len(numbers) == len(task.labels):
        return []
    words = [name for name in task.labels if name not in numbers]
    return [f"numbers and words are classes alike: {shortened(words)} beside {shortened(numbers)} in '{task.label}'"]


def _label_ids(task: Task, by_id: bool) -> dict[str, int]:
    """Class id of every way in which a file may write a label.

    by_id: the class names come from elsewhere than the file, which then may hold ids instead, unless a class name is
    a number itself.
    """
    spellings = [task.labels, task.words]
    if by_id and not any(as_number(name) is not None for name in (*task.labels, *task.words)):
        spellings.insert(0, tuple(map(str, range(len(task.labels)))))
    return {name: i for names in spellings for i, name in enumerate(names)}


def _examples(table: Table, task: Task, ids: dict[str, int], labelled: bool, skip_bad_rows: bool) -> Examples:
    if labelled and task.label not in table.columns:
        raise _no_label_column(table, task.label)
    if missing := [name for name in task.texts if name not in table.columns]:
        raise UserError(
            f"{table.path}: no column {', '.join(missing)}; found: {', '.join(table.columns)}. "
            "All files need the same text columns."
        )

    index = next((name for name in INDEX_COLUMNS if name in table.columns), None)

    def parse(row: dict[str, object] | BadRow) -> Row:
        if isinstance(row, BadRow):
            raise row
        texts = tuple([_cell(row, name) for name in task.texts])
        label = _label(task, ids, _cell(row, task.label)) if labelled else None
        name = row.get(index)
        return texts, label, "" if name is None else str(name)

    return collect(table.path, table.rows, parse, skip_bad_rows)


def _cell(row: dict[str, object], column: str) -> str:
    if column not in row:
        raise BadRow(f"no column {column}; found: {', '.join(row)}")
    value = row[column]
    if value is None or value == "":
        raise BadRow(f"an empty cell in column '{column}'")
    return str(value)


def _label(task: Task, ids: dict[str, int], text: str) -> float | int:
    if not task.is_regression:
        if text not in ids:
            raise UnknownLabel(text, task.words)
        return ids[text]
    value = as_number(text)
    if value is None:
        raise BadRow(f"label '{text}' of column '{task.label}' is not a number (for classes: --label_type class)")
    return value
