"""Tables as text: Markdown and LaTeX for people, CSV with one value in each column for programs."""

from __future__ import annotations

import re

import pandas as pd
from tabulate import tabulate

from layerdrop.report.tables.base import Table

NUMBER = re.compile(r"(?P<number>[-+]?[\d,]+(?:\.\d+)?)(?P<rest>.*)", re.DOTALL)
"""A cell that begins with a number, and what follows it."""
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}


def render(tables: list[Table], form: str) -> str:
    """form: md, latex (booktabs), csv (the tables of a kind together; kinds are a blank line apart)."""
    if form == "csv":
        kinds: dict[str, list[dict[str, object]]] = {}
        for table in tables:
            kinds.setdefault(table.kind, []).extend({"table": table.kind} | value for value in table.values)
        return "\n\n".join(_csv(values) for values in kinds.values() if values)
    return "\n\n".join({"md": _markdown, "latex": _latex}[form](table) for table in tables)


def _markdown(table: Table) -> str:
    body = tabulate(table.rows, table.header, tablefmt="github", disable_numparse=True)
    return "\n\n".join([f"### {table.title}", body, *(f"*{note}*" for note in table.notes)])


def _csv(values: list[dict[str, object]]) -> str:
    """Six significant digits, so that a small p value is not zero."""
    return pd.DataFrame(values, dtype=object).map(_six_digits).to_csv(index=False).rstrip("\n")


def _six_digits(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _latex(table: Table) -> str:
    """Numbers are right-aligned in a column of their own, what follows them (spread, difference) in one beside it: all
    numbers of a column have the same digits, so that they meet at the decimal point. Needs booktabs alone."""
    n = len(table.header)
    split = [any(NUMBER.fullmatch(row[i]) for row in table.rows) and i > 1 for i in range(n)]
    with_rest = [split[i] and any(_parts(row[i])[1] for row in table.rows) for i in range(n)]
    form = "".join("r@{ }l" if with_rest[i] else "r" if split[i] or i == 1 else "l" for i in range(n))
    head = [
        rf"\multicolumn{{2}}{{l}}{{{_escape(name)}}}" if with_rest[i] else _escape(name)
        for i, name in enumerate(table.header)
    ]
    lines = [f"% {table.title}", rf"\begin{{tabular}}{{{form}}}", r"\toprule", _line(head), r"\midrule"]
    for row in table.rows:
        cells = [" & ".join(map(_escape, _parts(c))) if with_rest[i] else _escape(c) for i, c in enumerate(row)]
        lines.append(_line(cells))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in table.notes)])


def _parts(cell: str) -> tuple[str, str]:
    """(number, rest) of a cell; a cell of words alone goes to the right-aligned side."""
    match = NUMBER.fullmatch(cell)
    return (match["number"], match["rest"].strip()) if match else (cell, "")


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escape(text: str) -> str:
    escaped = "".join(SPECIAL.get(c, "\\" + c if c in "&%$#_{}" else c) for c in text)
    return re.sub(r"(?<![\w.,])-(\d)", r"$-$\1", escaped)
