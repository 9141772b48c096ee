"""A tidy frame of records: one row for each run, one column for each fact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from layerdrop.data.spec import DataSpec
from layerdrop.errors import unknown
from layerdrop.finetune.spec import TrainSpec
from layerdrop.report.table_row import TableRow
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import OWN_RECIPE

ROW = ("model", "task", "strategy", "k", "threshold", "layers", "seed", "from_scratch")
"""Settings that determine the place of a run in a table."""
RECIPE = tuple(f.name for f in dataclasses.fields(TrainSpec))
"""Settings of the training. Unset in a run without training."""
PARTIAL = ("max_train_samples", "max_eval_samples", "hold_out")
"""Settings that select rows of a task."""
SHORTER = ("validation_share", "max_steps", "num_train_epochs", "freeze_layers", "freeze_embeddings")
LENGTH = ("max_steps", "num_train_epochs")
"""Settings of the length of a training. A run has one of them, so they separate rows, columns or tables together."""
DEFAULTS = {f.name: f.default for kind in (DataSpec, TrainSpec) for f in dataclasses.fields(kind)}
SHOWN = {name: DEFAULTS[name] for name in (*PARTIAL, *SHORTER)}
"""Setting -> its default. All other values are shown even if all runs have them: without them, a table would look like
one of full trainings on the whole task."""
DETAILS = ("score_on", "score_split", "score_samples", "weight_scope")
"""Settings of a criterion. Runs with different values are separate rows."""
VARIANT = ("drop_when", "finetune_again", "freeze_dropped", "frozen", "distill", "variant")
"""Settings in RunSpec.variants."""
VARIANT_SETTINGS = (
    *("step", "every_epochs", "elastic_k", "layerdrop_rate"),
    *("replacing_rate", "replacing_steps", "replacing_schedule", "teacher"),
    *("distill_temperature", "distill_weight", "distill_states_weight", "distill_attention"),
    *(f"{part}_{name}" for part in ("start", "teacher") for name in OWN_RECIPE),
)
"""Settings of a training variant. Runs with different values are separate rows."""
DATA = (
    *("source", "files", "dataset_name", "dataset_config_name", "validation_share", "text_columns", "label_column"),
    *("label_type", "label_separator", "positive_label", "skip_bad_rows"),
)
"""Settings of the data. Runs of a task with different values are separate columns. All other settings separate
tables."""
OF_TASK = ("task", *DATA, *PARTIAL)
OF_SCORES = ("score_on", "score_split", "score_samples")
HASH = 8
"""Number of characters of a fingerprint in titles and columns."""
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
"""Fingerprint of an input -> (label that shows a difference, settings that name the input).

Runs with equal settings and different fingerprints are in separate tables, columns or rows. They share no median, and
are never compared with each other."""
AUXILIARY = ("found", "order", "start_run", "teacher_run")
"""Columns of _settings that separate rows, in addition to settings and fingerprints."""
RUN_COLUMNS = (
    *("model", "setting", "row", "plain", "counterparts", "task", "column", "seed", "parameters", "train", "inference"),
    *("device", "threads", "torch", "transformers", "commit", "constant", "resumed", "busy", "record"),
)
"""`plain`: the row without its training variant. `counterparts`: the row without its strategy, equal for all strategies
with the same K, training and settings; None without a fixed K. `constant`: number of distinct predictions, for runs
with constant or nearly constant predictions. `busy`: whether its times were measured beside other processes.

