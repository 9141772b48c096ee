"""Read the user's own data, files or a dataset: the task, and the rows of each split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from layerdrop.checkpoints import Checkpoint
from layerdrop.data.columns import (
    INDEX_COLUMNS,
    LABEL_SEPARATORS,
    check_blanks,
    class_names,
    maybe_missing,
    note_on_quotes,
    note_on_spelling,
    positive_class,
    separator_in,
)
from layerdrop.data.examples import BadRow, Examples, as_number, is_missing, shortened
from layerdrop.data.hub import read_dataset_split
from layerdrop.data.kinds import KINDS, Kind
from layerdrop.data.labels import head_kind
from layerdrop.data.readers import CONLL, read_table
from layerdrop.data.spec import DataSpec
from layerdrop.data.tables import Row, Table
from layerdrop.data.tasks import Task, custom_task, get_task
from layerdrop.errors import UserError, unknown

Files = Sequence[tuple[str, str]]
"""(split, path of a file, or a dataset's name of the split) pairs."""


class Head(NamedTuple):
    """A checkpoint's trained head."""

    labels: tuple[str, ...] = ()
    """Classes in id order. Empty if unknown."""
    label_type: str | None = None
    """The kind of labels that the head predicts. None if unknown."""
    positive: str | None = None
    """The class that `f1` measures. None if unknown."""

    @classmethod
    def of(cls, checkpoint: Checkpoint | None) -> "Head":
        """The head of a checkpoint, or an unknown head."""
        if checkpoint is None:
            return cls()
        kind = head_kind(checkpoint)
        return cls(tuple(checkpoint.label_names), kind and kind.label_type, checkpoint.positive_label)


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
    head: Head,
    limits: Mapping[str, int | None] = MappingProxyType({}),
    cache_dir: str | None = None,
    token: str | None = None,
) -> dict[str, Table]:
    """Split -> table of own data. limits: split -> number of rows to read from its file, see `read_table`. All labels
    of the first file are read, because they decide the classes. Raises UserError for unreadable data.

    head: of the checkpoint. If `spec` or the head asks for labels of tokens, files of other types are read as CoNLL.
    """
    if spec.dataset_name is None:
        known = KINDS.get(spec.label_type if spec.label_type != "auto" or "train" in dict(files) else head.label_type)
        other_type = CONLL if known and not known.pooled else None
        columns = (spec.label_column, *(name for kind in KINDS.values() for name in kind.label_columns))
        labels = {files[0][0]: columns}
        return {
            split: read_table(
                spec.flag(split), path, spec.skip_bad_rows, limits.get(split), labels.get(split, ()), other_type
            )
            for split, path in files
        }
    dataset = spec.dataset_name, spec.dataset_config_name
    return {split: read_dataset_split(*dataset, name, spec.flag(split), cache_dir, token) for split, name in files}


