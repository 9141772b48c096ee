"""Analyses of layers as tables: numbers by layer, orders, and the agreement of orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layerdrop.report.tables.base import Table

Rows = Mapping[str, Sequence[float | None]]


def by_layer(
    kind: str, title: str, rows: Rows, columns: Sequence[object], notes: Sequence[str] = (), first: str = ""
) -> Table:
    """A row of numbers for each name. columns: of the numbers."""
    words = [[name, *("" if v is None else f"{v:.4g}" for v in values)] for name, values in rows.items()]
    values = [
        {"title": title, "row": name, "column": column, "value": value}
        for name, found in rows.items()
        for column, value in zip(columns, found, strict=True)
    ]
    return Table(kind, title, [first or "layer", *map(str, columns)], words, list(notes), values)


def orders(title: str, found: Mapping[str, Sequence[int]], notes: Sequence[str] = ()) -> Table:
    """Which layers go, first to go first, by each criterion."""
    rows = [[name, " ".join(map(str, order))] for name, order in found.items()]
    values = [{"title": title, "criterion": name, "order": " ".join(map(str, order))} for name, order in found.items()]
    return Table("orders", title, ["criterion", "first to go first"], rows, list(notes), values)


def agreement(title: str, found: Mapping[str, Sequence[int]]) -> Table:
    """Kendall's tau of every order with every other: 1 the same, 0 unrelated, -1 turned round."""
    from scipy.stats import kendalltau

    places = {name: [list(order).index(i) for i in sorted(order)] for name, order in found.items()}
    rows, values = [], []
    for a in places:
        taus = {b: float(kendalltau(places[a], places[b]).statistic) for b in places}
        rows.append([a, *(f"{tau:.2f}" for tau in taus.values())])
        values += [{"title": title, "criterion": a, "other": b, "tau": tau} for b, tau in taus.items()]
    return Table("agreement", title, ["Kendall's tau", *places], rows, [], values)
