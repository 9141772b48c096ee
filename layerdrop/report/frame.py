"""From records to one tidy frame: a row for each run, a column for each of its facts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from layerdrop.errors import unknown
from layerdrop.report.table_row import TableRow
from layerdrop.runs.record import RunRecord
from layerdrop.spec import FIRST_RECIPE

ROW = ("model", "task", "strategy", "k", "threshold", "layers", "found", "seed", "from_scratch")
"""Settings that determine a run's place in a table."""
PARTIAL = ("max_train_samples", "max_eval_samples", "hold_out")
"""Settings that are always named, because the figures do not cover the whole task."""
DETAILS = ("score_on", "score_split", "score_samples", "weight_scope")
"""Settings of a strategy that scores. Runs that differ in one of them are separate rows."""
VARIANT = ("drop_when", "freeze_dropped", "frozen", "distill", "variant")
"""What RunSpec.variants says."""
VARIANT_SETTINGS = (
    *("step", "every_epochs", "layerdrop_rate", "replacing_rate", "replacing_steps", "replacing_schedule", "teacher"),
    *("distill_temperature", "distill_weight", "distill_states_weight", "distill_attention"),
    *(f"first_{name}" for name in FIRST_RECIPE),
)
"""Settings of a training variant. Runs that differ in one of them are separate rows."""
DATA = ("source", "files", "text_columns", "label_column", "label_type", "skip_bad_rows")
"""Settings of the data. Runs of one task that differ in one of them are separate columns. All other settings make
separate tables."""
RUN_COLUMNS = (
    *("model", "setting", "row", "task", "column", "seed", "parameters", "train", "inference"),
    *("device", "threads", "torch", "transformers", "constant", "resumed", "record"),
)
"""Every other column of the frame is a metric, in points (hundredths): NaN where it was not measured, minus infinity
where it is not defined (a constant prediction), which ranks below every number."""


def frame(records: Sequence[RunRecord], row_settings: Sequence[str] = ()) -> pd.DataFrame:
    """One row for each record, columns RUN_COLUMNS and metrics. `setting` separates tables of a model, `column` the
    columns of a task, `row` the rows of a strategy; row_settings separate rows where they would separate tables. Raises
    UserError for one that separates no tables."""
    flat = pd.DataFrame([_flat(record) for record in records], dtype=object)
    elsewhere = {*ROW, *DETAILS, *VARIANT, *VARIANT_SETTINGS, *DATA, "rows"}
    settings = [name for name in flat.columns if name not in elsewhere]
    for name in row_settings:
        if name not in settings:
            raise unknown("--rows", name, settings)
    setting = _differences(flat, ["model"], [name for name in settings if name not in row_settings])
    data = _differences(flat, ["task"], DATA)
    contents = _differences(flat, ["task", *DATA, *PARTIAL], ["rows"])
    details = _differences(flat, ["model", "strategy"], DETAILS)
    found = _differences(flat, ["model", "strategy", "task", "k"], ["found"])
    of_variant = _differences(flat, ["model", "strategy", "variant"], VARIANT_SETTINGS)
    recipe = _differing(flat, ["model"], dict.fromkeys(row_settings))
    rows = []
    for i, record in enumerate(records):
        spec = record.spec
        row = TableRow.of(spec, ", ".join(filter(None, (details[i], found[i], of_variant[i]))), tuple(recipe[i]))
        parts = ", ".join(filter(None, (data[i], contents[i])))
        column = f"{spec.data.task} ({parts})" if parts else spec.data.task
        place = {"model": spec.model.name, "setting": setting[i], "row": row, "task": spec.data.task, "column": column}
        rows.append({**place, "seed": spec.seed, **_facts(record), **_metrics(record)})
    return pd.DataFrame(rows)


def published_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A frame of published figures: model, row, task and metrics (as fractions) of each row."""
    empty = dict.fromkeys(RUN_COLUMNS)
    metrics = [{name: 100 * value for name, value in row["metrics"].items()} for row in rows]
    places = [{"setting": "", "column": row["task"], "seed": 0} for row in rows]
    kept = [{name: row[name] for name in ("model", "row", "task")} for row in rows]
    return pd.DataFrame([empty | a | b | c for a, b, c in zip(kept, places, metrics, strict=True)])


def metric_names(runs: pd.DataFrame) -> list[str]:
    """The columns of a frame that are metrics."""
    return [name for name in runs.columns if name not in RUN_COLUMNS]


def _flat(record: RunRecord) -> dict[str, Any]:
    """The settings of a run, and the contents of its checkpoint (`weights`) and of its development data (`rows`)."""
    rows = [values.get("fingerprint") for split, values in record.data.items() if split.startswith("validation")]
    spec = record.spec
    return spec.flat() | {
        "variant": ", ".join(spec.variants),
        "weights": record.fingerprints.get("model"),
        "rows": rows[0] if rows else None,
    }


def _differences(flat: pd.DataFrame, alike: list[str], names: Iterable[str]) -> list[str]:
    """What _differing finds, in words."""
    return [", ".join(map(" ".join, settings)) for settings in _differing(flat, alike, names)]


def _differing(flat: pd.DataFrame, alike: list[str], names: Iterable[str]) -> list[list[tuple[str, str]]]:
    """For each run, (name, value) of those of its settings `names` in which runs with equal `alike` differ, or which
    are PARTIAL; nothing for a setting that is not set. (Contents that are not recorded count as equal.)"""
    found = [[] for _ in range(len(flat))]
    key = flat[alike].map(repr).agg(" ".join, axis=1)
    for name in sorted(names):
        values = flat[name].map(repr)
        if name in ("weights", "rows"):
            values = values.where(flat[name].notna())
        several = values.groupby(key).transform("nunique") > 1
        named = flat[name].notna() & (several | (name in PARTIAL))
        for i in flat.index[named]:
            found[i].append((_NAMES.get(name, name), _word(flat.at[i, name])))
    return found


_NAMES = {"source": "data", "found": "layers"}


def _word(value: Any) -> str:
    return ",".join(map(_word, value)) if isinstance(value, tuple) else str(value)


def _facts(record: RunRecord) -> dict[str, Any]:
    where, versions = record.environment, record.environment.get("versions", {})
    resumed = record.resumed_at_step is not None
    return {
        "parameters": record.parameters_after,
        "train": None if resumed else _training_seconds(record),
        "inference": record.seconds.get("inference"),
        "device": where.get("device"),
        "threads": where.get("threads"),
        "torch": versions.get("torch"),
        "transformers": versions.get("transformers"),
        "constant": bool(record.constant_predictions()),
        "resumed": resumed,
        "record": record,
    }


def _training_seconds(record: RunRecord) -> float | None:
    """With the trainings that the run needed first, and with its teacher's pass; None without a training."""
    parts = [record.seconds.get("train"), record.seconds.get("teacher"), record.first.get("seconds")]
    return sum(part for part in parts if part is not None) if any(part is not None for part in parts) else None


def _metrics(record: RunRecord) -> dict[str, float]:
    return {n: -math.inf if math.isnan(v) else 100 * v for n, v in record.metrics.items() if not n.endswith("loss")}
