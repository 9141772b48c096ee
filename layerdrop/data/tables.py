"""Tables with line numbers, and their conversion to `Examples`."""

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from layerdrop.data.examples import BadRow, Examples, UnknownLabel
from layerdrop.data.tasks import DEMO_TASKS, TASKS, Task
from layerdrop.errors import UserError
from layerdrop.system.text import one_line

OTHER_LIST = re.compile(r"""\[\s*(["'].*["']|[-+]?\d+(\.\d*)?(\s+[-+]?\d+(\.\d*)?)+)\s*\]""", re.DOTALL)
"""A text in brackets that looks like a list of texts, or like NumPy's array of numbers."""
UNUSABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that no text contains: NUL, and halves of characters, which JSON can escape."""

Row = dict[str, object]
"""Column -> cell. Missing cells and NaN are None. Bytes are decoded if they are UTF-8 text."""


@dataclass(frozen=True)
class Table:
    """A file, or a split of a dataset, as read, without blank lines.

    Keys of `rows` and `bad` are the 1-based lines on which the rows start. Parquet files, JSON arrays and datasets have
    1-based row numbers instead.
    """

    path: str
    """The path of the file; for a dataset: its name, and the split in parentheses."""
    columns: tuple[str, ...]
    """Names in the order of the file. JSON files: all names that occur in a row."""
    rows: dict[int, Any]
    """Line -> Row. `map` can change the type of the rows."""
    bad: dict[int, BadRow] = field(default_factory=dict)
    """Line -> reason, for malformed rows."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column -> names of its classes in id order, for datasets that name them. The cells are names."""
    label_rows: dict[int, Row] = field(default_factory=dict)
    """Further rows, beyond the limit of read_table, with the label columns alone."""
    skipping: str = "leave it out"
    """The effect of --skip_bad_rows on a malformed row, for messages."""

    @property
    def lines(self) -> list[int]:
        """Lines of all rows, sorted."""
        return sorted({*self.rows, *self.bad})

    def values(self, column: str) -> dict[int, object]:
        """Line -> cell of a column, without missing and empty cells."""
        cells = {line: row.get(column) for line, row in self.rows.items()}
        return {line: cell for line, cell in cells.items() if cell is not None and cell != ""}

    @property
    def with_all_labels(self) -> "Table":
        """The table with the label of every row of the file, to choose the classes."""
        return replace(self, rows={**self.rows, **self.label_rows}) if self.label_rows else self

    def require(self, flag: str, columns: Sequence[str]) -> None:
        """Raise UserError if a column is missing. flag: the user's flag that names another column."""
        if missing := [name for name in columns if name not in self.columns]:
            raise UserError(
                f"{flag}: {self.path} has no column {', '.join(missing)}. Name one of its columns with {flag}: "
                f"{', '.join(self.columns)}."
            )

    def map(self, convert: Callable[[Any], Any], skip_bad_rows: bool) -> "Table":
        """Convert every row. A row for which `convert` raises BadRow becomes malformed.

        Raises UserError for the first malformed row unless `skip_bad_rows`.
        """
        rows, bad = {}, dict(self.bad)
        for line, row in self.rows.items():
            try:
                rows[line] = convert(row)
            except BadRow as error:
                bad[line] = error
        if bad and not skip_bad_rows:
            line = min(bad)
            raise UserError(f"{self.path}:{line}: {bad[line]}. Fix the row, or add --skip_bad_rows to {self.skipping}.")
        return replace(self, rows=rows, bad=bad)

    def as_text(self, columns: Sequence[str], skip_bad_rows: bool = False) -> "Table":
        """Convert the cells of some columns to text. A row with a missing or non-text cell is malformed."""
        return self.map(lambda row: row | {column: text_cell(row, column) for column in columns}, skip_bad_rows)

    def examples(
        self, task: Task, class_ids: Mapping[str, int], index: str | None, labeled: bool, skip_bad_rows: bool
    ) -> Examples:
        """Convert the rows to examples of a task. The cells of the task's columns must be converted.

        class_ids: label in the file -> class id. index: column of the row names. Raises UserError without a usable row.
        """
        kind = task.kind

        def convert(row: Row) -> tuple[list, Any, str]:
            texts = [kind.text(row[name]) for name in task.texts]
            label = _label(task, class_ids, row[task.label]) if labeled else None
            if labeled:
                kind.check(texts, label)
            return texts, label, str(row[index]) if index else ""

        table = self.map(convert, skip_bad_rows)
        if not table.rows:
            raise UserError(f"{self.path}: {table.no_usable_row()}. Check the file.")
        texts, labels, names = zip(*table.rows.values(), strict=True)
        if not all(names):
            names = [str(number) for number, line in enumerate(table.lines) if line in table.rows]
        labels = kind.stacked(labels) if labeled else None
        columns = tuple(map(list, zip(*texts, strict=True)))
        return Examples(columns, labels, list(names), tuple(sorted(table.bad)))

    def no_usable_row(self) -> str:
        """The message for a table without usable rows: the number of malformed rows, and the first reason."""
        first = min(self.bad, default=None)
        return "no usable row" + (f" ({len(self.bad)} malformed; line {first}: {self.bad[first]})" if first else "")