All other columns of a frame are metrics, in points (hundredths). NaN: not measured. Minus infinity, which ranks below
every number: undefined (a constant prediction)."""
NAMES = {
    **{"source": "data", "found": "layers", "tokenizer_files": "tokenizer files", "train_rows": "train rows"},
    **{"scored_rows": "scored rows", "scored_weights": "scored weights", "teacher_weights": "teacher weights"},
}
"""Setting -> its name in tables."""


def frame(
    records: Sequence[RunRecord], row_settings: Sequence[str] = (), column_settings: Sequence[str] = ()
) -> pd.DataFrame:
    """Make a frame with one row for each record; columns: RUN_COLUMNS and metrics.

    `setting` separates the tables of a model, `column` the columns of a task, `row` the rows of a strategy.
    row_settings, column_settings: settings that separate rows or columns instead of tables. Raises UserError for a
    setting that never separates tables.
    """
    values = _values(records)
    settings = _table_settings(values)
    allowed = [*settings, *(name for name, (part, _) in CONTENTS.items() if part == "setting")]
    check_settings(allowed, row_settings, column_settings)
    row_settings, column_settings = with_length(row_settings), with_length(column_settings)
    moved = {*row_settings, *column_settings}
    parts = {
        "setting": _differing(values, ["model"], [name for name in settings if name not in moved]),
        "column": _differing(values, ["task"], [*DATA, *column_settings]),
        "details": _differing(values, ["model", "strategy"], DETAILS),
        "variant": _differing(values, ["model", "strategy", "variant"], VARIANT_SETTINGS),
        "counterparts": _differing(values, ["model", "variant"], VARIANT_SETTINGS),  # also between strategies
    }
    same_k = ("model", "strategy", "task", "k")
    for name, (part, alike) in {"found": ("details", same_k), "order": ("variant", same_k), **CONTENTS}.items():
        if name not in moved:
            words = _differing(values, alike, [name])
            for changed in (part, "counterparts") if part == "variant" and name in CONTENTS else (part,):
                parts[changed] = [a + b for a, b in zip(parts[changed], words, strict=True)]
    recipes = _differing(values, ["model"], row_settings)
    rows = []
    for i, record in enumerate(records):
        words = {part: ", ".join(map(" ".join, of[i])) for part, of in parts.items()}
        task, recipe = record.spec.data.task, ", ".join(map(" ".join, recipes[i]))
        row = TableRow.of(record.spec, recipe, words["details"], words["variant"])
        place = {
            "model": record.spec.model.name,
            "setting": words["setting"],
            "row": row,
            "plain": TableRow.of(record.spec, recipe, words["details"], variant=""),
            "counterparts": (row.variant, recipe, words["counterparts"], row.from_scratch, row.k) if row.k else None,
            "task": task,
            "column": f"{task} ({words['column']})" if words["column"] else task,
            "seed": record.spec.seed,
        }
        rows.append({**place, **_facts(record), **_metrics(record)})
    return pd.DataFrame(rows)


def _table_settings(values: Mapping[str, list]) -> list[str]:
    """The settings that separate the tables of a model. values: as returned by _values."""
    placed = {*ROW, *DETAILS, *VARIANT, *VARIANT_SETTINGS, *DATA, *CONTENTS, *AUXILIARY}
    return [name for name in values if name not in placed]


def differing_settings(records: Sequence[RunRecord]) -> list[str]:
    """For each run of a task, the settings that would put the runs into different tables, and its SHOWN settings."""
    values = _values(records)
    return [", ".join(map(" ".join, of_run)) for of_run in _differing(values, ["task"], _table_settings(values))]


def check_settings(allowed: Iterable[str], row_settings: Iterable[str], column_settings: Iterable[str]) -> None:
    """Raise UserError for a setting of --rows or --columns that is not allowed."""
    for flag, names in (("--rows", row_settings), ("--columns", column_settings)):
        for name in names:
            if name not in allowed:
                raise unknown(flag, name, allowed)


def with_length(names: Sequence[str]) -> Sequence[str]:
    """Add the other settings of LENGTH to settings with one of them. Each setting occurs once in the result."""
    return tuple(dict.fromkeys((*names, *(LENGTH if set(LENGTH) & set(names) else ()))))


def metric_names(runs: pd.DataFrame) -> list[str]:
    """The columns of a frame that are metrics."""
    return [name for name in runs.columns if name not in RUN_COLUMNS]


def _values(records: Sequence[RunRecord]) -> dict[str, list]:
    """Setting -> its value in each run. None in a run without this setting."""
    values: dict[str, list] = {}
    for i, record in enumerate(records):
        for name, value in _settings(record).items():
            if name not in values:
                values[name] = [None] * len(records)
            values[name][i] = value
    for name in ("text_columns", "label_column", "skip_bad_rows"):
        same: dict[tuple, Any] = {}  # whether a column was named or found, the same rows were read
        for i, rows in enumerate(zip(values["task"], values["rows"], values["train_rows"], strict=True)):
            if rows[1] and name in values:
                values[name][i] = same.setdefault(rows, values[name][i])
    return values


def _settings(record: RunRecord) -> dict[str, Any]:
    """The settings of a run, and the contents of its inputs (CONTENTS)."""
    spec, distil, start, teacher = record.spec, record.spec.distil, record.spec.start, record.spec.teacher
    inputs = {name: value[-1] if isinstance(value, list) else value for name, value in record.inputs.items()}
    validation, test = (
        tuple(inputs[split] for split in sorted(inputs) if split.startswith(kind) and inputs[split])
        for kind in ("validation", "test")
    )
    training_inputs = [
        inputs.get(name) for name in ("model", "tokenizer", "train")
    ]  # other inputs give another start model or teacher
    settings = spec.flat()
    settings["num_train_epochs" if (settings["max_steps"] or 0) > 0 else "max_steps"] = None
    return settings | {
        "variant": ", ".join(spec.variants),
        "positive_label": _positive_label(record),
        "found": tuple(sorted(spec.drop.found)),
        "order": spec.drop.found if spec.when.every_epochs else None,
        "start_run": start and (start.id, *training_inputs),
        "teacher_run": (teacher.id, *training_inputs) if teacher else distil and distil.teacher,
        "weights": inputs.get("model"),
        "tokenizer_files": inputs.get("tokenizer"),
        "rows": validation or None,
        "train_rows": inputs.get("train"),
        "scored_rows": (spec.drop.score_split == "test" and test) or None,
        "scored_weights": inputs.get("score_on"),
        "start": inputs.get("start"),
        "teacher_weights": inputs.get("teacher"),
    }


def _positive_label(record: RunRecord) -> str | None:
    """The class that f1 measures, for own data with two classes. In records of version 0.2: the last class by name."""
    if not record.spec.data.files or "f1" not in record.task.metrics:
        return None
    return record.positive_label or record.labels[-1]


def _differing(values: Mapping[str, list], alike: Sequence[str], names: Iterable[str]) -> list[list[tuple[str, str]]]:
    """For each run, (name, value) of its distinguishing settings, and of its SHOWN settings.

    values: as returned by _values. A setting is distinguishing if it differs between runs with equal values of `alike`.
    Unset settings are left out. Contents that are not recorded count as equal, and so does the recipe of a run without
    training.
    """
    differing: list[list[tuple[str, str]]] = [[] for _ in values["model"]]
    groups = [*zip(*(map(repr, values[name]) for name in alike), strict=True)]
    for name in sorted(names):
        in_group: dict[tuple, set[str]] = {}
        for group, value, training in zip(groups, values[name], values["training"], strict=True):
            if (training or name not in RECIPE) and (value is not None or name not in (*CONTENTS, "order")):
                in_group.setdefault(group, set()).add(repr(value))
        several = {group for group, different in in_group.items() if len(different) > 1}
        words = _hashes(values[name]) if name in CONTENTS else map(_word, values[name])
        for of_run, group, value, word in zip(differing, groups, values[name], words, strict=True):
            if value is not None and (group in several or value != SHOWN.get(name, value)):
                of_run.append((NAMES.get(name, name), word))
    return differing


def _hashes(values: Iterable[Any]) -> list[str]:
    """The first HASH characters of each fingerprint or tuple of fingerprints: more if two would have the same."""
    parts = [value if isinstance(value, tuple) else (value,) for value in values]
    different, n = {str(part) for of_run in parts for part in of_run}, HASH
    while len({part[:n] for part in different}) < len(different):
        n += 1
    return [",".join(str(part)[:n] for part in of_run) for of_run in parts]


def _word(value: Any) -> str:
    """A setting in a label. Pairs, such as the files of splits, as `train=a.csv,validation=b.csv`. 3.0 as `3`."""
    if not isinstance(value, tuple):
        return str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return ",".join("=".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in value)


def _facts(record: RunRecord) -> dict[str, Any]:
    where, versions = record.environment, record.environment.get("versions", {})
    commit = where.get("commit")
    return {
        "parameters": record.parameters_after,
        "train": record.training_seconds,
        "inference": record.seconds.get("inference"),
        "device": where.get("device"),
        "threads": where.get("threads"),
        "torch": versions.get("torch"),
        "transformers": versions.get("transformers"),
        "commit": commit and commit[:8] + (" with changes" if where.get("dirty") else ""),
        "constant": min(record.constant_predictions("validation").values(), default=None),
        "resumed": record.resumed_at_step is not None or bool(record.prerequisites.get("resumed")),
        "busy": record.busy,
        "record": record,
    }


def _metrics(record: RunRecord) -> dict[str, float]:
    return {n: -math.inf if math.isnan(v) else 100 * v for n, v in record.metrics.items() if not n.endswith("loss")}
