"""Texts to predict: a file of any type that a run reads, plain lines, or a single text. No row is lost."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from layerdrop.data.columns import PAIRS, SINGLES, text_columns
from layerdrop.data.examples import Examples
from layerdrop.data.files import index_column
from layerdrop.data.tables import FILE_TYPES, BadRow, Table, read_table
from layerdrop.errors import UserError

COUNTS = {1: "one text", 2: "two texts"}


@dataclass(frozen=True)
class ToPredict:
    """n rows in the order of the source."""

    source: str
    """For messages: a path, `stdin`, `--text`."""
    index: list[str]
    """n row names from the source, or row numbers from 0."""
    texts: list[tuple[str, ...] | None]
    """n single texts or pairs; None for an empty line or a malformed row."""
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[int]:
        """The rows with a text."""
        return [i for i, texts in enumerate(self.texts) if texts is not None]

    def examples(self, columns: Sequence[tuple[str, ...]]) -> Examples:
        """The rows with a text. Raises UserError if there is none, or if the model takes pairs and the rows are single
        texts, or vice versa. columns: known text columns of the model's training."""
        texts = [texts for texts in self.texts if texts is not None]
        if not texts:
            raise UserError(f"{self.source}: no text in it. Give one text in each line, or two.")
        n, expected = len(texts[0]), len(columns[0] if columns else texts[0])
        if n != expected:
            raise UserError(f"{self.source}: {COUNTS[n]} in a row, and the model takes {COUNTS[expected].split()[0]}.")
        return Examples(tuple(map(list, zip(*texts, strict=True))), None, [self.index[i] for i in self.rows])


def is_table(path: str) -> bool:
    """Whether the ending is that of a file with named columns."""
    return Path(path).suffix.lower() in FILE_TYPES


def read_columns(
    path: str, columns: Sequence[tuple[str, ...]], chosen: Sequence[str] = (), skip_bad_rows: bool = False
) -> ToPredict:
    """The rows of a csv, tsv, JSON or parquet file.

    columns: the text columns of the model's training, under each name that they may have. chosen: the user's columns.
    skip_bad_rows: give a malformed row no text instead of raising UserError with its line.
    """
    table = read_table("FILE", path, skip_bad_rows)
    names = _columns(table, columns, chosen)
    index, note = index_column(table)
    rows = zip(table.rows, table.as_text(names, skip_bad_rows).rows, strict=True)
    texts, ids = [], []
    for (_, row), (_, as_text) in rows:
        texts.append(None if isinstance(as_text, BadRow) else tuple(as_text[name] for name in names))
        ids.append(str(len(ids)) if index is None else "" if isinstance(row, BadRow) else str(row[index]))
    return ToPredict(path, ids, texts, (note,) if note else ())


def _columns(table: Table, known: Sequence[tuple[str, ...]], chosen: Sequence[str]) -> tuple[str, ...]:
    if chosen:
        return text_columns(table, "", chosen, None)
    usual = known or [*PAIRS, *((name,) for name in SINGLES)]
    found = [names for names in usual if set(names) <= set(table.columns)]
    if found and (known or len(found) == 1):
        return found[0]
    columns = ", ".join(table.columns)
    problem = (
        f"no column {', '.join(known[0])}, which the model was trained on; found: {columns}"
        if known
        else f"cannot tell the text columns from {columns}"
    )
    raise UserError(
        f"{table.path}: {problem}. Name them: --text_columns A,B. For plain lines use another ending, such as .txt."
    )


def read_lines(content: bytes, source: str) -> ToPredict:
    """Read plain lines: one text, or two texts separated by a tab. Lines end with LF or CR LF. Raises UserError."""
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: not UTF-8 text ({error.reason} at byte {error.start}). Convert the file.") from None
    if not lines[-1]:
        lines.pop()
    texts: list[tuple[str, ...] | None] = []
    first = None
    for number, line in enumerate(lines, 1):
        row = tuple(line.removesuffix("\r").split("\t")) if line.strip() else None
        if row is not None:
            first = first or len(row)
            if first > 2:
                raise UserError(
                    f"{source}:{number}: {first} texts, separated by tabs. Give one text in each line, or two."
                )
            if len(row) != first:
                raise UserError(f"{source}:{number}: {len(row)} texts, but {first} in the lines above.")
        texts.append(row)
    return ToPredict(source, [str(i) for i in range(len(lines))], texts)