def own_examples(
    spec: DataSpec, tables: Mapping[str, Table], task: Task | None, head: Head
) -> tuple[Task, dict[str, Examples], list[str]]:
    """Convert own data. Returns the task (or `task` with the data's columns), the rows of each split, and notes.

    tables: split -> table. The training set decides the classes, the kind of the labels and the positive class. Without
    a training set, the checkpoint's `head` decides. If the head is unknown, the first table decides. `spec.label_type`,
    `spec.label_separator` and `spec.positive_label` override these decisions.

    Raises UserError for unclear columns and malformed rows.
    """
    split, first = next(iter(tables.items()))
    if split == "train":
        head = Head()
    if split == "test" and not task and head == Head() and spec.label_column not in first.columns:
        raise UserError(
            f"{spec.flag('test')}: the model is not fine-tuned, so its classes are unknown. Give a fine-tuned "
            "model. To fine-tune it: layerdrop run --do_train"
        )
    kind = type(task.kind) if task else _kind(first, spec, head)
    label = kind.label_column(first, spec.label_column)
    if list(tables) != ["test"]:
        first.require("--label_column", [label])
    texts = kind.text_columns(first, label, spec.text_columns, task)
    if label in texts and list(tables) != ["test"]:
        raise UserError(
            f"{first.path}: column '{label}' has both the texts and the labels. Name another column with "
            "--text_columns or --label_column."
        )
    notes = [] if spec.text_columns else [_note_on_texts(first, texts, label)]
    notes += _note_on_separator(first, label, spec.label_separator) if split != "test" else []
    tables = {
        name: _converted(table, kind, texts, None if name == "test" else label, spec) for name, table in tables.items()
    }
    first = tables[split]
    known_names = (head.labels if head.label_type in (None, kind.label_type) else ()) or first.classes.get(label)
    known_classes = bool(task or known_names)
    if task:
        task = replace(task, texts=texts, label=label, suffixes=("",))
    else:
        cells = _label_cells(first, kind, label, spec)
        names = (known_names or _classes(first, kind, label, cells, spec)) if kind.named else ()
        if kind.named and len(names) < 2:
            raise _too_few_classes(first, label, names)
        task = custom_task(spec.task, texts, label, names, label_type=kind.label_type)
        if not known_classes and spec.label_type == "auto":
            notes += [*task.kind.notes(label), *_notes_on_classes(task)]
        notes += [*task.kind.notes_on_names(label), *note_on_spelling(names, label)] if split == "train" else []
        counts = Counter(name for cell in cells for name in kind.names_in(cell)) if split == "train" else None
        positive, reason = _positive(first.path, task, spec.positive_label, head.positive, counts)
        task = replace(task, positive=positive)
        if reason and list(tables) != ["test"]:
            notes.append(f"f1 measures class '{task.positive_label}' ({reason}; to change: --positive_label)")
    class_ids = _class_ids(task, known_classes)
    notes += _note_on_ids(first, task, class_ids) if split != "test" else []
    examples = {}
    for split, table in tables.items():
        index, note = index_column(table)
        notes += [*([note] if note else []), *note_on_quotes(table, texts)]
        examples[split] = table.examples(task, class_ids, index, split != "test", spec.skip_bad_rows)
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
            return None, f"{table.path}:{line}: no usable {name}, so rows are named by their numbers from 0"
    return name, ""


def _breaks_tsv(cell: str) -> bool:
    """Whether a text would break a predictions file, which is tab-separated without quoting."""
    return any(end in cell for end in "\t\r\n")


def _kind(table: Table, spec: DataSpec, head: Head) -> type[Kind]:
    """The kind of the labels of own data, from the settings, the head, or the contents of the first table."""
    if spec.label_type != "auto":
        return KINDS[spec.label_type]
    if head.label_type or head.labels:
        return KINDS[head.label_type or "class"]
    return next(kind for kind in KINDS.values() if kind.found_in(table.with_all_labels, spec.label_column))


def _converted(table: Table, kind: type[Kind], texts: Sequence[str], label: str | None, spec: DataSpec) -> Table:
    """Convert the cells of the texts and the label. label: None for a table without labels. Raises UserError."""
    table.require("--text_columns", texts)
    table.require("--label_column", [label] if label else [])
    separator = cache(lambda: separator_in(table, label))

    def convert(row: Row) -> Row:
        cells = {name: kind.text_cell(row, name) for name in texts}
        try:
            return row | cells | ({label: _label_cell(row, kind, label, spec)} if label else {})
        except BadRow as error:
            empty = row.get(label) == ""  # with a separator, a row without labels
            if not (empty and spec.label_type in ("auto", "multi") and kind.named and kind.pooled and separator()):
                raise
            raise BadRow(f"{error} (for several labels in a row: --label_separator '{separator()}')") from None

    table = table.map(convert, spec.skip_bad_rows)
    if label:
        kind.check_cells([row[label] for row in table.rows.values()], f"{table.path}: column '{label}'")
    return table


def _label_cell(row: Row, kind: type[Kind], label: str, spec: DataSpec) -> Any:
    """The result of `Kind.label_cell`. Raises BadRow, also for blanks at the ends of a name unless the user has given
    the kind."""
    cell = kind.label_cell(row, label, spec.label_separator)
    if spec.label_type == "auto":
        check_blanks(kind.names_in(cell), label)
    return cell


def _label_cells(table: Table, kind: type[Kind], label: str, spec: DataSpec) -> list:
    """The usable label cells of all rows of a file: results of `Kind.label_cell`."""
    table = table.with_all_labels.map(lambda row: _label_cell(row, kind, label, spec), True)
    return list(table.rows.values())


