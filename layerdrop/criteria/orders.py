"""Search results: files in the formats of Peer et al. (2022), and the published results.

An order of dropping (greedy) has one layer id per line, beginning with the first layer to drop. A file of best sets
(optimal) has the best set of k layers on line k, with ids joined by `-`. Ids count from 0.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from layerdrop.criteria.table import get_strategy
from layerdrop.errors import UserError, refuse_pointer

PUBLISHED = Path(__file__).parent.parent / "report" / "published"
"""Results from the authors' repository: greedy orders (layer_files/), best sets of one and two layers
(layer_files_dev_set/)."""
Ids = tuple[int, ...]


def find_layers(
    strategy: str | None, k: int | None, order_file: str | None, model: str, task: str, order: Ids = ()
) -> Ids:
    """Find the k ids of a search result: in `order`, else in the file, else in the published results.

    Ids from an order keep the order of dropping. Empty for a strategy that reads no search result. Raises UserError,
    also for `shortlist` without a result: no shortlist is published.
    """
    if strategy is None or k is None or not get_strategy(strategy).searched:
        return ()
    if order:
        sets, source = _prefixes(order), f"--drop_order {','.join(map(str, order))}"
    elif order_file:
        sets = read_sets_file(order_file) if strategy == "optimal" else _prefixes(read_order_file(order_file))
        source = f"--drop_order_file {order_file}"
    elif strategy == "shortlist":
        raise UserError(
            f"--drop_strategy {strategy}: needs the result of a search. Run: layerdrop search --method {strategy} "
            f"--max_k {k}. Then add --drop_order_file with the .txt file that it writes."
        )
    else:
        sets, source = published_sets(strategy, model, task), f"the published search for {task}"
    if not 0 < k <= len(sets):
        raise UserError(
            f"{source} goes up to K = {len(sets)}. Choose 1 to {len(sets)}, or give the result of a longer search.",
            "--drop_k",
            k,
        )
    return tuple(sets[k - 1])


def published_note(strategy: str | None, given: str | None, task: str) -> str | None:
    """A warning about a published selection of layers. None for a search result of the user."""
    if given:
        return None
    if strategy == "optimal":
        return "the published best sets were selected on the validation set, so scores on it are biased"
    if strategy == "greedy" and task == "mnli":
        return "the published order for mnli was selected on the mismatched validation set, so scores on it are biased"
    return None


# ---- files -----------------------------------------------------------------------------------------------------------
def read_order_file(path: str) -> Ids:
    """Read an order of dropping. Raises UserError with file and line."""
    order: list[int] = []
    for number, line in _lines(path, "One layer id per line is expected."):
        if "-" in line.strip("-"):
            raise UserError(
                f"{path}:{number}: '{line}' is a set. Use a file of best sets with --drop_strategy optimal."
            )
        (i,) = _ids(path, number, line)
        if i in order:
            raise UserError(f"{path}:{number}: layer {i} occurs twice. Give each id once.")
        order.append(i)
    return tuple(order)


def read_sets_file(path: str) -> list[Ids]:
    """Read the best sets of 1, 2, 3 ... layers. Raises UserError with file and line."""
    expected = "The best set of k layers is expected on line k, as 10-11."
    sets: list[Ids] = []
    for number, line in _lines(path, expected):
        ids = _ids(path, number, line)
        if len(set(ids)) != len(sets) + 1 or len(set(ids)) != len(ids):
            hint = " Use an order of single ids with --drop_strategy greedy." if len(ids) == 1 else ""
            raise UserError(f"{path}:{number}: '{line}' is not a set of {len(sets) + 1} layers. {expected}{hint}")
        sets.append(ids)
    return sets


def read_layers_file(path: str) -> Ids:
    """Read the dropped ids of a run's layers.json, ascending. Raises UserError."""
    expected = "The layers.json of a run is expected."
    text = _read(path, expected)
    try:
        return tuple(sorted(int(i) for i in json.loads(text)["dropped"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"--drop_order_file {path}: names no dropped layers. {expected}") from None


def order_text(order: Sequence[int]) -> str:
    """Content of a file for read_order_file."""
    return "".join(f"{i}\n" for i in order)


def sets_text(sets: Sequence[Sequence[int]]) -> str:
    """Content of a file for read_sets_file. sets: the best sets of 1, 2, 3 ... layers."""
    return "".join("-".join(map(str, sorted(ids))) + "\n" for ids in sets)


def _read(path: str, expected: str) -> str:
    try:
        content = Path(path).read_bytes()
        refuse_pointer(f"--drop_order_file {path}", content)
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--drop_order_file {path}: cannot read it ({reason}). {expected}") from None


def _lines(path: str, expected: str) -> list[tuple[int, str]]:
    """(line number from 1, line) of all lines that are not empty."""
    lines = [
        (number, line.strip()) for number, line in enumerate(_read(path, expected).splitlines(), 1) if line.strip()
    ]
    if not lines:
        raise UserError(f"--drop_order_file {path}: is empty. {expected}")
    return lines


def _ids(path: str, number: int, line: str) -> Ids:
    words = line.split("-")
    if not all(word.isdecimal() for word in words):
        raise UserError(
            f"{path}:{number}: '{line}' is not a layer id. Write ids from 0, one per line, or a set as 10-11."
        )
    return tuple(map(int, words))


def _prefixes(order: Sequence[int]) -> list[Ids]:
    return [tuple(order[: k + 1]) for k in range(len(order))]


# ---- published -------------------------------------------------------------------------------------------------------
def published_sets(strategy: str, model: str, task: str) -> list[Ids]:
    """The layers that Peer et al. drop for a model (hub name or folder of that name) and a task, at K = 1, 2, ...

    strategy: `greedy` or `optimal`. Raises UserError if nothing is published.
    """
    name, greedy = Path(model.rstrip("/")).name, strategy == "greedy"
    file = "peer2022_greedy_orders.csv" if greedy else "peer2022_optimal_sets.csv"
    published: dict[tuple[str, str], list[Ids]] = {}
    with open(PUBLISHED / file, encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):  # optimal: K ascending
            ids = tuple(int(i) for i in row["order_of_dropping_0_based" if greedy else "dropped"].split())
            published.setdefault((row["model"], row["task"]), []).extend(_prefixes(ids) if greedy else [ids])
    if (name, task) not in published:
        models, tasks = (", ".join(sorted({key[i] for key in published})) for i in (0, 1))
        raise UserError(
            f"--drop_strategy {strategy}: nothing is published for {name} on {task} (published: {models}; {tasks}). "
            f"Run layerdrop search --method {strategy}, and give its result with --drop_order_file."
        )
    return published[name, task]
