"""Orders in which to drop layers, as searches found them: layer files, and those that Peer et al. (2022) published."""

import csv
from pathlib import Path

from layerdrop.errors import UserError
from layerdrop.strategies import get_strategy

PUBLISHED = Path(__file__).parent / "report" / "published" / "peer2022_greedy_orders.csv"
"""Found by greedy-layer pruning; from the authors' repository, layer_files/. Ids count from 0."""


def find_order(strategy: str | None, order_file: str | None, model: str, task: str) -> tuple[int, ...]:
    """Layer ids, first to drop first, for `greedy` and `optimal`: those of the file, else for greedy the published
    order. Empty for every other strategy. Raises UserError."""
    if strategy is None or not get_strategy(strategy).order:
        return ()
    if order_file:
        return read_order_file(order_file)
    if strategy == "greedy":
        return published_order(model, task)
    raise UserError(f"--drop_strategy {strategy}: needs a search's result. Add --drop_order_file FILE, one id a line.")


def read_order_file(path: str) -> tuple[int, ...]:
    """A layer file: one id a line, first to drop first. Raises UserError with file and line."""
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--drop_order_file {path}: cannot read it ({reason}). One layer id a line is expected."
        ) from None
    order = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if not line.strip().isdecimal():
            raise UserError(f"{path}:{number}: '{line.strip()}' is not a layer id. Write one id, from 0, a line.")
        order.append(int(line))
    if not order:
        raise UserError(f"--drop_order_file {path}: is empty. One layer id a line is expected.")
    return tuple(order)


def published_order(model: str, task: str) -> tuple[int, ...]:
    """The published greedy order for a model (hub name or folder of that name) and task. Raises UserError."""
    with open(PUBLISHED, encoding="utf-8", newline="") as file:
        orders = {(row["model"], row["task"]): row["order_of_dropping_0_based"] for row in csv.DictReader(file)}
    name = Path(model.rstrip("/")).name
    if (name, task) not in orders:
        models = ", ".join(sorted({key[0] for key in orders}))
        tasks = ", ".join(sorted({key[1] for key in orders}))
        raise UserError(
            f"--drop_strategy greedy: no published order for {name} on {task} (there are: {models}; {tasks}). "
            "Give a search's result with --drop_order_file."
        )
    return tuple(int(i) for i in orders[name, task].split())
