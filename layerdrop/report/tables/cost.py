"""Cost of reduced models, as Sajjad et al.'s Table 3."""

from __future__ import annotations

import pandas as pd

from layerdrop.report.model_results import ModelResults, model_results
from layerdrop.report.notes import BUSY_MARK, BUSY_MARKED, busy
from layerdrop.report.table import Table
from layerdrop.report.tables.scores import MISSING, names

HEADER = ["strategy", "K", "parameters (millions)", "fine-tuning speed-up", "inference time"]


def cost_tables(runs: pd.DataFrame, tasks: list[str] | None = None) -> list[Table]:
    """One table for each model: parameters, fine-tuning speed-up, time of a pass over the validation set.

    Speed-up and time are relative to the full model: medians over seeds, means over tasks. Training seconds of resumed
    runs are left out, because they cover only a part. Seconds of different devices or threads are not comparable.
    """
    tables = []
    for results in model_results(runs):
        columns = results.columns(tasks)
        table = Table("cost", f"{results.compared}: cost", HEADER)
        for row in results.table_rows:
            parameters = results.median(row, columns, "parameters")
            training, inference = (results.seconds_ratio(row, columns, stage) for stage in ("train", "inference"))
            size = MISSING if parameters is None else f"{parameters / 1e6:.1f}"
            beside = [results.is_busy(row, columns, stage) for stage in ("train", "inference")]
            times = [speed_up(training, beside[0]), time_change(inference, beside[1])]
            table.rows.append([*row, size, *times])
            value = results.place(row) | {"tasks": " ".join(columns), "parameters": parameters and round(parameters)}
            value |= {"busy": any(time.endswith(BUSY_MARK) for time in times)}
            table.values.append(value | {"speed_up": training and 1 / training, "inference_ratio": inference})
        table.notes = _notes(results, columns, runs, marked=any(value["busy"] for value in table.values))
        tables.append(table)
    return tables


def speed_up(ratio: float | None, busy: bool) -> str:
    """The speed-up of a ratio of seconds: `1.25`, or `1.25*` beside other processes."""
    return MISSING if ratio is None else f"{1 / ratio:.2f}" + BUSY_MARK * busy


def time_change(ratio: float | None, busy: bool) -> str:
    """The change of a ratio of seconds: `-78%`, or `-78%*` beside other processes."""
    return MISSING if ratio is None else f"{100 * (ratio - 1):+.0f}%" + BUSY_MARK * busy


def _notes(results: ModelResults, columns: list[str], runs: pd.DataFrame, marked: bool) -> list[str]:
    notes = [
        f"Means over {names(columns)} of medians over seeds. Fine-tuning: all trainings of a model, including shared "
        "prerequisite runs and the teacher's pass. Inference: a pass over the validation set. "
        "Other processes on the machine distort the seconds."
    ]
    for note in busy(results.runs[results.runs["column"].isin(columns)]):
        notes.append(f"{note.capitalize()}." + f" {BUSY_MARKED.capitalize()}." * marked)
    if n := int(results.runs["resumed"].sum()):
        notes.append(f"Training seconds exclude {n} resumed run{'s' * (n > 1)}.")
    of_model = runs.loc[runs["model"] == results.model, ["device", "threads"]].drop_duplicates()
    machines = sorted({f"{row.device}, threads: {row.threads}" for row in of_model.itertuples()})
    if len(machines) > 1:
        notes.append(f"Not comparable: machines or numbers of threads differ ({'; '.join(machines)}).")
    return notes
