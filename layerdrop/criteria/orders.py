"""Results of searches: files in the formats of Peer et al. (2022), and the published ones.

An order of dropping (greedy) is one layer id a line, first to drop first. Best sets (optimal) are one set a line, of
one layer on line 1, of two on line 2 ..., with their ids joined by `-`. Ids count from 0.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from layerdrop.errors import UserError
from layerdrop.strategies import get_strategy

PUBLISHED = Path(__file__).parent.parent / "report" / "published"
"""From the authors' repository: greedy orders of layer_files/, best sets of one and two of layer_files_dev_set/."""


def find_layers(
    strategy: str | None, k: int | None, order_file: str | None, model: str, task: str, order: Sequence[int] = ()
) -> tuple[int, ...]:
    """The k ids of a search's result, for a strategy that needs one: from the file, the first k ids of an order, else
    the published ids. Ids of an order keep its sequence, first to drop first.

    Empty for every other strategy, and for a strategy that will search itself. Raises UserError.
    """
    row = get_strategy(strategy) if strategy else None
    if row is None or not row.searched or k is None or (row.searches and not (order_file or order)):
        return ()
    if order:
        sets, source = _beginnings(order), f"--drop_order {','.join(map(str, order))}"
    elif order_file:
        sets = read_sets_file(order_file) if strategy == "optimal" else _beginnings(read_order_file(order_file))
        source = f"--drop_order_file {order_file}"
    else:
        sets, source = published_sets(strategy, model, task), f"the published search for {task}"
    if not 0 < k <= len(sets):
        raise UserError(
            f"--drop_k {k}: {source} goes up to K = {len(sets)}. Choose 1 to {len(sets)}, or give the result of a "
            "longer search."
        )
    return tuple(sets[k - 1])


def reservation(strategy: str | None, given: str | None, task: str) -> str | None:
    """A caveat about a published choice of layers. None without a caveat, or with a search's result."""
    if given:
        return None
    if strategy == "optimal":
        return "the published best sets were chosen on the development set, by one run each: its scores flatter them"
    if strategy == "greedy" and task == "mnli":
        return "the published order for mnli was chosen on the mismatched development set: its scores flatter it"
    return None


# ---- files -----------------------------------------------------------------------------------------------------------
def read_order_file(path: str) -> tuple[int, ...]:
    """An order of dropping. Raises UserError with file and line."""
    order: list[int] = []
    for number, line in _lines(path, "One layer id a line is expected."):
        if "-" in line.strip("-"):
            raise UserError(
                f"{path}:{number}: '{line}' is a set. A file of best sets goes with --drop_strategy optimal."
            )
        (i,) = _ids(path, number, line)
        if i in order:
            raise UserError(f"{path}:{number}: layer {i} is there twice. Give each id once.")
        order.append(i)
    return tuple(order)


def read_sets_file(path: str) -> list[tuple[int, ...]]:
    """The best sets of 1, 2, 3 ... layers. Raises UserError with file and line."""
    expected = "The best set of k layers is expected on line k, as 10-11."
    sets: list[tuple[int, ...]] = []
    for number, line in _lines(path, expected):
        ids = _ids(path, number, line)
        if len(set(ids)) != len(sets) + 1 or len(set(ids)) != len(ids):
            hint = " An order of single ids goes with --drop_strategy greedy." if len(ids) == 1 else ""
            raise UserError(f"{path}:{number}: '{line}' is no set of {len(sets) + 1} layers. {expected}{hint}")
        sets.append(ids)
    return sets


def read_layers_file(path: str) -> tuple[int, ...]:
    """The dropped ids of a run's layers.json, ascending. Raises UserError."""
    expected = "The layers.json of a run is expected."
    try:
        dropped = json.loads(Path(path).read_text(encoding="utf-8-sig"))["dropped"]
        return tuple(sorted(int(i) for i in dropped))
    except OSError as error:
        raise UserError(f"--drop_order_file {path}: cannot read it ({error.strerror}). {expected}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"--drop_order_file {path}: names no dropped layers. {expected}") from None


def order_text(order: Sequence[int]) -> str:
    """The content of a file for read_order_file."""
    return "".join(f"{i}\n" for i in order)


def sets_text(sets: Sequence[Sequence[int]]) -> str:
    """The content of a file for read_sets_file; sets: of 1, 2, 3 ... layers."""
    return "".join("-".join(map(str, sorted(ids))) + "\n" for ids in sets)


def _lines(path: str, expected: str) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--drop_order_file {path}: cannot read it ({reason}). {expected}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"--drop_order_file {path}: is empty. {expected}")
    return lines


def _ids(path: str, number: int, line: str) -> tuple[int, ...]:
    words = line.split("-")
    if not all(word.isdecimal() for word in words):
        raise UserError(
            f"{path}:{number}: '{line}' is not a layer id. Write ids from 0, one a line, or a set as 10-11."
        )
    return tuple(map(int, words))


def _beginnings(order: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(order[: k + 1]) for k in range(len(order))]


# ---- published -------------------------------------------------------------------------------------------------------
def published_sets(strategy: str, model: str, task: str) -> list[tuple[int, ...]]:
    """What Peer et al. drop at K = 1, 2, ... for a model (hub name or folder of that name) and a task.

    strategy: `greedy` or `optimal`. Raises UserError where nothing is published.
    """
    name = Path(model.rstrip("/")).name
    found = _published_orders() if strategy == "greedy" else _published_optimal()
    if (name, task) not in found:
        models, tasks = (", ".join(sorted({key[i] for key in found})) for i in (0, 1))
        raise UserError(
            f"--drop_strategy {strategy}: nothing is published for {name} on {task} (there are: {models}; {tasks}). "
            f"Search with layerdrop search --method {strategy}, and give its result with --drop_order_file."
        )
    return found[name, task]


def _published_orders() -> dict[tuple[str, str], list[tuple[int, ...]]]:
    rows = _rows("peer2022_greedy_orders.csv")
    return {(row["model"], row["task"]): _beginnings(_spaced(row["order_of_dropping_0_based"])) for row in rows}


def _published_optimal() -> dict[tuple[str, str], list[tuple[int, ...]]]:
    found: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    for row in _rows("peer2022_optimal_sets.csv"):  # K ascending
        found.setdefault((row["model"], row["task"]), []).append(_spaced(row["dropped"]))
    return found


def _rows(file: str) -> list[dict[str, str]]:
    with open(PUBLISHED / file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def _spaced(text: str) -> tuple[int, ...]:
    return tuple(int(i) for i in text.split())
