"""A user's csv, tsv, json-lines or parquet file as rows with line numbers. Columns are not interpreted here."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from layerdrop.data.examples import BadRow, bad_row_error, no_usable_row
from layerdrop.errors import UserError
from layerdrop.system.text import one_line

FILE_TYPES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
NAMES_OF_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}
csv.field_size_limit(2**31 - 1)  # the csv module refuses cells of more than 131,072 characters by default

NumberedRow = tuple[int, dict[str, object] | BadRow]
"""(line, from 1, on which the row starts, or in parquet files and JSON arrays the row number; cells by column, or the
BadRow)"""


@dataclass(frozen=True)
class Table:
    """A file as read. Blank lines are left out."""

    path: str
    columns: tuple[str, ...]
    """In the order of the file; of json lines, every name that occurs."""
    rows: list[NumberedRow]
    """Missing cells and NaN are None. Bytes are decoded if they are UTF-8 text."""

    def values(self, column: str) -> list[object]:
        """The cells of a column that are neither missing nor empty."""
        cells = (row.get(column) for _, row in self.rows if isinstance(row, dict))
        return [cell for cell in cells if cell is not None and cell != ""]

    def as_text(self, columns: Sequence[str], skip_bad_rows: bool = False) -> "Table":
        """The table with the cells of these columns as text. A row with a missing or non-text cell is a BadRow.

        Raises UserError for the first BadRow unless `skip_bad_rows`.
        """
        table = replace(self, rows=[(line, _as_text(row, columns)) for line, row in self.rows])
        table.refuse_bad_rows(skip_bad_rows)
        return table

    def refuse_bad_rows(self, skip_bad_rows: bool) -> None:
        """Raise UserError for the first malformed row unless `skip_bad_rows`."""
        bad = next((row for row in self.rows if isinstance(row[1], BadRow)), None)
        if bad and not skip_bad_rows:
            raise bad_row_error(self.path, *bad)


def _as_text(row: dict[str, object] | BadRow, columns: Sequence[str]) -> dict[str, object] | BadRow:
    if isinstance(row, BadRow):
        return row
    try:
        return row | {column: _text(row, column) for column in columns}
    except BadRow as error:
        return error


def _text(row: dict[str, object], column: str) -> str:
    """Raises BadRow."""
    if column not in row:
        raise BadRow(f"no column {column}; found: {', '.join(row)}")
    cell = row[column]
    if cell is None or cell == "":
        raise BadRow(f"an empty cell in column '{column}'")
    if isinstance(cell, bytes):
        raise BadRow(f"column '{column}' holds bytes that are no UTF-8 text")
    if isinstance(cell, (list, tuple, dict)):
        kind = "an object" if isinstance(cell, dict) else "a list"
        raise BadRow(
            f"column '{column}' holds {kind} ({one_line(str(cell), 40)}), not a text, a class or a number (several "
            "labels for a row, and a label for each token, are other kinds of task)"
        )
    return str(cell)


def _plain(cell: object) -> object:
    """Convert a cell: NaN to None, UTF-8 bytes to text."""
    if isinstance(cell, bytes):
        with suppress(UnicodeDecodeError):
            return cell.decode()
    return None if cell != cell else cell


def read_table(flag: str, path_name: str, skip_bad_rows: bool = False) -> Table:
    """The file's table. flag: what the user wrote it with, for messages.

    Raises UserError for an unknown type, an unreadable file, a header that cannot be meant and, unless
    `skip_bad_rows`, for the first malformed row.
    """
    path = Path(path_name).expanduser()
    kind = path.suffix.lower()
    if kind not in FILE_TYPES:
        raise UserError(f"{flag} {path}: unknown file type '{path.suffix}'. Allowed: {', '.join(FILE_TYPES)}.")
    try:
        columns, rows = _read_parquet(flag, path) if kind == ".parquet" else _read_text(flag, path)
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot read the file ({error.strerror or error}). Check the path.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Convert the file.") from None
    if twice := [name for name, n in Counter(columns).items() if n > 1]:
        raise UserError(f"{flag} {path}: two columns are named '{twice[0]}'. Rename one of them.")
    table = Table(str(path), tuple(columns), rows)
    table.refuse_bad_rows(skip_bad_rows)
    if not any(isinstance(row, dict) for _, row in rows):
        how = "Write one object on each line" if kind in (".json", ".jsonl") else "The first line must name the columns"
        raise UserError(f"{flag} {path}: {no_usable_row(dict(rows))}. {how}.")
    return table


def _read_parquet(flag: str, path: Path) -> tuple[list[str], list[NumberedRow]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise UserError(f"{flag} {path}: not a readable parquet file ({str(error).splitlines()[0]}).") from None
    rows = [{name: _plain(cell) for name, cell in row.items()} for row in table.to_pylist()]
    return table.column_names, list(enumerate(rows, 1))


def _read_text(flag: str, path: Path) -> tuple[list[str], list[NumberedRow]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = file.readlines()
    kind = path.suffix.lower()
    if kind in SEPARATORS:
        return _read_delimited(flag, path, lines, SEPARATORS[kind])
    rows = _json_array(flag, path, lines)
    if rows is None:
        rows = [(number, _json_row(line)) for number, line in enumerate(lines, 1) if line.strip()]
    return list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row)), rows


def _json_array(flag: str, path: Path, lines: list[str]) -> list[NumberedRow] | None:
    """The rows of a JSON array of objects. None for JSON lines. Raises UserError for any other JSON value that spans
    several lines."""
    first = next((line.strip() for line in lines if line.strip()), "")
    if first[:1] not in ("[", "{") or (first[0] == "{" and _is_json(first)):
        return None
    try:
        whole = json.loads("".join(lines))
    except json.JSONDecodeError as error:
        if first[0] == "{" or _is_json(first):
            return None
        raise UserError(
            f"{flag} {path}: one JSON array that cannot be read ({error.msg} at line {error.lineno}). Mend it, or "
            "write one object on each line."
        ) from None
    if isinstance(whole, list):
        return [(number, _json_object(row)) for number, row in enumerate(whole, 1)]
    raise UserError(
        f"{flag} {path}: one JSON object over several lines. Write one object for each row, on a line of its own "
        "(pandas: orient='records', lines=True)."
    )


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _json_row(line: str) -> dict[str, object] | BadRow:
    try:
        return _json_object(json.loads(line))
    except json.JSONDecodeError as error:
        return BadRow(f"not a JSON object on one line ({error.msg})")


def _json_object(row: object) -> dict[str, object] | BadRow:
    if not isinstance(row, dict):
        return BadRow("not a JSON object")
    return {name: _plain(cell) for name, cell in row.items()}


def _read_delimited(flag: str, path: Path, lines: list[str], separator: str) -> tuple[list[str], list[NumberedRow]]:
    parsed = delimited_rows(lines, separator)
    header = next(parsed, (1, []))[1]
    if isinstance(header, BadRow):
        raise UserError(f"{flag} {path}: the first line must name the columns, and cannot be read ({header}).")
    if len(header) == 1 and (meant := next((other for other in ";\t," if other in header[0]), None)):
        names, right = NAMES_OF_SEPARATORS[meant], NAMES_OF_SEPARATORS[separator]
        raise UserError(
            f"{flag} {path}: the first line has {names} between {', '.join(header[0].split(meant))}, but a "
            f"{path.suffix.lower()} file has {right}. Convert the file"
            + (", or name it .tsv (which has no quoting)." if meant == "\t" else ".")
        )

    def check(fields: list[str] | BadRow) -> list[str] | BadRow:
        if isinstance(fields, BadRow):
            return fields
        if len(fields) != len(header):
            return BadRow(f"{len(fields)} columns instead of {len(header)}")
        return BadRow("the line of column names again") if fields == header and len(header) > 1 else fields

    rows = [(line, check(fields)) for line, fields in parsed]
    names = _names(header, [fields for _, fields in rows if not isinstance(fields, BadRow)])
    return list(names.values()), [
        (line, fields if isinstance(fields, BadRow) else {name: fields[i] for i, name in names.items()})
        for line, fields in rows
    ]


def _names(header: list[str], rows: list[list[str]]) -> dict[int, str]:
    """Position -> name of each column. Leaves out columns with neither a name nor contents, which spreadsheets write.
    Other columns without a name get pandas' name."""
    blank = [i for i, name in enumerate(header) if not name.strip()]
    empty = [i for i in blank if not any(row[i].strip() for row in rows)]
    return {i: f"Unnamed: {i}" if i in blank else name for i, name in enumerate(header) if i not in empty}


def delimited_rows(lines: list[str], separator: str) -> Iterator[tuple[int, list[str] | BadRow]]:
    """(line from 1, fields) of every row that is not blank. Commas: with quoting, also across lines; tabs: without.

    A row whose quoting is wrong comes as BadRow, and reading goes on at the line below its first. Up to the line at
    which the mistake showed, a row must have its quotes in pairs: else it is the end of a broken cell, not a row.
    """
    quoting = {"quoting": csv.QUOTE_NONE} if separator == "\t" else {"strict": True}
    start = doubtful = 0
    while start < len(lines):
        first = start
        reader = csv.reader(map(lines.__getitem__, range(first, len(lines))), delimiter=separator, **quoting)
        try:
            for fields in reader:
                end = first + reader.line_num
                if start < doubtful and "".join(lines[start:end]).count('"') % 2:
                    yield start + 1, BadRow("a quote without its partner")
                elif fields:
                    yield start + 1, fields
                start = end
        except csv.Error as error:
            yield start + 1, BadRow(f"not readable as csv: {error}")
            doubtful = max(doubtful, first + reader.line_num)
            start += 1
