"""Decide how to read own data: the text columns, the type of the labels, the positive class.

In unclear cases, a UserError names the columns and the flag to add.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from layerdrop.data.examples import BadRow, as_number, is_missing, shortened
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
LABEL_SEPARATORS = ";|,"
"""Usual characters between the labels of a cell."""
INDEX_COLUMNS = ("index", "idx", "id")
"""Columns of row names."""
MOSTLY_NUMBERS = 0.9
"""A label column with decimals is numeric from this share of numbers. All other labels are then malformed."""
UNCLEAR_NUMBERS = 0.5
"""A label column with decimals is unclear if its share of numbers is between this value and MOSTLY_NUMBERS."""
MAYBE_MISSING = re.compile(
    r"none|null|nil|n/?a|nat|[-–—.?_]+|#(n/a|ref!|value!|div/0!|name\?|num!|null!)|unknown|missing|undefined|empty|"
    r"unlabell?ed|no label|not available|tbd",
    re.IGNORECASE,
)
"""Words that can name a class or mark a missing label."""
IGNORED_IDS = (-1, -100)
"""Class ids that libraries ignore: labels of rows without a class."""
OTHER_FORMAT = re.compile(
    r"[$€£¥]? ?[+−–-]?(\d{1,3}([,._'’ \u00a0\u202f]\d{3})+([.,٫]\d+)?|\d+([.,٫]\d+)?) ?([%‰$€£¥]|/ ?\d+)?"
)
"""Numbers, including a decimal comma, thousands separators, a percent or currency sign, a fraction such as 4/5, and
digits and minus signs that are not ASCII."""
AFFIRMATIVE = {
    **{"1": ("0", "-1"), "+1": ("-1",), "true": ("false",), "t": ("f",), "yes": ("no",), "y": ("n",)},
    **{"positive": ("negative",), "pos": ("neg",)},
}
"""Positive class -> names of its negative class, in lower case."""


def text_columns(table: Table, label: str, chosen: Sequence[str], task: Task | None) -> tuple[str, ...]:
    """Choose one or two text columns.

    The first that applies: the columns `chosen` by the user, the task's columns, a usual pair of names or single name,
    the only column of texts.
    Numbers and unique ids do not count as texts. Raises UserError if the choice is unclear.
    """
    if chosen:
        table.require("--text_columns", chosen)
        return tuple(chosen)
    others = [name for name in table.columns if name != label]
    cells = {name: [*table.values(name).values()] for name in others if name not in table.classes}
    candidates = [name for name in cells if not _all_numbers(cells[name])]
    for usual in (task.texts, task.hub_texts) if task else ():
        if set(usual) <= set(candidates):
            return usual
    pairs = [pair for pair in PAIRS if set(pair) <= set(candidates)]
    singles = [(name,) for name in SINGLES if name in candidates and not any(name in pair for pair in pairs)]
    rest = [(name,) for name in candidates if name not in INDEX_COLUMNS and _are_texts(cells[name])]
    usable = pairs + singles or rest
    if len(usable) != 1:
        numbers = [name for name in cells if cells[name] and name not in candidates]
        hint = f" (only numbers: {shortened(numbers)})" if numbers and not usable else ""
        known = ", ".join(others) + hint
        raise UserError(f"{table.path}: cannot choose the text columns from {known}. Add --text_columns A, or A,B.")
    return usable[0]


def note_on_quotes(table: Table, columns: Sequence[str]) -> list[str]:
    """The note on texts of a .tsv file that are quoted as in csv, with doubled quotes. Empty without such texts."""
    cells = {name: table.values(name).values() for name in columns if table.path.lower().endswith(".tsv")}
    quoted = [name for name in cells if any(isinstance(cell, str) and _is_quoted(cell) for cell in cells[name])]
    if not quoted:
        return []
    where = f"column '{quoted[0]}' of {table.path}"
    return [f"the texts of {where} keep their quotes, because .tsv has no quoting. To remove them, write a .csv file"]


def _is_quoted(cell: str) -> bool:
    inner = cell[1:-1]
    return cell[:1] == cell[-1:] == '"' and '""' in inner and '"' not in inner.replace('""', "")


def _all_numbers(cells: list[object]) -> bool:
    return all(as_number(str(cell)) is not None or is_missing(str(cell)) for cell in cells)


def _are_texts(cells: list[object]) -> bool:
    """Whether all cells are strings. Unique single words count as ids."""
    if not all(isinstance(cell, str) for cell in cells):
        return False
    return len(set(cells)) < len(cells) or any(len(cell.split()) > 1 for cell in cells)


def label_is_number(table: Table, column: str) -> bool:
    """Whether a label column holds numbers to predict instead of classes. Missing labels do not count.

    Numbers: at least one label is a decimal, and at least 90% are numbers. Classes: no label is a decimal, or fewer
    than 50% are numbers. Raises UserError between 50% and 90%, for numbers in another format (`3,5`, `35%`), and for
    two whole numbers as decimals (`0.0`, `1.0`), as pandas writes the class ids of a column with missing cells.
    """
    labels = {line: text for line, cell in table.values(column).items() if not is_missing(text := str(cell))}
    words = {line: label for line, label in labels.items() if as_number(label) is None}
    numbers = [label for line, label in labels.items() if line not in words]
    other = {line: label for line, label in words.items() if OTHER_FORMAT.fullmatch(label)}
    if other and len(numbers) + len(other) >= MOSTLY_NUMBERS * len(labels):
        line, label = next(iter(other.items()))
        raise UserError(
            f"{table.path}:{line}: label '{label}' of column '{column}' is a number in another format. Write it "
            "like 1200.5, or use --label_type class."
        )
    if all(is_whole_number(label.strip()) for label in numbers):
        return False
    share = len(numbers) / len(labels)
    if UNCLEAR_NUMBERS <= share < MOSTLY_NUMBERS:
        line, label = next(iter(words.items()))
        raise UserError(
            f"{table.path}:{line}: label '{label}' of column '{column}' is not a number, but {len(numbers)} of "
            f"{len(labels)} labels are. Add --label_type class, or --label_type number and --skip_bad_rows."
        )
    values = {as_number(label) for label in numbers}
    if share >= MOSTLY_NUMBERS and len(values) == 2 and all(value.is_integer() for value in values):
        shown = shortened([f"{value:.1f}" for value in sorted(values)])
        raise UserError(
            f"{table.path}: labels of column '{column}' are two whole numbers, written as decimals: {shown}. "
            "Add --label_type class or number."
        )
    return share >= MOSTLY_NUMBERS


def separator_in(table: Table, column: str) -> str | None:
    """The character between the labels of a cell, `;`, `|` or `,`, by a label that occurs in two different cells. None
    without such a label. Lists do not count."""
    cells = {
        cell for cell in table.values(column).values() if isinstance(cell, str) and not cell.lstrip().startswith("[")
    }
    for separator in LABEL_SEPARATORS:
        labels = [{label.strip() for label in cell.split(separator)} for cell in cells]
        n_cells = Counter(label for in_cell in labels for label in in_cell if label)
        if any(n_cells[label] > 1 for in_cell in labels if len(in_cell) > 1 for label in in_cell):
            return separator
    return None


def check_blanks(names: Iterable[str], column: str) -> None:
    """Raise BadRow for a label that begins or ends with a blank: ` 1` would be another class than `1`."""
    for name in names:
        if name != name.strip():
            raise BadRow(f"label {name!r} of column '{column}' begins or ends with a blank")


def note_on_spelling(names: Sequence[str], column: str) -> list[str]:
    """The note on classes that differ only by blanks at their ends, by case, or as `1` and `1.0`. May be empty."""
    same: dict[object, list[str]] = {}
    for name in names:
        number = as_number(name)
        same.setdefault(name.strip().lower() if number is None else number, []).append(name)
    groups = [" and ".join(map(repr, group)) for group in same.values() if len(group) > 1]
    if not groups:
        return []
    return [f"classes of column '{column}' differ only in spelling: {shortened(groups)}. To join them, rename one"]


def maybe_missing(names: Sequence[str]) -> list[str]:
    """Classes that may mark a missing label: `None`, `?`, or -1 or -100 if the other classes count from 0."""
    words = [name for name in names if MAYBE_MISSING.fullmatch(name)]
    ids = {name: int(name) for name in names if is_whole_number(name)}
    classes = sorted(i for i in ids.values() if i not in IGNORED_IDS)
    counted = len(ids) == len(names) and len(classes) > 1 and classes == list(range(len(classes)))
    return words + [name for name in ids if counted and ids[name] in IGNORED_IDS]


def is_whole_number(label: str) -> bool:
    """Whether a text is a whole number in ASCII digits."""
    return re.fullmatch(r"[+-]?[0-9]+", label) is not None


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Different labels in id order: by value if all are whole numbers, else in alphabetical order."""
    names = set(labels)
    if all(map(is_whole_number, names)):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def positive_class(names: Sequence[str], counts: Mapping[str, int] | None) -> tuple[str, str]:
    """Choose the positive class of two classes in id order. Returns (class, reason).

    The first that applies: a positive name (AFFIRMATIVE, or X if the other class is `not X`), the rarer class by
    `counts`, the second class.
    """
    for name, other in (names, names[::-1]):
        word, negative = name.lower(), other.lower()
        if negative in AFFIRMATIVE.get(word, ()) or re.fullmatch(f"(not|no|non)[ _-]?{re.escape(word)}", negative):
            return name, f"positive by its name, unlike '{other}'"
    if counts and counts[names[0]] != counts[names[1]]:
        return min(names, key=counts.__getitem__), "the rarer class in training"
    return names[1], "the second class in ascending order"
