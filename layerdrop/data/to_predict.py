"""Texts to predict: a table, plain lines, or a single text. Unusable rows become None."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerdrop.data.columns import PAIRS, SINGLES, note_on_quotes, text_columns
from layerdrop.data.examples import Examples, shortened
from layerdrop.data.files import index_column
from layerdrop.data.kinds.token_tags import WORD_COLUMNS, split_cell
from layerdrop.data.readers import BOM, FILE_TYPES, not_utf8
from layerdrop.data.tables import UNUSABLE, Row, Table, text_cell
from layerdrop.errors import UserError, refuse_pointer

COUNTS = {1: "one text", 2: "two texts"}


@dataclass(frozen=True)
class ToPredict:
    """n rows in the order of the source."""

    source: str
    """For messages: a path, STDIN, `--text`."""
    index: list[str]
    """n row names from the source, or row numbers from 0."""
    texts: list[tuple | None]
    """n single texts or pairs. None for an empty line or a malformed row."""
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """m columns of a table, without its column `index` if this column names the rows."""
    cells: Sequence[tuple[str, ...]] = ()
    """n rows of m cells of a table. The cells of a row that cannot be read are empty."""

    @property
    def rows(self) -> list[int]:
        """0-based positions of the rows with a text."""
        return [i for i, texts in enumerate(self.texts) if texts is not None]

    def examples(self, columns: Sequence[tuple[str, ...]]) -> Examples:
        """The rows with a text. columns: known text columns that the model was trained on.

        Raises UserError without any text, and for single texts if the model takes pairs, or vice versa.
        """
        texts = [self.texts[i] for i in self.rows]
        if not texts:
            raise UserError(f"{self.source}: contains no text. Give one or two texts on each line.")
        n, expected = len(texts[0]), len(columns[0] if columns else texts[0])
        if n != expected:
            how = f"Give {COUNTS[expected]}"
            if self.columns:
                how += f", or name the column{'s' * (expected > 1)}: --text_columns {','.join('AB'[:expected])}"
            where = "" if self.source == "--text" else " in each row"
            taken = f"{COUNTS[expected]}{where}, not {COUNTS[n].split()[0]}"
            raise UserError(f"{self.source}: the model takes {taken}. {how}.")
        return Examples(tuple(map(list, zip(*texts, strict=True))), None, [self.index[i] for i in self.rows])


def is_table(path: str) -> bool:
    """Whether a file has named columns, by its ending."""
    return Path(path).suffix.lower() in FILE_TYPES


def joined_cell(row: Row, column: str) -> str:
    """The text in a cell. The words of a list are joined with blanks, as for labels of tokens. Raises BadRow."""
    cell = row.get(column)
    return " ".join(split_cell(row, column)) if isinstance(cell, (list, tuple)) else text_cell(row, column)


def read_columns(
    table: Table,
    columns: Sequence[tuple[str, ...]],
    chosen: Sequence[str] = (),
    skip_bad_rows: bool = False,
    read_cell: Callable[[Row, str], Any] = joined_cell,
) -> ToPredict:
    """Take the texts of a table.

    columns: the text columns that the model was trained on, under all of their known names. chosen: the user's
    columns. read_cell: (row, column) -> text.
    skip_bad_rows: replace a malformed row by None. Otherwise a malformed row raises UserError with its line.
    """
    names = _columns(table, columns, chosen)
    index, note = index_column(table)
    converted = table.map(lambda row: {name: read_cell(row, name) for name in names}, skip_bad_rows)
    usable, bad = converted.rows, converted.bad
    texts = [tuple(usable[line][name] for name in names) if line in usable else None for line in table.lines]
    ids = [str(number) for number in range(len(texts))]
    if index:
        ids = [str(table.rows[line][index]) if line in table.rows else "" for line in table.lines]
    reasons = {line: f"{'' if line in table.rows else 'malformed row: '}{error}" for line, error in bad.items()}
    notes = tuple(filter(None, (note, *note_on_quotes(table, names), _note_on_empty(len(texts), reasons))))
    kept = tuple(name for name in table.columns if (name, index) != ("index", "index"))
    cells = [tuple(_shown(table.rows.get(line, {}).get(name)) for name in kept) for line in table.lines]
    return ToPredict(table.path, ids, texts, notes, kept, cells)


def _shown(cell: object) -> str:
    """A cell as a text: lists and objects in JSON's notation, empty for a missing cell."""
    nested = isinstance(cell, (list, tuple, dict))
    text = json.dumps(cell, ensure_ascii=False, default=str) if nested else "" if cell is None else str(cell)
    return UNUSABLE.sub("\ufffd", text)


