"""Read csv, tsv, JSON, parquet and CoNLL files as tables.

The csv module, the json module and pyarrow parse the files. pandas and `datasets` would lose the line numbers.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from layerdrop.data.examples import BadRow
from layerdrop.data.kinds.token_tags import WORD_COLUMNS
from layerdrop.data.tables import UNUSABLE, Row, Table
from layerdrop.errors import UserError
from layerdrop.system.files import regular
from layerdrop.system.text import one_line

CONLL = ".conll"
CONLL_TYPES = (CONLL, ".iob", ".bio")
FILE_TYPES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", *CONLL_TYPES)
SEPARATORS = {".csv": ",", ".tsv": "\t"}
NAMES_OF_SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}
BETWEEN_OBJECTS = re.compile(r"[\s,]*")
STDIN = "stdin"
"""Name of the standard input in messages."""
BOM = "\ufeff"
"""Byte-order mark. `cat a.csv b.csv` writes one before each header."""
csv.field_size_limit(2**31 - 1)  # the csv module refuses cells of more than 131,072 characters by default

Rows = Iterator[tuple[int, Row | BadRow]]
"""(line, row, or the reason why it is malformed)."""


def read_table(
    flag: str,
    path_name: str,
    skip_bad_rows: bool = False,
    limit: int | None = None,
    labels: Sequence[str] = (),
    other_type: str | None = None,
    skipping: str = Table.skipping,
) -> Table:
    """Read a csv, tsv, JSON, parquet or CoNLL file. flag, skipping (see Table): for messages.

    limit: the number of rows to keep; without effect with `skip_bad_rows`. labels: columns of all further rows to keep
    in `Table.label_rows`, if a row has them; empty: do not read further rows. other_type: the type of a file with
    another ending; None: no other ending is allowed.

    Raises UserError for an unknown type, an unreadable file, an unusable header, and the first malformed row unless
    `skip_bad_rows`.
    """
    path = Path(os.path.expanduser(path_name))
    kind = path.suffix.lower()
    if other_type and kind not in FILE_TYPES:
        kind = other_type
    if kind not in FILE_TYPES:
        raise UserError(
            f"{flag} {path}: unknown file type '{path.suffix}'. Allowed: {', '.join(FILE_TYPES)}; any other with "
            "--label_type token (CoNLL)."
        )
    try:
        columns, rows = _reader(kind)(flag, path)
        table = replace(_collect(path, columns, rows, None if skip_bad_rows else limit, labels), skipping=skipping)
    except OSError as error:
        reason = error.strerror or one_line(str(error))
        raise UserError(f"{flag} {path}: cannot read the file ({reason}). Check the path.") from None
    except UnicodeDecodeError as error:
        raise not_utf8(str(path), error) from None
    if wrong := [name for name in table.columns if UNUSABLE.search(name)]:
        raise UserError(
            f"{flag} {path}: {wrong[0]!r} is not the name of a column (is the file UTF-16 or binary?). Save the file "
            "as UTF-8 text."
        )
    if twice := [name for name, n in Counter(table.columns).items() if n > 1]:
        raise UserError(f"{flag} {path}: two columns are named '{twice[0]}'. Rename one of them.")
    table = table.map(lambda row: row, skip_bad_rows)
    if not table.rows:
        how = "Write one object on each line" if kind in (".json", ".jsonl") else "The first line must name the columns"
        how = "Write one word on each line, and a blank line between sentences" if kind in CONLL_TYPES else how
        how = "Give a file with rows" if kind == ".parquet" else how
        raise UserError(f"{flag} {path}: {table.no_usable_row()}. {how}.")
    return table


def _reader(kind: str) -> Callable[[str, Path], tuple[Sequence[str], Rows]]:
    """The function that reads a type of file."""
    if kind in CONLL_TYPES:
        return _read_conll
    return _read_parquet if kind == ".parquet" else _read_delimited if kind in SEPARATORS else _read_json


def _collect(path: Path, columns: Sequence[str], rows: Rows, limit: int | None, labels: Sequence[str]) -> Table:
    """The table of some rows: see read_table. columns: empty to take all names in the rows."""
    kept: dict[int, Row] = {}
    bad: dict[int, BadRow] = {}
    further: dict[int, Row] = {}
    shared: dict[tuple[str, ...], Row] = {}  # rows with the same label are one object, to save memory
    for line, row in rows:
        if isinstance(row, BadRow):
            bad[line] = row
        elif limit is None or len(kept) < limit:
            kept[line] = row
        elif not labels:
            break
        elif cells := {name: row[name] for name in labels if name in row}:
            key = tuple(cells.values())
            further[line] = shared.setdefault(key, cells) if all(isinstance(cell, str) for cell in key) else cells
    names = tuple(columns) or tuple(dict.fromkeys(name for row in kept.values() for name in row))
    return Table(str(path), names, kept, bad, label_rows=further)


def not_utf8(source: str, error: UnicodeDecodeError) -> UserError:
    """Return the error for a text in another encoding. source: a path, or STDIN."""
    file = "" if source == STDIN else f" {source}"
    return UserError(f"{source}: not UTF-8 text ({error.reason}). Convert the file: iconv -f LATIN1 -t UTF-8{file}")


def _text_lines(path: Path) -> list[str]:
    """The lines of a text file with their ends, without byte-order marks at their beginnings."""
    with open(regular(path), encoding="utf-8", newline="") as file:
        return [line.lstrip(BOM) for line in file]


def _plain(row: object) -> Row | BadRow:
    """`plain_cells`, with the error as a value."""
    try:
        return plain_cells(row)
    except BadRow as error:
        return error


def plain_cells(row: object) -> Row:
    """Convert NaN to None, and UTF-8 bytes to text. Raises BadRow for a row without column names."""
    if not isinstance(row, dict):
        raise BadRow("not a JSON object")
    for name, cell in row.items():
        if isinstance(cell, bytes):
            with suppress(UnicodeDecodeError):
                row[name] = cell.decode()
        elif cell != cell:
            row[name] = None
    return row


def _read_parquet(flag: str, path: Path) -> tuple[list[str], Rows]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(regular(path))
        batches = table.to_batches(max_chunksize=1000)
        rows = (_plain(row) for batch in batches for row in batch.to_pylist())
        return table.column_names, enumerate(rows, 1)
    except pyarrow.ArrowException as error:
        reason = one_line(str(error), 200)
        raise UserError(f"{flag} {path}: not a readable parquet file ({reason}). Write the file again.") from None


def _read_json(flag: str, path: Path) -> tuple[tuple[str, ...], Rows]:
    """Read JSON lines, or a JSON array of objects."""
    lines = _text_lines(path)
    content = "".join(lines)
    try:
        whole = json.loads(content)  # JSON lines raise an error here
    except RecursionError:
        raise UserError(f"{flag} {path}: its lists are nested too deep. Write one object on each line.") from None
    except ValueError as error:  # also numbers of too many digits
        at_line = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        message = getattr(error, "msg", str(error))
        if content.lstrip().startswith("[") and message != "Extra data":
            raise UserError(
                f"{flag} {path}: its JSON array cannot be read ({message}{at_line}). Fix it, or write one object "
                "on each line."
            ) from None
        whole = None
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if reason := _other_layout(whole, content, [line for _, line in rows]):
        raise UserError(
            f"{flag} {path}: {reason}. Write one object for each row, each on one line "
            "(pandas: orient='records', lines=True)."
        )
    if isinstance(whole, list):
        return (), enumerate(map(_plain, whole), 1)
    return (), ((number, _json_line(line)) for number, line in rows)


def _other_layout(whole: object, content: str, lines: list[str]) -> str | None:
    """Why a JSON file has neither an object on each line nor an array of objects. None if it has, or may have.

    whole: the parsed content; None if it is not one JSON value. lines: that are not blank.
    """
    if isinstance(whole, list):
        return "its JSON array holds lists" if whole and all(isinstance(row, list) for row in whole) else None
    if isinstance(whole, dict):
        one_row = len(lines) == 1 and not _holds_rows(whole)
        return None if one_row else f"its JSON object {'holds all rows' if len(lines) == 1 else 'spans several lines'}"
    broken = lines and all(isinstance(_json_line(line), BadRow) for line in lines[:-1])
    return "its JSON objects are not on one line each" if broken and _are_objects(content) else None


def _holds_rows(whole: dict[str, object]) -> bool:
    """Whether a JSON object is a table: `{"text": {"0": ...}}`, `{"text": ["w w", ...]}`, `{"data": [...]}`. The object
    of one row may have lists of words and labels."""
    cells, data = list(whole.values()), whole.get("data")
    if not all(isinstance(cell, (list, dict)) for cell in cells):
        return False
    if isinstance(data, list) and any(isinstance(row, (list, dict)) for row in data):
        return True
    texts = not set(WORD_COLUMNS) & whole.keys() and any(" " in str(item) for cell in cells for item in cell)
    return texts or {type(cell) for cell in cells} == {dict}


def _are_objects(content: str) -> bool:
    """Whether a text is a series of JSON objects, with blanks, line ends and commas between them."""
    decoder, start = json.JSONDecoder(), 0
    try:
        while (start := BETWEEN_OBJECTS.match(content, start).end()) < len(content):
            row, start = decoder.raw_decode(content, start)
            if not isinstance(row, dict):
                return False
    except (ValueError, RecursionError):
        return False
    return True


def _json_line(line: str) -> Row | BadRow:
    try:
        return _plain(json.loads(line))
    except (ValueError, RecursionError) as error:
        return BadRow(f"not a JSON object on one line ({getattr(error, 'msg', error)})")


# ---- csv and tsv -----------------------------------------------------------------------------------------------------
def _read_delimited(flag: str, path: Path) -> tuple[list[str], Rows]:
    kind = path.suffix.lower()
    separator = SEPARATORS[kind]
    lines = _text_lines(path)
    _, header = next(delimited_rows(lines, separator), (1, []))
    if isinstance(header, BadRow):
        raise UserError(
            f"{flag} {path}: the first line must name the columns, but cannot be read ({header}). Correct this line."
        )
    if other := _other_separator(lines, separator, header):
        raise UserError(
            f"{flag} {path}: the first line has {NAMES_OF_SEPARATORS[other]} between "
            f"{', '.join(separator.join(header).split(other))}, but a {kind} file has {NAMES_OF_SEPARATORS[separator]}."
            f" Convert the file{', or name it .tsv (which has no quoting)' if other == chr(9) else ''}."
        )
    used = dict(enumerate(header))
    if blank := [i for i, name in used.items() if not name.strip()]:
        used |= {i: f"Unnamed: {i}" for i in blank}
        cells = [row for _, row in _checked_rows(lines, separator, header) if not isinstance(row, BadRow)]
        full = {i for i in blank if any(row[i].strip() for row in cells)}
        used = {i: name for i, name in used.items() if i not in set(blank) - full}  # spreadsheets export empty columns
    rows = _checked_rows(lines, separator, header)
    return list(used.values()), (
        (line, row if isinstance(row, BadRow) else {name: row[i] for i, name in used.items()}) for line, row in rows
    )


def _other_separator(lines: list[str], separator: str, header: list[str]) -> str | None:
    """Another character that separates the columns: it is in a header of one column, or the first rows have one number
    of columns only with it. None if there is no such character."""

    def widths(mark: str) -> set[int]:
        rows = islice(delimited_rows(lines, mark), 10)
        return {0 if isinstance(row, BadRow) else len(row) for _, row in rows}

    others = [other for other in NAMES_OF_SEPARATORS if other != separator]
    if len(header) == 1:
        return next((other for other in others if other in header[0]), None)
    fits = len(widths(separator)) == 1
    return None if fits else next((other for other in others if len(of := widths(other)) == 1 and max(of) > 1), None)


def _checked_rows(lines: list[str], separator: str, header: list[str]) -> Iterator[tuple[int, list[str] | BadRow]]:
    """(line, cells) of every row below the header."""
    rows = delimited_rows(lines, separator)
    next(rows, None)
    names = [name.strip().lower() for name in header]
    for line, fields in rows:
        if isinstance(fields, BadRow):
            yield line, fields
        elif len(header) > 1 and [cell.strip().lower() for cell in fields] == names:
            yield line, BadRow("a repeated header line")
        elif len(fields) != len(header):
            yield line, BadRow(_wrong_width(header, fields))
        else:
            yield line, fields


def _wrong_width(header: Sequence[str], fields: list[str]) -> str:
    return f"{len(fields)} columns instead of {len(header)}"


def check_width(header: Sequence[str], fields: list[str]) -> list[str]:
    """Return `fields`. Raises BadRow if their number differs from the number of columns in the header."""
    if len(fields) != len(header):
        raise BadRow(_wrong_width(header, fields))
    return fields


def delimited_rows(lines: list[str], separator: str) -> Iterator[tuple[int, list[str] | BadRow]]:
    """(1-based line, fields) of every row that is not blank. Commas: quoted cells may span lines. Tabs: no quoting.

    A row with wrong quoting yields a BadRow, and parsing restarts on the next line. The lines that are parsed again can
    hold the end of the broken cell. A row of these lines with an odd number of quotes also yields a BadRow.
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
                    yield start + 1, BadRow("an unmatched quote")
                elif fields:
                    yield start + 1, fields
                start = end
        except csv.Error as error:
            yield start + 1, BadRow(f"not readable as csv: {error}")
            doubtful = max(doubtful, first + reader.line_num)
            start += 1


