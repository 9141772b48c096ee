"""A table and its formats: Markdown, LaTeX, and csv with one value in each column."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pandas as pd
from tabulate import tabulate

from layerdrop.system.text import csv_cell, printable

POWER = r"(\d+(?:\.\d+)?)e([-+]\d+)(?!\w)"
"""A number with an exponent, such as 4.6e-05."""
NUMBER = re.compile(r"(?P<number>[-+]?(?:[\d,]+(?:\.\d+)?(?:e[-+]\d+)?)%?)(?P<rest>.*)", re.DOTALL)
"""A cell that begins with a number or a percentage, and the rest of the cell."""

PREAMBLE = r"% needs \usepackage{booktabs}"


@dataclass
class Table:
    """A title, column names, rows of text, and notes below."""

    kind: str
    """tasks, glue, cost, significance ... Tables of the same kind form one block in csv."""
    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    values: list[dict[str, object]] = field(default_factory=list)
    """Machine-readable rows: column of the csv -> number or text; None for a missing value."""
    phrases: bool = False
    """Whether cells are phrases, in which the first number has no special place."""


def render(tables: list[Table], form: str) -> str:
    """Format tables. form: `md`; `latex` (booktabs); `csv` (one block for each kind, separated by a blank line)."""
    if form == "csv":
        kinds: dict[str, list[dict[str, object]]] = {}
        for table in tables:
            kinds.setdefault(table.kind, []).extend({"table": table.kind} | value for value in table.values)
        return "\n\n".join(_csv(values) for values in kinds.values() if values)
    text = "\n\n".join({"md": _markdown, "latex": _latex}[form](table) for table in tables)
    return f"{PREAMBLE}\n{text}" if form == "latex" and text else text


def _markdown(table: Table) -> str:
    rows = [[_in_cell(cell) for cell in row] for row in table.rows]
    body = tabulate(rows, [_in_cell(name) for name in table.header], tablefmt="github", disable_numparse=True)
    return "\n\n".join([f"### {_line(table.title)}", body, *(f"*{_line(note)}*" for note in table.notes)])


def _line(text: str) -> str:
    return re.sub(r"\s", " ", printable(text))


def _in_cell(text: str) -> str:
    """A text in a cell of a Markdown table."""
    return _line(text).replace("|", r"\|")


def _csv(values: list[dict[str, object]]) -> str:
    """Format floats with six significant digits, so that a small p value is not zero."""

    def cell(value: object) -> object:
        return float(f"{value:.6g}") if isinstance(value, float) else csv_cell(value)

    digits = [{name: cell(value) for name, value in row.items()} for row in values]
    return pd.DataFrame(digits, dtype=object).to_csv(index=False).rstrip("\n")


def _latex(table: Table) -> str:
    """Format a table for LaTeX with booktabs, aligned at the decimal point.

    A column of numbers is right-aligned, and has one decimal place throughout. The rest of its cells (spread,
    difference) forms a column beside it. A column of phrases is left-aligned.
    """
    columns, header, form = [], [], ""
    for i, name in enumerate(table.header):
        cells = [_line(row[i]) for row in table.rows]
        matches = [NUMBER.fullmatch(cell) if i > 1 and not table.phrases else None for cell in cells]
        columns.append([m["number"] if m else cell for m, cell in zip(matches, cells, strict=True)])
        header.append(_line(name))
        form += "r" if i == 1 or any(matches) else "l"
        if any(m and m["rest"] for m in matches):
            columns.append([m["rest"].strip() if m else "" for m in matches])
            header.append("")
            form += "@{ }l"
    text = tabulate([*zip(*columns, strict=True)], header, tablefmt="latex_booktabs", disable_numparse=True)
    text = re.sub(r"(?<=\\begin\{tabular\})\{.*\}", lambda _: f"{{{form}}}", text)
    text = re.sub(rf"(?<![\w.,])-(?!{POWER})(\d)", r"$-$\3", text)
    text = re.sub(rf"(?<![\w.,])(-?){POWER}", lambda m: rf"${m[1]}{m[2]}\times10^{{{int(m[3])}}}$", text)
    return "\n".join([f"% {_line(table.title)}", text, *(f"% {_line(note)}" for note in table.notes)])