def _classes(table: Table, kind: type[Kind], label: str, cells: Sequence, spec: DataSpec) -> tuple[str, ...]:
    """Class names in id order. cells: the result of `_label_cells`. Raises UserError for an unusable name."""
    table.require("--label_column", [label])
    names = (name for cell in cells for name in kind.names_in(cell))
    names = class_names(name for name in names if spec.label_type != "auto" or not is_missing(name))
    if broken := next((name for name in names if _breaks_tsv(name)), None):
        raise UserError(f"{table.path}: class {broken!r} has a tab or a line end in its name. Rename it.")
    return names


def _too_few_classes(table: Table, label: str, names: Sequence[str]) -> UserError:
    classes = f"only one class, '{names[0]}'" if names else f"no label in column '{label}'"
    numbers = ", or add --label_type number" if names and as_number(names[0]) is not None else ""
    return UserError(f"{table.path}: {classes}. Name another --label_column{numbers}.")


def _positive(
    path: str, task: Task, chosen: str | None, known: str | None, counts: Counter[str] | None
) -> tuple[int, str]:
    """Return (id of the positive class, reason for a note). The reason can be empty. Raises UserError."""
    names, needed = task.labels, "f1" in task.metrics
    if chosen is not None and not needed:
        raise UserError(
            f"--positive_label {chosen}: needs two classes, and the labels of {path} are {task.kind}. Leave it out."
        )
    if chosen is not None and chosen not in names:
        raise unknown("--positive_label", chosen, names)
    if not needed or chosen:
        return names.index(chosen) if chosen else 1, ""
    name, reason = (known, "as in the model's training") if known in names else positive_class(names, counts)
    return names.index(name), reason


def _note_on_texts(table: Table, texts: tuple[str, ...], label: str) -> str:
    rest = [name for name in table.columns if name not in (*texts, label, *INDEX_COLUMNS)]
    unused = f"; not used: {shortened(rest)}" if rest else ""
    return f"text taken from {' and '.join(texts)} of {table.path}{unused} (to change: --text_columns)"


def _note_on_separator(table: Table, label: str, separator: str | None) -> list[str]:
    if separator is None:
        return []
    cells = [str(cell) for cell in table.with_all_labels.values(label).values()]
    counts = {one: sum(one in cell for cell in cells) for one in (separator, *LABEL_SEPARATORS)}
    if not counts[separator]:
        return [f"no cell of column '{label}' of {table.path} contains '{separator}'. Check --label_separator"]
    if counts[most := max(counts, key=lambda one: counts[one])] > counts[separator]:
        n = f"{counts[most]} cells of column '{label}' of {table.path} contain '{most}' and {counts[separator]} contain"
        return [f"{n} '{separator}'. Check --label_separator"]
    return []


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
    names = {*task.labels}
    for separator in LABEL_SEPARATORS:
        joined = [name for name in task.labels if names & {*map(str.strip, name.split(separator))} - {name}]
        if joined:
            note = f"'{shortened(joined)}' of column '{column}' is a class of its own. For several labels in a row, add"
            notes.append(f"{note} --label_separator '{separator}'")
    return notes


def _note_on_ids(table: Table, task: Task, class_ids: Mapping[str, int]) -> list[str]:
    """Note the class of each class id that is a label in a table. table: with converted labels."""
    names = {name for cell in table.values(task.label).values() for name in task.kind.names_in(cell)}
    ids = sorted((names & class_ids.keys()) - {*task.labels, *task.words}, key=int)
    pairs = [f"{i} counts as {task.labels[class_ids[i]]}" for i in ids]
    return [f"column '{task.label}' has class ids: {shortened(pairs)}"] if pairs else []


def _class_ids(task: Task, known_classes: bool) -> dict[str, int]:
    """Label in a file -> class id.

    known_classes: whether the class names come from a task or a checkpoint. Labels in the file can then also be class
    ids, unless a class name is a number.
    """
    spellings = [task.labels, task.words]
    if known_classes and not any(as_number(name) is not None for name in (*task.labels, *task.words)):
        spellings.insert(0, tuple(map(str, range(len(task.labels)))))
    return {name: i for names in spellings for i, name in enumerate(names)}
