"""The cost of reduced models, as Sajjad et al.'s Table 3."""

from __future__ import annotations

import pandas as pd

from layerdrop.report.model_results import ModelResults, model_results
from layerdrop.report.tables.base import MISSING, Table, names, place, rows_of

HEADER = ["strategy", "K", "parameters (millions)", "fine-tuning speed-up", "inference time"]


def cost_tables(runs: pd.DataFrame, tasks: list[str] | None = None) -> list[Table]:
    """For each model: parameters, fine-tuning speed-up, time of a pass over the development set, against the full
    model; medians over seeds, means over tasks. Training seconds of resumed runs are left out, because they cover a
    part alone. Only records of one kind of device and number of threads compare."""
    return [_table(results, results.columns(tasks), runs) for results in model_results(runs)]


def _table(results: ModelResults, wanted: list[str], runs: pd.DataFrame) -> Table:
    rows, values = [], []
    for row in rows_of(results):
        if row.from_scratch:
            continue
        parameters = results.median(row, wanted, "parameters")
        training = results.seconds_ratio(row, wanted, "train")
        inference = results.seconds_ratio(row, wanted, "inference")
        words = [
            MISSING if parameters is None else f"{parameters / 1e6:.1f}",
            MISSING if training is None else f"{1 / training:.2f}",
            MISSING if inference is None else f"{100 * (inference - 1):+.0f}%",
        ]
        rows.append([*row.words, *words])
        numbers = {
            "tasks": " ".join(wanted),
            "parameters": parameters and round(parameters),
            "speed_up": training and 1 / training,
            "inference_ratio": inference,
        }
        values.append(place(results, row) | numbers)
    return Table("cost", f"{results.title}: cost", HEADER, rows, _notes(results, wanted, runs), values)


def _notes(results: ModelResults, wanted: list[str], runs: pd.DataFrame) -> list[str]:
    notes = [
        f"Means over {names(wanted)} of medians over seeds. Fine-tuning: all trainings that a model needs, also shared "
        "ones, and its teacher's pass. Inference: a pass over the development set. "
        "Seconds are as good as the machine was quiet."
    ]
    if n := int(results.runs["resumed"].sum()):
        notes.append(f"Without the training seconds of {n} resumed run{'s' * (n > 1)}.")
    of_model = runs[runs["model"] == results.model]
    machines = sorted({f"{row.device}, {row.threads} threads" for row in of_model.itertuples()})
    if len(machines) > 1:
        notes.append(f"Not comparable: the runs are of several machines ({'; '.join(machines)}).")
    return notes
