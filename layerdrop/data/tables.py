"""A user's csv, tsv, json-lines or parquet file as rows with line numbers. Columns are not interpreted here."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from layerdrop.data.examples import BadRow, bad_row_error, no_usable_row
from layerdrop.errors import UserError

FILE_TYPES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
SEPARATORS = {".csv": ",", ".tsv": "\t"}
NAMES_OF_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}

NumberedRow = tuple[int, dict[str, object] | BadRow]
"""(line, from 1, on which the row starts; in parquet files the row; cells by column, or why there are none)"""


@dataclass(frozen=True)
class Table:
    """A file as read. Blank lines are left out."""

    path: str
    columns: tuple[str, ...]
    """In the order of the file; of json lines, every name that occurs."""
    rows: list[NumberedRow]

    def values(self, column: str) -> list[object]:
        """The cells of a column that are neither missing nor empty."""
        cells = (row.get(column) for _, row in self.rows if isinstance(row, dict))
        return [cell for cell in cells if cell is not None and cell != ""]


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
    bad = next((row for row in rows if isinstance(row[1], BadRow)), None)
    if bad and not skip_bad_rows:
        raise bad_row_error(path, *bad)
    if not any(isinstance(row, dict) for _, row in rows):
        how = "Write one object on each line" if kind in (".json", ".jsonl") else "The first line must name the columns"
        raise UserError(f"{flag} {path}: {no_usable_row(dict(rows))}. {how}.")
    return Table(str(path), tuple(columns), rows)


def _read_parquet(flag: str, path: Path) -> tuple[list[str], list[NumberedRow]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise UserError(f"{flag} {path}: not a readable parquet file ({str(error).splitlines()[0]}).") from None
    return table.column_names, list(enumerate(table.to_pylist(), 1))


def _read_text(flag: str, path: Path) -> tuple[list[str], list[NumberedRow]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = file.readlines()
    kind = path.suffix.lower()
    if kind in SEPARATORS:
        return _read_delimited(flag, path, lines, SEPARATORS[kind])
    rows = [(number, _json_row(line)) for number, line in enumerate(lines, 1) if line.strip()]
    return list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row)), rows


def _json_row(line: str) -> dict[str, object] | BadRow:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return BadRow(f"not a JSON object on one line ({error.msg})")
    return row if isinstance(row, dict) else BadRow("not a JSON object")


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

    def row(fields: list[str] | BadRow) -> dict[str, object] | BadRow:
        if isinstance(fields, BadRow):
            return fields
        if len(fields) != len(header):
            return BadRow(f"{len(fields)} columns instead of {len(header)}")
        return dict(zip(header, fields, strict=True))

    return header, [(line, row(fields)) for line, fields in parsed]


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
