"""One split in memory, and the step from parsed rows to it. Every reader of a file ends here."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import numpy as np

from layerdrop.errors import UserError

SHOWN = 5
"""Names, or line numbers, that a message lists before it says how many more there are."""


@dataclass
class Examples:
    """One split as read: n rows in the order of the source."""

    texts: tuple[list[str], ...]
    """One or two lists of n texts."""
    labels: np.ndarray | None
    """(n,) class ids (int64) or values (float32). None for a split without labels."""
    index: list[str]
    """n row names from the source, or row numbers in the file from 0, which count malformed rows too. GLUE's
    submissions call them `index`."""
    bad_lines: tuple[int, ...] = ()
    """Line numbers, from 1, of malformed rows that were left out."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def bad_rows(self) -> int:
        """Number of malformed rows that were left out."""
        return len(self.bad_lines)

    def head(self, n: int | None) -> "Examples":
        """The first n rows (all for None)."""
        return self.take(range(len(self))[:n])

    def take(self, rows: Sequence[int]) -> "Examples":
        """Some rows, in that order. rows: numbers from 0."""
        texts = tuple([column[row] for row in rows] for column in self.texts)
        labels = None if self.labels is None else self.labels[np.asarray(rows, dtype=np.int64)]
        return Examples(texts, labels, [self.index[row] for row in rows], self.bad_lines)

    def fingerprint(self) -> str:
        """A hash of texts and labels: two runs with the same one read the same rows in the same order."""
        digest = hashlib.sha256()
        for column in self.texts:
            digest.update("\x1f".join(column).encode("utf-8", "surrogatepass"))
            digest.update(b"\x1e")
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).tobytes())
        return digest.hexdigest()[:16]


class BadRow(ValueError):
    """A row that cannot be read. The message says why."""


class UnknownLabel(BadRow):
    """A label that is no class of the task. The message is only made when it is shown: finding near names is slow."""

    def __init__(self, label: str, classes: Sequence[str]):
        super().__init__(label)
        self.label, self.classes = label, classes

    def __str__(self) -> str:
        near = get_close_matches(self.label, self.classes, n=1)
        names = near + [name for name in self.classes if name not in near]
        return f"label '{self.label}' is none of {shortened(names)}"


def shortened(items: Sequence[object]) -> str:
    """The items with commas: the first five, and the number of the others."""
    rest = len(items) - SHOWN
    return ", ".join(map(str, items[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")


def bad_row_error(path: str | Path, line: int, reason: BadRow) -> UserError:
    """The error for a malformed row. line: from 1."""
    return UserError(f"{path}:{line}: {reason}. Mend the row, or leave such rows out with --skip_bad_rows.")


def no_usable_row(bad: Mapping[int, BadRow | None]) -> str:
    """The message for a file without a usable row: the number of malformed rows, and the first reason.

    bad: line -> reason.
    """
    first = next((f" ({len(bad)} malformed; line {line}: {reason})" for line, reason in bad.items()), "")
    return f"no usable row{first}"


def as_number(text: str) -> float | None:
    """The finite decimal number that the text spells; None for any other text (`n/a`, `nan`, `1_000`)."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def class_id(label: str, classes: Sequence[str]) -> int:
    """Position of the label in `classes`. Raises BadRow for an unknown label."""
    if label not in classes:
        raise UnknownLabel(label, classes)
    return classes.index(label)


Row = tuple[tuple[str, ...], float | int | None, str]
"""(texts, label, index)"""
Raw = TypeVar("Raw")


def collect(
    path: str | Path, rows: Iterable[tuple[int, Raw]], parse: Callable[[Raw], Row], skip_bad_rows: bool
) -> Examples:
    """All rows of a file.

    rows: (line from 1, row as read); parse: raises BadRow for a malformed row, which is left out and counted, or ends
    in a UserError with file and line unless `skip_bad_rows`.
    """
    good: list[Row] = []
    numbers: list[str] = []
    bad: dict[int, BadRow | None] = {}
    for number, (line, row) in enumerate(rows):
        try:
            good.append(parse(row))
            numbers.append(str(number))
        except BadRow as error:
            if not skip_bad_rows:
                raise bad_row_error(path, line, error) from None
            bad[line] = None if bad else error  # keep the first reason
    if not good:
        raise UserError(f"{path}: {no_usable_row(bad)}. Check the file.")
    texts, labels, index = zip(*good, strict=True)
    kind = np.float32 if isinstance(labels[0], float) else np.int64
    return Examples(
        tuple(list(column) for column in zip(*texts, strict=True)),
        None if labels[0] is None else np.array(labels, dtype=kind),
        list(index) if all(index) else numbers,
        tuple(bad),
    )
