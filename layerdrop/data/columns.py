"""The columns of a user's table: which hold the texts, and whether the label is a class or a number.

Unclear cases are refused, with the columns and the flag that decides.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from layerdrop.data.examples import as_number
from layerdrop.data.tables import Table
from layerdrop.data.tasks import Task
from layerdrop.errors import UserError

PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("text_a", "text_b"),
)
SINGLES = ("sentence", "text")
INDEX_COLUMNS = ("index", "idx", "id")
"""Columns that name rows."""
MOSTLY_NUMBERS = 0.9
"""From this share of numbers on, a label column with decimals holds numbers, and its other labels are malformed."""
UNCLEAR_NUMBERS = 0.5
"""From this share on, up to MOSTLY_NUMBERS, it is not clear."""
MISSING = ("nan", "<na>")
"""Lower-case words that pandas and NumPy write for a missing cell."""
MAYBE_MISSING = ("none", "null", "n/a", "na", "#n/a", "?", "-")
"""Ambiguous words: a missing label or a class."""
OTHER_SPELLING = re.compile(r"[$€£]? ?[+-]?([0-9]{1,3}([,.' ][0-9]{3})+([.,][0-9]+)?|[0-9]+([.,][0-9]+)?) ?[%$€£]?")
"""Numbers, including a decimal comma, thousands separators, a percent sign or a currency sign."""


def text_columns(table: Table, label: str, chosen: Sequence[str], task: Task | None) -> tuple[str, ...]:
    """One or two text columns.

    `chosen` (by the user) if given; else the task's own; else a usual pair or single name; else the only column that
    holds text. Numbers and unique ids are no text. Raises UserError for anything else.
    """
    known = ", ".join(table.columns)
    if chosen:
        if missing := [name for name in chosen if name not in table.columns]:
            raise UserError(f"--text_columns: {table.path} has no column {', '.join(missing)}; found: {known}.")
        return tuple(chosen)
    candidates = [name for name in table.columns if name != label and not _all_numbers(table.values(name))]
    for usual in (task.texts, task.hub_texts) if task else ():
        if set(usual) <= set(candidates):
            return usual
    pairs = [pair for pair in PAIRS if set(pair) <= set(candidates)]
    singles = [(name,) for name in SINGLES if name in candidates and not any(name in pair for pair in pairs)]
    rest = [(name,) for name in candidates if name not in INDEX_COLUMNS and _holds_text(table.values(name))]
    found = pairs + singles or rest
    if len(found) != 1:
        raise UserError(f"{table.path}: cannot tell the text columns from {known}. Name them: --text_columns A,B.")
    return found[0]


def _all_numbers(cells: list[object]) -> bool:
    return all(as_number(str(cell)) is not None or is_missing(str(cell)) for cell in cells)


def _holds_text(cells: list[object]) -> bool:
    """Whether these are texts, not unique words: a column of those names the rows."""
    if not all(isinstance(cell, str) for cell in cells):
        return False
    return len(set(cells)) < len(cells) or any(len(cell.split()) > 1 for cell in cells)


def label_is_number(table: Table, column: str) -> bool:
    """Whether a label column holds numbers to predict, rather than classes.

    Numbers: at least one label is no whole number, and 90% or more are numbers. Classes: whole numbers only, words, or
    words and fewer than 50% of numbers. Raises UserError in between, with the first label that is no number, and for
    numbers of another spelling (`3,5`, `35%`). Missing labels do not count.
    """
    counts = Counter(label for label in map(str, table.values(column)) if not is_missing(label))
    numbers = [label for label in counts if as_number(label) is not None]
    _refuse_other_spelling(table, column, counts, numbers)
    if all(map(is_whole, numbers)):
        return False
    n, total = sum(counts[label] for label in numbers), counts.total()
    share = n / total
    if UNCLEAR_NUMBERS <= share < MOSTLY_NUMBERS:
        line, label = next(_labels_that_are_no_numbers(table, column))
        raise UserError(
            f"{table.path}:{line}: label '{label}' of column '{column}' is not a number, but {n} of {total} "
            f"labels are. Say --label_type number (with --skip_bad_rows to leave such rows out) or class."
        )
    return share >= MOSTLY_NUMBERS


def _refuse_other_spelling(table: Table, column: str, counts: Counter[str], numbers: Sequence[str]) -> None:
    """Raise UserError if labels are numbers and some have a format that Python does not parse."""
    other = [label for label in counts if label not in numbers and OTHER_SPELLING.fullmatch(label)]
    if other and sum(counts[label] for label in (*numbers, *other)) >= MOSTLY_NUMBERS * counts.total():
        line, label = next(found for found in _labels_that_are_no_numbers(table, column) if found[1] in other)
        raise UserError(
            f"{table.path}:{line}: label '{label}' of column '{column}' is a number in another format. Write it "
            "like 1200.5, or use --label_type class."
        )


def is_missing(label: str) -> bool:
    """Whether the text stands for a missing label."""
    return label.lower() in MISSING


def maybe_missing(names: Sequence[str]) -> list[str]:
    """Classes that may stand for a missing label: `None`, `?`, or -1 beside classes that count from 0."""
    words = [name for name in names if name.lower() in MAYBE_MISSING]
    ids = sorted(int(name) for name in names if is_whole(name))
    counted = len(ids) == len(names) > 2 and ids == list(range(-1, len(ids) - 1))
    return words + [name for name in names if counted and int(name) == -1]


def _labels_that_are_no_numbers(table: Table, column: str) -> Iterator[tuple[int, str]]:
    """(line, label)"""
    for line, row in table.rows:
        label = str(row.get(column) or "") if isinstance(row, dict) else ""
        if label and as_number(label) is None:
            yield line, label


def is_whole(label: str) -> bool:
    """Whether the text is a whole number, in ASCII digits."""
    return re.fullmatch(r"[+-]?[0-9]+", label) is not None


AFFIRMATIVE = {
    **{"1": ("0", "-1"), "+1": ("-1",), "true": ("false",), "t": ("f",), "yes": ("no",), "y": ("n",)},
    **{"positive": ("negative",), "pos": ("neg",)},
}
"""Positive class -> the names of a negative one, in lower case."""


def positive_class(names: Sequence[str], counts: Mapping[str, int] | None) -> tuple[str, str]:
    """Choose the positive one of two classes in id order. Returns (class, reason).

    Chosen by name (AFFIRMATIVE, and X beside `not X`), else the rarer class by `counts`, else the second class.
    """
    for name, other in (names, names[::-1]):
        word, negative = name.lower(), other.lower()
        if negative in AFFIRMATIVE.get(word, ()) or re.fullmatch(f"(not|no|non)[ _-]?{re.escape(word)}", negative):
            return name, f"by its name, beside '{other}'"
    if counts and counts[names[0]] != counts[names[1]]:
        return min(names, key=counts.__getitem__), "the rarer one in training"
    return names[1], "the second one by name"


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels in id order: by value where all are whole numbers, else in the alphabet's order."""
    names = set(labels)
    if all(map(is_whole, names)):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))
