"""A few runs side by side, in words for a person."""

import math

from tabulate import tabulate

from layerdrop.errors import UserError
from layerdrop.report.records import differing_inputs
from layerdrop.report.table_row import TableRow
from layerdrop.runs.record import RunRecord, read_record


def read_runs(folders: list[str]) -> list[RunRecord]:
    """Read the records of finished runs of one task. Raises UserError."""
    records = []
    for folder in folders:
        try:
            record = read_record(folder)
        except ValueError as error:
            raise UserError(f"{error}. Give folders of finished runs.") from None
        if record is None or record.status != "success":
            raise UserError(f"no finished run in {folder}. Give folders of runs.")
        record.folder = folder
        records.append(record)
    if len(tasks := {record.spec.data.task for record in records}) > 1:
        raise UserError(f"the runs are of several tasks ({', '.join(sorted(tasks))}). Give runs of one.")
    return records


def compare(records: list[RunRecord]) -> str:
    """One column for each run of a task. Differences are to the first run, in points (hundredths) for metrics.

    The last line names inputs with other contents than the first run's, if there are any.
    """
    first = records[0]
    names = dict.fromkeys(name for record in records for name in record.metrics if not name.endswith("loss"))
    columns = [_column(record, first, list(names)) for record in records]
    if any(other := [", ".join(differing_inputs(record, first)) for record in records]):
        columns = [column | {"other contents of": words or "-"} for column, words in zip(columns, other, strict=True)]
    lines = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return tabulate(lines, tablefmt="plain", colalign=("left", *["right"] * len(records)), disable_numparse=True)


def _column(record: RunRecord, first: RunRecord, metrics: list[str]) -> dict[str, str]:
    strategy, k = TableRow.of(record.spec).words
    column = {
        "folder": record.folder,
        "model": record.spec.model.name,
        "strategy": strategy,
        "K": k,
        "seed": str(record.spec.seed),
        "layers": str(len(record.kept)),
        "dropped": ",".join(map(str, record.dropped)) or "none",
        "parameters": _change(record.parameters_after, first.parameters_after, record is first, "{:,}"),
    }
    for name in metrics:
        column[name] = _points(record.metrics.get(name), first.metrics.get(name), record is first)
    for name, stage in (("training", "train"), ("evaluation", "evaluate")):
        column[name] = _change(_seconds(record, stage), _seconds(first, stage), record is first, "{:.1f} s")
    return column


def _seconds(record: RunRecord, stage: str) -> float | None:
    """None also for a resumed run, whose seconds of training, and of evaluation in between, cover a part alone."""
    return None if record.resumed_at_step is not None else record.seconds.get(stage)


def _change(value: float | None, base: float | None, is_first: bool, form: str) -> str:
    if value is None:
        return "-"
    return form.format(value) + (f" ({100 * (value / base - 1):+.0f}%)" if base and not is_first else "")


def _points(value: float | None, base: float | None, is_first: bool) -> str:
    if value is None:
        return "-"
    if math.isnan(value):
        return "constant"
    no_difference = is_first or base is None or math.isnan(base)
    return f"{100 * value:.1f}" + ("" if no_difference else f" ({100 * (value - base):+.1f})")
