"""Write a frame as a csv file with one line for each run, and read such a file as a frame."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from layerdrop.errors import UserError
from layerdrop.finetune.spec import DistilSpec, TheseusSpec, TrainSpec
from layerdrop.report.frame import DEFAULTS, RUN_COLUMNS, check_settings, metric_names, with_length
from layerdrop.report.model_results import metrics_of
from layerdrop.report.table_row import TableRow
from layerdrop.system.text import csv_cell

SECONDS = {"train_seconds": "train", "inference_seconds": "inference"}
"""Column of the csv -> column of a frame."""
MACHINE = ("device", "threads", "torch", "transformers", "commit")
OF_RUN = ("id", "model", "setting", "task", "strategy", "k", "dropped", "seed", "precision", "parameters", *SECONDS)
LATER = ("commit", "busy")
"""Columns that files of earlier versions do not have."""
OF_RUN += ("tokens_per_second", *MACHINE, "busy")
"""All other columns of the csv are metrics."""
CSV_MARK = rb"\Aid,model,setting,task,strategy,k,"
"""Start of every file of `runs_csv`."""
FIELDS = [field for spec in (TrainSpec, DistilSpec, TheseusSpec) for field in dataclasses.fields(spec)]
FLOATS = "|".join(field.name for field in FIELDS if field.type is float)
WHOLE = re.compile(rf"({FLOATS}) (-?\d+)\.0(?=$|[,)])")
"""A setting with a whole number, as files of version 0.2 write it: `num_train_epochs 3.0`."""
ADVICE = "Give a csv file written by --runs."


def runs_csv(runs: pd.DataFrame) -> str:
    """Format the runs of a frame. Metrics are in points, times in seconds, layer ids from 0 and separated by blanks.

    Values that are not measured or not defined are empty.
    """
    records, words = runs["record"], runs["row"]
    table = pd.DataFrame(
        {
            "id": records.map(lambda record: record.id),
            "model": runs["model"],
            "setting": runs["setting"],
            "task": runs["column"],
            "strategy": words.str[0],
            "k": words.str[1],
            "dropped": records.map(lambda record: " ".join(map(str, record.dropped))),
            "seed": runs["seed"],
            "precision": records.map(lambda record: record.spec.precision),
            **{name: runs[name] for name in metric_names(runs)},
            "parameters": runs["parameters"].astype("Int64"),  # beside a missing number, floats would lose digits
            **{name: runs[column] for name, column in SECONDS.items()},
            "tokens_per_second": records.map(lambda record: record.tokens_per_second),
            **{name: runs[name] for name in MACHINE},
            "busy": runs["busy"],
        }
    )
    table = table.replace([np.inf, -np.inf], np.nan).map(csv_cell)
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def read_runs_csv(path: str, row_settings: Sequence[str] = (), column_settings: Sequence[str] = ()) -> pd.DataFrame:
    """Read a file of `runs_csv` as a frame without records.

    row_settings, column_settings: as for `frame`. Raises UserError.
    """
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(("task", "strategy", "setting", "torch", "transformers"), str))
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path}: cannot be read ({error}). {ADVICE}") from None
    if missing := [name for name in OF_RUN if name not in table and name not in LATER]:
        raise UserError(f"{path}: has no column {', '.join(missing)}. {ADVICE}")
    metrics = [name for name in table if name not in OF_RUN]
    if wrong := [n for n in ("seed", "parameters", *SECONDS, *metrics) if not pd.api.types.is_numeric_dtype(table[n])]:
        raise UserError(f"{path}: column {wrong[0]} has values that are not numbers. {ADVICE}")
    for name in ("setting", "strategy", "task"):
        table[name] = table[name].str.replace(WHOLE, r"\1 \2", regex=True)
    settings = [_settings(text) for text in table["setting"].fillna("")]
    check_settings(with_length(list({name for of in settings for name, _ in of})), row_settings, column_settings)
    row_settings, column_settings = with_length(row_settings), with_length(column_settings)
    lines = table.astype(object).where(table.notna(), None).to_dict("records")
    rows = [_row(line, of, metrics, row_settings, column_settings) for line, of in zip(lines, settings, strict=True)]
    return pd.DataFrame(rows, columns=[*RUN_COLUMNS, *metrics]).astype(dict.fromkeys(metrics, float))


def _settings(text: str) -> list[tuple[str, str]]:
    """Parse `hold_out 0.15, max_seq_length 64` into pairs (name, value), with one setting of LENGTH."""
    pairs = [tuple(part.split(" ", 1)) for part in text.split(", ") if " " in part]
    default = str(DEFAULTS["max_steps"])
    unused = "max_steps" if dict(pairs).get("max_steps", default) == default else "num_train_epochs"
    return [pair for pair in pairs if pair[0] != unused]


def _row(
    line: dict[str, Any],
    settings: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    row_settings: Sequence[str],
    column_settings: Sequence[str],
) -> dict[str, Any]:
    recipe = ", ".join(" ".join(pair) for pair in settings if pair[0] in row_settings)
    row = TableRow(line["strategy"], "" if line["k"] is None else f"{line['k']:.0f}").with_recipe(recipe)
    of_column = [" ".join(pair) for pair in settings if pair[0] in column_settings]
    of_table = [" ".join(pair) for pair in settings if pair[0] not in (*row_settings, *column_settings)]
    task, _, rest = line["task"].partition(" (")
    parts = ", ".join([*filter(None, [rest.removesuffix(")")]), *of_column])
    values = {name: line[name] for name in metrics}
    if all(value is None for value in values.values()):  # undefined: a correlation of constant predictions
        values |= dict.fromkeys(metrics_of(task), -math.inf)
    return {
        **{name: line.get(name) for name in ("model", "seed", "parameters", *MACHINE)},
        **{name: line[column] for column, name in SECONDS.items()},
        "setting": ", ".join(of_table),
        "row": row,
        "plain": row,
        "counterparts": None,
        "task": task,
        "column": f"{task} ({parts})" if parts else task,
        "constant": None,
        "resumed": False,
        "busy": str(line.get("busy")) == "True",
        "record": None,
        **values,
    }
