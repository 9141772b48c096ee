"""The rows of a split in memory, and the errors of malformed rows. Every source of data is read into `Examples`."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

SHOWN = 5
"""Maximum number of names or line numbers in a message. The message counts the others."""
MISSING = ("nan", "<na>")
"""Lower-case words that pandas and NumPy write for a missing cell."""


@dataclass
class Examples:
    """n rows of a split in the order of the source."""

    texts: tuple[list[str], ...]
    """One or two lists of n texts. If each token has a label: one list of n lists of words."""
    labels: np.ndarray | None
    """n labels as an array of the task's kind. None for a split without labels."""
    index: list[str]
    """n row names from the source, or 0-based row numbers that include malformed rows. `index` in submissions."""
    bad_lines: tuple[int, ...] = ()
    """1-based line numbers of malformed rows that were left out."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def bad_rows(self) -> int:
        """Number of malformed rows that were left out."""
        return len(self.bad_lines)

    def head(self, n: int | None) -> "Examples":
        """The first n rows, or all rows for None."""
        return self.take(range(len(self))[:n])

    def take(self, rows: Sequence[int]) -> "Examples":
        """Rows by their 0-based position, in the given order."""
        texts = tuple([column[row] for row in rows] for column in self.texts)
        labels = None if self.labels is None else self.labels[np.asarray(rows, dtype=np.int64)]
        return Examples(texts, labels, [self.index[row] for row in rows], self.bad_lines)

    def fingerprint(self) -> str:
        """Hash of texts, labels and their order, as 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for column in self.texts:
            texts = (text if isinstance(text, str) else "\x1d".join(text) for text in column)
            digest.update("\x1f".join(texts).encode("utf-8", "surrogatepass"))
            digest.update(b"\x1e")
        if self.labels is not None:
            ragged = self.labels.dtype == object
            digest.update(np.ascontiguousarray(np.concatenate(self.labels) if ragged else self.labels).tobytes())
        return digest.hexdigest()[:16]


class BadRow(ValueError):
    """A malformed row. The message is the reason."""


class UnknownLabel(BadRow):
    """A label that is not a class of the task. The message is built on demand, because finding near names is slow."""

    def __str__(self) -> str:
        label, classes = self.args
        near = get_close_matches(label, classes, n=1)
        others = near + [name for name in classes if name not in near]
        return f"label '{label}' is none of {shortened([repr(name) if ',' in name else name for name in others])}"


def shortened(items: Sequence[object]) -> str:
    """Join the first items with commas, and add the number of the others."""
    rest = len(items) - SHOWN
    return ", ".join(map(str, items[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")


def as_number(text: str) -> float | None:
    """The value of a finite decimal number. None for any other text (`n/a`, `nan`, `1_000`)."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text and text.isascii() else None


def is_missing(label: str) -> bool:
    """Whether a text stands for a missing label."""
    return label.lower() in MISSING