# ---- CoNLL -----------------------------------------------------------------------------------------------------------
def _read_conll(flag: str, path: Path) -> tuple[list[str], Rows]:
    """Read a CoNLL file: one word on each line, then its columns, separated by tabs or blanks. A blank line ends a
    sentence, which is a row.

    Columns: `tokens`, then `2`, `3` ... , and `ner_tags` for the last column. Lines `-DOCSTART-` are skipped, and lines
    with `#` but without a tab in a file with tabs.
    """
    lines = _text_lines(path)
    separator = "\t" if any("\t" in line for line in lines) else None
    sentences: dict[int, list[list[str]]] = {}
    start = 0
    for number, line in enumerate(lines, 1):
        fields = line.strip("\r\n" if separator else None).split(separator)
        comment = line.startswith("#") and separator and len(fields) == 1
        if not line.strip():
            start = 0
        elif not (comment or fields[0] == "-DOCSTART-"):
            start = start or number
            sentences.setdefault(start, []).append(fields)
    width = max((len(fields) for words in sentences.values() for fields in words), default=1)
    columns = ["tokens", *map(str, range(2, width)), *(["ner_tags"] if width > 1 else [])]

    def convert(words: list[list[str]]) -> Row | BadRow:
        for i, fields in enumerate(words, 1):
            if len(fields) != width or not all(fields):
                n = "an empty column" if len(fields) == width else f"{len(fields)} of {width} columns"
                return BadRow(f"line {i} of the sentence has {n}")
        return dict(zip(columns, map(list, zip(*words, strict=True)), strict=True))

    return columns, ((start, convert(words)) for start, words in sentences.items())
