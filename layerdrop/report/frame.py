"""From records to one tidy frame: a row for each run, a column for each of its facts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from layerdrop.errors import unknown
from layerdrop.report.records import inputs_of
from layerdrop.report.table_row import TableRow
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import OWN_RECIPE

ROW = ("model", "task", "strategy", "k", "threshold", "layers", "seed", "from_scratch")
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
    *(f"{part}_{name}" for part in ("start", "teacher") for name in OWN_RECIPE),
)
"""Settings of a training variant. Runs that differ in one of them are separate rows."""
DATA = ("source", "files", "text_columns", "label_column", "label_type", "positive_label", "skip_bad_rows")
"""Settings of the data. Runs of one task that differ in one of them are separate columns. All other settings make
separate tables."""
OF_TASK = ("task", *DATA, *PARTIAL)
OF_SCORES = ("score_on", "score_split", "score_samples")
CONTENTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "weights": ("setting", ("model", "revision")),
    "tokenizer_files": ("setting", ("model", "revision", "tokenizer")),
    "rows": ("column", OF_TASK),
    "train_rows": ("column", OF_TASK),
    "scored_rows": ("details", (*OF_TASK, *OF_SCORES)),
    "scored_weights": ("details", ("score_on",)),
    "start": ("variant", ("start_run",)),
    "teacher_weights": ("variant", ("teacher_run",)),
}
"""Fingerprint of an input -> (part of the table that names it, settings that name the same input).

Runs with equal settings but different fingerprints get different tables, columns or rows. No median is over them, and
they are never compared with each other."""
AUXILIARY = ("found", "order", "start_run", "teacher_run")
"""Columns of _flat that further separate rows."""
RUN_COLUMNS = (
    *("model", "setting", "row", "task", "column", "seed", "parameters", "train", "inference"),
    *("device", "threads", "torch", "transformers", "commit", "constant", "resumed", "record"),
)
"""`constant`: the number of different predictions of a run with constant or nearly constant predictions.