def text_cell(row: Row, column: str) -> str:
    """The text of a cell. Raises BadRow."""
    if column not in row:
        raise BadRow(f"no column {column}; found: {', '.join(row)}")
    cell = row[column]
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise BadRow(f"an empty cell in column '{column}'")
    if isinstance(cell, str) and UNUSABLE.search(cell):
        raise BadRow(f"column '{column}' holds a non-text character, such as NUL (is the file binary?)")
    if isinstance(cell, bytes):
        raise BadRow(f"column '{column}' holds bytes that are not UTF-8 text")
    if isinstance(cell, (list, tuple, dict)):
        kind = "an object" if isinstance(cell, dict) else "a list"
        raise BadRow(f"column '{column}' holds {kind} ({one_line(str(cell), 40)}), not a text, a class or a number")
    return str(cell)


def listed(cell: object, column: str = "label") -> list[str] | None:
    """The words in a list, or in a text that contains a list in JSON's or Python's notation. None for other cells.

    column: of the cell, for messages. Raises BadRow for another notation, and for a list with other items than words.
    """
    if isinstance(cell, str):
        text = cell.strip()
        cell = _parsed(text) if text[:1] == "[" and text[-1:] == "]" else None
        if cell is None and OTHER_LIST.fullmatch(text):
            raise BadRow(f'\'{one_line(text, 40)}\' is not a list in the notation of JSON, which is ["a", "b"]')
    if not isinstance(cell, (list, tuple)):
        return None
    if other := [item for item in cell if not isinstance(item, (str, int)) or item == ""]:
        item = "an empty text" if other[0] == "" else one_line(repr(other[0]), 40)
        hint = " (write the names of the classes)" if isinstance(other[0], float) else ""
        raise BadRow(f"the list in column '{column}' contains {item}, which is not a word{hint}")
    if UNUSABLE.search(" ".join(map(str, cell))):
        raise BadRow(f"the list in column '{column}' contains a non-text character")
    return list(map(str, cell))


def holds_list(cell: object) -> bool:
    """Whether a cell is a list, or a text that contains one, also a malformed one."""
    try:
        return listed(cell) is not None
    except BadRow:
        return True


def _parsed(text: str) -> list | None:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return value if repr(value) == text else None  # Python would join the texts of NumPy's ['a' 'b']


def _label(task: Task, class_ids: Mapping[str, int], cell: object) -> object:
    """The label of a row. Raises BadRow."""
    try:
        return task.kind.encoded(cell, class_ids, task.label)
    except UnknownLabel:
        raise
    except BadRow as error:
        own = task.name not in TASKS | DEMO_TASKS
        kind = task.label_type if task.kind.named else "class"
        raise BadRow(f"{error} (to use it as a class: --label_type {kind})") if own else error from None