def _note_on_empty(n: int, reasons: Mapping[int, str]) -> str:
    """The note about n rows, some of which have no prediction. reasons: 1-based line -> reason. Empty without any."""
    lines: dict[str, list[int]] = {}
    for line in sorted(reasons):
        lines.setdefault(reasons[line], []).append(line)
    parts = [f"{reason} (line{'s' * (len(of) > 1)} {shortened(of)})" for reason, of in lines.items()]
    return f"{len(reasons)} of {n} rows without a prediction: {shortened(parts)}" if parts else ""


def _columns(table: Table, known: Sequence[tuple[str, ...]], chosen: Sequence[str]) -> tuple[str, ...]:
    if chosen:
        return text_columns(table, "", chosen, None)
    usual = known or [*PAIRS, *((name,) for name in SINGLES)]
    complete = [names for names in usual if set(names) <= set(table.columns)]
    if not (known or complete):
        complete = [(name,) for name in WORD_COLUMNS if name in table.columns][:1]
    if complete and (known or len(complete) == 1):
        return complete[0]
    columns = ", ".join(table.columns)
    problem, names = f"cannot choose the text columns from {columns}", "A, or A,B"
    if known:
        names = ",".join("AB"[: len(known[0])])
        problem = f"no column {', '.join(known[0])}, which the model was trained on; found: {columns}"
    raise UserError(
        f"{table.path}: {problem}. Add --text_columns {names}. For plain lines, use an ending such as .txt."
    )


def _malformed(row: tuple[str, ...] | None, n_texts: int) -> str | None:
    """Why a line has no prediction; None for a good line. row: its texts. n_texts: texts of the first good line."""
    if row is None:
        return "an empty line"
    if any("\0" in text for text in row):
        return "a non-text character, such as NUL (is the file binary?)"
    if len(row) > 2:
        return f"{len(row)} texts, separated by tabs, but a line has one text or two"
    if len(row) != n_texts:
        return f"{len(row)} text{'s' * (len(row) > 1)}, separated by tabs, but the first line has {n_texts}"
    return None


def read_lines(content: bytes, source: str, skip_bad_rows: bool = False) -> ToPredict:
    """Read plain lines: one text, or two texts separated by a tab. Lines end with LF or CR LF.

    An empty line gives None. Any other malformed line raises UserError; with skip_bad_rows, it gives None.
    """
    refuse_pointer(source, content)
    try:
        lines = [line.lstrip(BOM) for line in content.decode().split("\n")]
    except UnicodeDecodeError as error:
        raise not_utf8(source, error) from None
    if not lines[-1]:
        lines.pop()
    rows = [tuple(line.removesuffix("\r").split("\t")) if line.strip() else None for line in lines]
    n_texts = next((len(row) for row in rows if row and len(row) < 3), 0)
    bad = {}
    for number, row in enumerate(rows, 1):
        if reason := _malformed(row, n_texts):
            bad[number] = reason
            if row and not skip_bad_rows:
                raise UserError(f"{source}:{number}: {reason}. Correct the line, or add --skip_bad_rows.")
    texts = [None if number in bad else row for number, row in enumerate(rows, 1)]
    note = _note_on_empty(len(texts), bad)
    return ToPredict(source, [str(i) for i in range(len(lines))], texts, (note,) if note else ())
