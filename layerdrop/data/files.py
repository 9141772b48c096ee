"""Read the user's own data, files or a dataset: the task, and the rows of each split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from layerdrop.checkpoints import Checkpoint
from layerdrop.data.columns import (
    INDEX_COLUMNS,
    check_blanks,
    class_names,
    label_is_number,
    maybe_missing,
    positive_class,
    text_columns,
)
from layerdrop.data.examples import Examples, as_number, is_missing, shortened
from layerdrop.data.hub import read_dataset_split
from layerdrop.data.labels import head_kind
from layerdrop.data.spec import DataSpec
from layerdrop.data.tables import Table, read_table
from layerdrop.data.tasks import Task, custom_task, get_task
from layerdrop.errors import UserError, unknown

Files = Sequence[tuple[str, str]]
"""(split, path of a file, or a dataset's name of the split) pairs."""


class Head(NamedTuple):
    """A checkpoint's trained head."""

    labels: tuple[str, ...] = ()
    """Classes in id order. Empty if unknown."""
    regression: bool | None = None
    """Whether the head outputs a number. None if unknown."""
    positive: str | None = None
    """The class that `f1` measures. None if unknown."""

    @classmethod
    def of(cls, checkpoint: Checkpoint | None) -> "Head":
        """The head of a checkpoint, or an unknown head."""
        if checkpoint is None:
            return cls()
        kind = head_kind(checkpoint)
        return cls(tuple(checkpoint.label_names), kind and not kind.names, checkpoint.positive_label)


def own_task_name(files: Files) -> str:
    """Name of the task of own files: the first file's name, or its folder's name for a file such as `train.csv`.

    The name of a GLUE or demo task gets the ending `-files`.
    """
    path = Path(files[0][1]).absolute()
    name = path.parent.name if path.stem in ("train", "validation", "dev", "test") else path.stem
    return f"{name}-files" if _is_task(name) else name


def dataset_task_name(name: str, config: str | None) -> str:
    """Name of the task of a dataset: the last part of its name, and its configuration.

    The name of a GLUE or demo task gets the ending `-dataset`.
    """
    task = "-".join([Path(name).absolute().name, *([config] if config else [])])
    return f"{task}-dataset" if _is_task(task) else task


def _is_task(name: str) -> bool:
    try:
        get_task(name)
    except UserError:
        return False
    return True


def read_tables(
    spec: DataSpec,
    files: Files,
    limits: Mapping[str, int | None] = MappingProxyType({}),
    cache_dir: str | None = None,
    token: str | None = None,
) -> dict[str, Table]:
    """Split -> table of own data. limits: split -> number of rows to read from its file, see `read_table`. All labels
    of the first file are read, because they decide the classes. Raises UserError for unreadable data.
    """
    if spec.dataset_name is None:
        labels = {files[0][0]: spec.label_column}
        return {
            split: read_table(spec.flag(split), path, spec.skip_bad_rows, limits.get(split), labels.get(split))
            for split, path in files
        }
    dataset = spec.dataset_name, spec.dataset_config_name
    return {split: read_dataset_split(*dataset, name, spec.flag(split), cache_dir, token) for split, name in files}


def own_examples(
    spec: DataSpec, tables: Mapping[str, Table], task: Task | None, head: Head
) -> tuple[Task, dict[str, Examples], list[str]]:
    """Convert own data. Returns the task (or `task` with the data's columns), the rows of each split, and notes.

    tables: split -> table. The training set decides the classes, the type of the labels and the positive class. Without
    a training set, the checkpoint's `head` decides. If the head is unknown, the first table decides. `spec.label_type`
    and `spec.positive_label` override these decisions.

    Raises UserError for unclear columns and malformed rows.
    """
    skip, tables = spec.skip_bad_rows, dict(tables)
    split, first = next(iter(tables.items()))
    if split == "train":
        head = Head()
    if split == "test" and not task and head == Head() and spec.label_column not in first.columns:
        raise UserError(
            f"{spec.flag('test')}: the model is not fine-tuned, so its classes are unknown. Add --do_train, or give a "
            "fine-tuned model."
        )
    texts = text_columns(first, spec.label_column, spec.text_columns, task)
    for name, table in tables.items():
        label = () if name == "test" else (spec.label_column,)
        table.require("--text_columns", texts)
        table.require("--label_column", label)
        tables[name] = table.as_text((*texts, *label), skip)
    first = tables[split]
    notes = [] if spec.text_columns else [_note_on_texts(first, texts, spec.label_column)]
    known_classes = bool(task or head.labels or first.classes.get(spec.label_column))
    if task:
        task = replace(task, texts=texts, label=spec.label_column, suffixes=("",))
    else:
        if spec.label_type == "auto":
            check_blanks(first.with_all_labels, spec.label_column)
        task = custom_task(spec.task, texts, spec.label_column, _classes(first.with_all_labels, spec, head))
        if not known_classes and spec.label_type == "auto":
            notes += _notes_on_classes(task)
        counts = Counter(first.with_all_labels.values(task.label).values()) if split == "train" else None
        positive, reason = _positive(first.path, task.labels, spec.positive_label, head.positive, counts)
        task = replace(task, positive=positive)
        if reason and list(tables) != ["test"]:
            notes.append(f"f1 measures class '{task.positive_label}' ({reason}; to change: --positive_label)")
    class_ids = _class_ids(task, known_classes)
    examples = {}
    for split, table in tables.items():
        index, note = index_column(table)
        notes += [note] if note else []
        examples[split] = table.examples(task, class_ids, index, split != "test", skip)
    return task, examples, notes


def index_column(table: Table) -> tuple[str | None, str]:
    """Return (column of the row names, note).

    The column is None if the file has no such column. It is None, with a note, if a row has no name, or a name
    that does not fit into a .tsv cell.
    """
    name = next((name for name in INDEX_COLUMNS if name in table.columns), None)
    if name is None:
        return None, ""
    for line, row in table.rows.items():
        if row.get(name) in (None, "") or _breaks_tsv(str(row[name])):
            return None, f"{table.path}:{line}: no {name}, so rows are named by their numbers from 0"
    return name, ""


def _breaks_tsv(cell: str) -> bool:
    """Whether a text would break a predictions file, which is tab-separated without quoting."""
    return any(end in cell for end in "\t\r\n")


def _classes(table: Table, spec: DataSpec, head: Head) -> tuple[str, ...]:
    """Class names in id order. Empty if labels are numbers."""
    regression = spec.label_type == "number"
    if spec.label_type == "auto":
        regression = head.regression
        if regression is None:
            known = head.labels or table.classes.get(spec.label_column)
            regression = not known and label_is_number(table, spec.label_column)
    if regression:
        return ()
    if names := head.labels or table.classes.get(spec.label_column):
        return tuple(names)
    table.require("--label_column", [spec.label_column])
    labels = table.as_text([spec.label_column], skip_bad_rows=True).values(spec.label_column).values()
    names = class_names(label for label in labels if spec.label_type == "class" or not is_missing(label))
    if broken := next((name for name in names if _breaks_tsv(name)), None):
        raise UserError(f"{table.path}: class {broken!r} has a tab or a line end in its name. Rename it.")
    if len(names) < 2:
        classes = f"only one class, '{names[0]}'" if names else f"no label in column '{spec.label_column}'"
        numbers = ", or add --label_type number" if names and as_number(names[0]) is not None else ""
        raise UserError(f"{table.path}: {classes}. Name another --label_column{numbers}.")
    return names


def _positive(
    path: str, names: Sequence[str], chosen: str | None, known: str | None, counts: Counter[str] | None
) -> tuple[int, str]:
    """Return (id of the positive class, reason for a note). The reason can be empty. Raises UserError."""
    if chosen is not None and len(names) != 2:
        kind = f"{len(names)} classes" if names else "numbers"
        raise UserError(
            f"--positive_label {chosen}: needs two classes, and the labels of {path} are {kind}. Leave it out."
        )
    if chosen is not None and chosen not in names:
        raise unknown("--positive_label", chosen, names)
    if len(names) != 2 or chosen:
        return names.index(chosen) if chosen else 1, ""
    name, reason = (known, "as in the model's training") if known in names else positive_class(names, counts)
    return names.index(name), reason


def _note_on_texts(table: Table, texts: tuple[str, ...], label: str) -> str:
    rest = [name for name in table.columns if name not in (*texts, label, *INDEX_COLUMNS)]
    unused = f"; not used: {shortened(rest)}" if rest else ""
    return f"text taken from {' and '.join(texts)} of {table.path}{unused} (to change: --text_columns)"


def _notes_on_classes(task: Task) -> list[str]:
    notes, column = [], task.label
    numbers, words = [], []
    for name in task.labels:
        (words if as_number(name) is None else numbers).append(name)
    if missing := maybe_missing(task.labels):
        others = shortened([name for name in task.labels if name not in missing])
        note = f"'{shortened(missing)}' of column '{column}' is a class, in addition to {others}"
        notes.append(f"{note}: if the class marks missing labels, delete its rows from the file")
    if numbers and words:
        notes.append(f"both numbers and words are classes in '{column}': {shortened(words)} and {shortened(numbers)}")
    return notes


def _class_ids(task: Task, known_classes: bool) -> dict[str, int]:
    """Label in a file -> class id.

    known_classes: whether the class names come from a task or a checkpoint. Labels in the file can then also be class
    ids, unless a class name is a number.
    """
    spellings = [task.labels, task.words]
    if known_classes and not any(as_number(name) is not None for name in (*task.labels, *task.words)):
        spellings.insert(0, tuple(map(str, range(len(task.labels)))))
    return {name: i for names in spellings for i, name in enumerate(names)}