All other columns of the frame are metrics, in points (hundredths). NaN: not measured. Minus infinity, which ranks below
every number: undefined (a constant prediction)."""


def frame(
    records: Sequence[RunRecord], row_settings: Sequence[str] = (), column_settings: Sequence[str] = ()
) -> pd.DataFrame:
    """One row for each record, columns RUN_COLUMNS and metrics. `setting` separates tables of a model, `column` the
    columns of a task, `row` the rows of a strategy; row_settings and column_settings separate rows and columns
    instead of tables. Raises UserError for a setting that separates no tables."""
    flat = pd.DataFrame([_flat(record) for record in records], dtype=object)
    elsewhere = {*ROW, *DETAILS, *VARIANT, *VARIANT_SETTINGS, *DATA, *CONTENTS, *AUXILIARY}
    settings = [name for name in flat.columns if name not in elsewhere]
    apart = {name for name, (part, _) in CONTENTS.items() if part == "setting"}
    for flag, names in (("--rows", row_settings), ("--columns", column_settings)):
        for name in names:
            if name not in (*settings, *apart):
                raise unknown(flag, name, [*settings, *apart])
    elsewhere = {*row_settings, *column_settings}
    parts = {
        "setting": _differing(flat, ["model"], [name for name in settings if name not in elsewhere]),
        "column": _differing(flat, ["task"], [*DATA, *column_settings]),
        "details": _differing(flat, ["model", "strategy"], DETAILS),
        "variant": _differing(flat, ["model", "strategy", "variant"], VARIANT_SETTINGS),
    }
    of_k = ("model", "strategy", "task", "k")
    more = {"found": ("details", of_k), "order": ("variant", of_k), **CONTENTS}
    for name, (part, alike) in ((name, how) for name, how in more.items() if name not in elsewhere):
        parts[part] = [a + b for a, b in zip(parts[part], _differing(flat, alike, [name]), strict=True)]
    recipe = _differing(flat, ["model"], dict.fromkeys(row_settings))
    rows = []
    for i, record in enumerate(records):
        spec, words = record.spec, {part: ", ".join(map(" ".join, of[i])) for part, of in parts.items()}
        row = TableRow.of(spec, words["details"], words["variant"], tuple(recipe[i]))
        column = f"{spec.data.task} ({words['column']})" if words["column"] else spec.data.task
        place = {"model": spec.model.name, "setting": words["setting"], "row": row}
        place |= {"task": spec.data.task, "column": column, "seed": spec.seed}
        rows.append({**place, **_facts(record), **_metrics(record)})
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
    """The settings of a run, and the contents of its inputs (CONTENTS)."""
    spec, inputs = record.spec, inputs_of(record)
    distil, start = spec.distil, spec.start
    validation, tested = (
        tuple(inputs[split] for split in sorted(inputs) if split.startswith(kind)) for kind in ("validation", "test")
    )
    trained_on = [inputs.get(name) for name in ("model", "tokenizer", "train")]  # a start differs where these do
    teacher = spec.teacher
    return spec.flat() | {
        "variant": ", ".join(spec.variants),
        "positive_label": _positive_label(record),
        "found": tuple(sorted(spec.drop.found)),
        "order": spec.drop.found if spec.when.every_epochs else None,
        "start_run": start and (start.id, *trained_on),
        "teacher_run": (teacher.id, *trained_on) if teacher else distil and distil.teacher,
        "weights": inputs.get("model"),
        "tokenizer_files": inputs.get("tokenizer"),
        "rows": validation or None,
        "train_rows": inputs.get("train"),
        "scored_rows": tested or None,
        "scored_weights": inputs.get("score_on"),
        "start": inputs.get("start"),
        "teacher_weights": inputs.get("teacher"),
    }


def _positive_label(record: RunRecord) -> str | None:
    """The class that f1 is of, for own files with two classes. In records of 0.2 it is the last one by name."""
    if not record.spec.data.files or len(record.labels) != 2:
        return None
    return record.positive_label or record.labels[-1]


def _differing(flat: pd.DataFrame, alike: Sequence[str], names: Iterable[str]) -> list[list[tuple[str, str]]]:
    """For each run, (name, value) of the settings among `names` that differ between runs with equal `alike`, or are
    PARTIAL. Unset settings are left out. Contents that are not recorded count as equal."""
    found = [[] for _ in range(len(flat))]
    key = flat[list(alike)].map(repr).agg(" ".join, axis=1)
    for name in sorted(names):
        values = flat[name].map(repr)
        if name in (*CONTENTS, "order"):
            values = values.where(flat[name].notna())
        several = values.groupby(key).transform("nunique") > 1
        named = flat[name].notna() & (several | (name in PARTIAL))
        for i in flat.index[named]:
            found[i].append((_NAMES.get(name, name), _word(flat.at[i, name])))
    return found


_NAMES = {
    **{"source": "data", "found": "layers", "tokenizer_files": "tokenizer files", "train_rows": "train rows"},
    **{"scored_rows": "scored rows", "scored_weights": "scored weights", "teacher_weights": "teacher weights"},
}


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
        "commit": _commit(where),
        "constant": min(record.constant_predictions("validation").values(), default=None),
        "resumed": resumed,
        "record": record,
    }


def _commit(where: Mapping[str, Any]) -> str | None:
    """`1a2b3c4d`, or `1a2b3c4d with changes`."""
    commit = where.get("commit")
    return commit and commit[:8] + (" with changes" if where.get("dirty") else "")


def _training_seconds(record: RunRecord) -> float | None:
    """With the trainings that the run needed first, and with its teacher's pass; None without a training."""
    parts = [record.seconds.get("train"), record.seconds.get("teacher"), record.prerequisites.get("seconds")]
    return sum(part for part in parts if part is not None) if any(part is not None for part in parts) else None


def _metrics(record: RunRecord) -> dict[str, float]:
    return {n: -math.inf if math.isnan(v) else 100 * v for n, v in record.metrics.items() if not n.endswith("loss")}
