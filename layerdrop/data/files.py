"""The user's own files: the task that they describe, and the examples of each split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from layerdrop.checkpoints import Checkpoint
from layerdrop.data.columns import (
    INDEX_COLUMNS,
    class_names,
    is_missing,
    label_is_number,
    maybe_missing,
    positive_class,
    text_columns,
)
from layerdrop.data.examples import BadRow, Examples, Row, UnknownLabel, as_number, collect, shortened
from layerdrop.data.kinds import Kind, Values
from layerdrop.data.labels import head_kind
from layerdrop.data.spec import DataSpec
from layerdrop.data.tables import Table, read_table
from layerdrop.data.tasks import Task, custom_task, get_task
from layerdrop.errors import UserError, unknown

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
    checkpoint: Checkpoint | None = None,
) -> tuple[Task, dict[str, Examples], list[str]]:
    """The task (or `task` with the files' columns), the examples of each split, and notes for the user.

    Classes are those of the train file; without one the checkpoint's, else those of the first file.
    Whether labels are numbers: `spec.label_type`; if that is auto, the train file's values (`label_is_number`),
    without one the checkpoint's head, else the first file's values. The positive one of two classes:
    `spec.positive_label`; else by the train file (`positive_class`), without one the checkpoint's.
    Raises UserError for unreadable files, unclear columns, and with file and line for a malformed row.
    """
    tables = {split: read_table(f"--{split}_file", path, spec.skip_bad_rows) for split, path in files}
    split, first = next(iter(tables.items()))
    known_labels, head, known_positive = (), None, None
    if split != "train" and checkpoint is not None:
        known_labels, head, known_positive = checkpoint.label_names, head_kind(checkpoint), checkpoint.positive_label
    texts = text_columns(first, spec.label_column, spec.text_columns, task)
    tables = {split: _as_text(table, texts, split, spec) for split, table in tables.items()}
    first = tables[split]
    notes = [] if spec.text_columns else [_note_on_texts(first, texts, spec.label_column)]
    by_id = task is not None or bool(known_labels)
    if task is not None:
        task = replace(task, texts=texts, label=spec.label_column, suffixes=("",))
    else:
        task = custom_task(spec.task, texts, spec.label_column, _classes(first, spec, known_labels, head))
        if not by_id and spec.label_type == "auto":
            notes += _notes_on_classes(task)
        counts = Counter(first.values(task.label)) if split == "train" else None
        positive, why = _positive(first.path, task.labels, spec.positive_label, known_positive, counts)
        task = replace(task, positive=positive)
        if why and list(tables) != ["test"]:
            notes.append(f"f1 measures class '{task.positive_label}' ({why}; --positive_label chooses another)")
    ids = _label_ids(task, by_id)
    index = {split: index_column(table) for split, table in tables.items()}
    notes += [note for _, note in index.values() if note]
    read = {
        split: _examples(table, task, ids, split != "test", index[split][0], spec.skip_bad_rows)
        for split, table in tables.items()
    }
    return task, read, notes


def _as_text(table: Table, texts: Sequence[str], split: str, spec: DataSpec) -> Table:
    """Read the table of a split, with texts and (if present) labels as text."""
    label = [] if split == "test" else [spec.label_column]
    if label and not table.values(spec.label_column):
        raise _no_label_column(table, spec.label_column)
    if missing := [name for name in texts if name not in table.columns]:
        raise UserError(
            f"{table.path}: no column {', '.join(missing)}; found: {', '.join(table.columns)}. "
            "All files need the same text columns."
        )
    return table.as_text((*texts, *label), spec.skip_bad_rows)


def index_column(table: Table) -> tuple[str | None, str]:
    """The column that names the rows, and a note.

    None if there is no such column, or a row has no name in it, or a name does not fit in a .tsv cell (note).
    """
    name = next((name for name in INDEX_COLUMNS if name in table.columns), None)
    if name is None:
        return None, ""
    for line, row in table.rows:
        if isinstance(row, dict) and (row.get(name) in (None, "") or _breaks_tsv(str(row[name]))):
            return None, f"{table.path}:{line}: no {name}, so rows are named by their numbers from 0"
    return name, ""


def _breaks_tsv(cell: str) -> bool:
    """Whether the text does not fit in a predictions file (tab-separated, without quoting)."""
    return any(end in cell for end in "\t\r\n")


def _classes(table: Table, spec: DataSpec, known_labels: Sequence[str], head: Kind | None) -> tuple[str, ...]:
    """Class names in id order; empty where labels are numbers."""
    if spec.label_type != "auto":
        numbers = spec.label_type == "number"
    elif head is None:
        numbers = not known_labels and label_is_number(table, spec.label_column)
    else:
        numbers = isinstance(head, Values)
    if numbers:
        return ()
    if known_labels:
        return tuple(known_labels)
    labels = table.as_text([spec.label_column], skip_bad_rows=True).values(spec.label_column)
    names = class_names(label for label in labels if spec.label_type == "class" or not is_missing(label))
    if not names:
        raise _no_label_column(table, spec.label_column)
    if broken := next((name for name in names if _breaks_tsv(name)), None):
        raise UserError(f"{table.path}: class {broken!r} has a tab or a line end in its name. Rename it.")
    if len(names) == 1:
        raise UserError(
            f"{table.path}: only one class, '{names[0]}'. Where the label is a number: --label_type number."
        )
    return names


def _positive(
    path: str, names: Sequence[str], chosen: str | None, known: str | None, counts: Counter[str] | None
) -> tuple[int, str]:
    """(id of the positive class, the reason for a note, or an empty string). Raises UserError."""
    if chosen is not None:
        if len(names) != 2:
            kind = f"{len(names)} classes" if names else "numbers"
            raise UserError(
                f"--positive_label {chosen}: needs two classes, and the labels of {path} are {kind}. Leave it out."
            )
        if chosen not in names:
            raise unknown("--positive_label", chosen, names)
        return names.index(chosen), ""
    if len(names) != 2:
        return 1, ""
    name, why = (known, "as in the model's training") if known in names else positive_class(names, counts)
    return names.index(name), why


def _no_label_column(table: Table, column: str) -> UserError:
    if column in table.columns:
        return UserError(f"--label_column {column}: empty in every row of {table.path}. Name another column.")
    return UserError(f"--label_column: {table.path} has no '{column}'; found: {', '.join(table.columns)}.")


def _note_on_texts(table: Table, texts: tuple[str, ...], label: str) -> str:
    rest = [name for name in table.columns if name not in (*texts, label, *INDEX_COLUMNS)]
    unused = f"; not used: {shortened(rest)}" if rest else ""
    return f"text taken from {' and '.join(texts)} of {table.path}{unused} (--text_columns names others)"


def _notes_on_classes(task: Task) -> list[str]:
    notes = []
    if missing := maybe_missing(task.labels):
        others = [name for name in task.labels if name not in missing]
        notes.append(
            f"'{shortened(missing)}' of column '{task.label}' is a class beside {shortened(others)}: if it marks a "
            "missing label, take its rows out of the file"
        )
    numbers = [name for name in task.labels if as_number(name) is not None]
    if numbers and len(numbers) < len(task.labels):
        words = [name for name in task.labels if name not in numbers]
        notes.append(
            f"both numbers and words are classes in '{task.label}': {shortened(words)} beside {shortened(numbers)}"
        )
    return notes


def _label_ids(task: Task, by_id: bool) -> dict[str, int]:
    """Class id of every way in which a file may write a label.

    by_id: the class names come from elsewhere than the file, which then may hold ids instead, unless a class name is
    a number itself.
    """
    spellings = [task.labels, task.words]
    if by_id and not any(as_number(name) is not None for name in (*task.labels, *task.words)):
        spellings.insert(0, tuple(map(str, range(len(task.labels)))))
    return {name: i for names in spellings for i, name in enumerate(names)}


def _examples(
    table: Table, task: Task, ids: dict[str, int], labelled: bool, index: str | None, skip_bad_rows: bool
) -> Examples:
    def parse(row: dict[str, object] | BadRow) -> Row:
        if isinstance(row, BadRow):
            raise row
        label = _label(task, ids, row[task.label]) if labelled else None
        return tuple([row[name] for name in task.texts]), label, str(row[index]) if index else ""

    return collect(table.path, table.rows, parse, skip_bad_rows)


def _label(task: Task, ids: dict[str, int], text: str) -> float | int:
    if task.labels:
        if text in ids:
            return ids[text]
        if is_missing(text):
            raise BadRow(f"label '{text}' means that a label is missing (as a class: --label_type class)")
        raise UnknownLabel(text, task.words)
    value = as_number(text)
    if value is None:
        raise BadRow(f"label '{text}' of column '{task.label}' is not a number (for classes: --label_type class)")
    return value
