"""A few runs side by side."""

import math

from tabulate import tabulate

from layerdrop.errors import UserError
from layerdrop.report.frame import differing_settings
from layerdrop.report.notes import BUSY_MARK
from layerdrop.report.records import differing_inputs
from layerdrop.report.table_row import TableRow
from layerdrop.runs.record import RunRecord, read_record

BUSY_MEANING = "other processes ran beside this run or its prerequisite run: these seconds are not comparable"
SHARED = "shared"
SHARED_MEANING = "seconds with those of prerequisite runs, which several runs can use"


def read_runs(folders: list[str]) -> list[RunRecord]:
    """Read the records of finished runs of one task. Raises UserError."""
    records = []
    for folder in folders:
        try:
            record = read_record(folder)
        except ValueError as error:
            raise UserError(f"{error}. Give folders of finished runs.") from None
        if record is None or record.status != "success":
            raise UserError(f"no finished run in {folder}. Give folders of finished runs.")
        record.folder = folder
        records.append(record)
    if len(tasks := {record.spec.data.task for record in records}) > 1:
        raise UserError(f"the runs are of several tasks ({', '.join(sorted(tasks))}). Give runs of one task.")
    return records


def compare(records: list[RunRecord]) -> str:
    """Format runs of a task as columns. Differences to the first run are in points for metrics, else in percent.

    Training includes the teacher's pass and prerequisite runs. Inference is a pass over the validation set. If runs
    differ in other settings than the strategy, K and the seed, a row shows these settings of each run. The last row
    names the inputs of each run whose contents differ from the first run's. Lines below explain marks.
    """
    first = records[0]
    metrics = dict.fromkeys(name for record in records for name in record.metrics if not name.endswith("loss"))
    columns = [_column(record, first, list(metrics)) for record in records]
    settings = differing_settings(records)
    if len(set(settings)) > 1:
        columns = [column | {"settings": words or "-"} for column, words in zip(columns, settings, strict=True)]
    if any(different := [", ".join(differing_inputs(record, first)) for record in records]):
        columns = [
            column | {"different inputs": names or "-"} for column, names in zip(columns, different, strict=True)
        ]
    lines = [[name, *(column[name] for column in columns)] for name in columns[0]]
    table = tabulate(lines, tablefmt="plain", colalign=("left", *["right"] * len(records)), disable_numparse=True)
    notes = {f"{SHARED}: {SHARED_MEANING}": _is_shared, f"{BUSY_MARK} {BUSY_MEANING}": lambda record: record.busy}
    return "\n".join([table, *(note for note, applies in notes.items() if any(map(applies, records)))])


def _column(record: RunRecord, first: RunRecord, metrics: list[str]) -> dict[str, str]:
    strategy, k = TableRow.of(record.spec)
    base = None if record is first else first
    column = {
        "folder": record.folder,
        "model": record.spec.model.name,
        "strategy": strategy,
        "K": k,
        "seed": str(record.spec.seed),
        "layers": str(len(record.kept)),
        "dropped": ",".join(map(str, record.dropped)) or "none",
        "parameters": _change(record.parameters_after, base and base.parameters_after, "{:,}"),
    }
    column |= {name: _points(record.metrics.get(name), base and base.metrics.get(name)) for name in metrics}
    seconds = "{:.1f} s" + BUSY_MARK * record.busy
    training = seconds + f" {SHARED}" * _is_shared(record)
    column["training"] = _change(record.training_seconds, base and base.training_seconds, training)
    inference = base and base.seconds.get("inference")
    return column | {"inference": _change(record.seconds.get("inference"), inference, seconds)}


def _is_shared(record: RunRecord) -> bool:
    """Whether the training seconds contain those of prerequisite runs."""
    return record.training_seconds is not None and bool(record.prerequisites.get("seconds"))


def _change(value: float | None, base: float | None, form: str) -> str:
    if value is None:
        return "-"
    return form.format(value) + (f" ({100 * (value / base - 1):+.0f}%)" if base else "")


def _points(value: float | None, base: float | None) -> str:
    if value is None:
        return "-"
    if math.isnan(value):
        return "constant"
    return f"{100 * value:.1f}" + ("" if base is None or math.isnan(base) else f" ({100 * (value - base):+.1f})")
