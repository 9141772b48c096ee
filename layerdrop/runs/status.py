"""Decide whether a run is done: one rule for runs, sweeps, searches and prerequisite runs.

A run is done if its folder holds the record of the same spec, made from the same inputs, and every requested output.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerdrop.runs.predictions import predictions_file
from layerdrop.runs.record import RunRecord, read_record
from layerdrop.runs.results import CARD_FILE, result_files
from layerdrop.runs.spec import Options, RunSpec

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
MODEL = "the model"
"""Name of the output that consists of several files."""


@dataclass(frozen=True)
class Needs:
    """The requested outputs of a run."""

    evaluate: bool = True
    """Metrics and predictions on the validation set."""
    predict: bool = False
    """Predictions for the test set."""
    model: bool = False
    """The trained model with its card."""

    @classmethod
    def of(cls, options: Options) -> "Needs":
        """The outputs that a run's options request."""
        return cls(options.evaluate, options.predict, options.save_model)


@dataclass(frozen=True)
class Status:
    """The state of a run's folder with respect to one spec."""

    word: str
    """`done`; `incomplete`: done except for some outputs; `failed`; `changed`: done with other input contents; `other`:
    the record has another spec; `missing`: no record of an ended run (never started, interrupted, unreadable)."""
    record: RunRecord | None = None
    """The record in the folder, whatever its spec."""
    missing: tuple[str, ...] = ()
    """`incomplete`: the missing requested outputs: file names, or MODEL."""
    changed: tuple[str, ...] = ()
    """`changed`: names of the changed inputs."""
    note: str | None = None
    """The reason why an existing record does not count."""

    @property
    def has_model(self) -> bool:
        """Whether the trained model exists and was made from the same inputs."""
        return self.word in ("done", "incomplete") and holds_model(self.record.folder)

    @property
    def must_train(self) -> bool:
        """Whether a missing output needs the trained model, which was not kept."""
        if self.word != "incomplete" or self.record.spec.train is None or holds_model(self.record.folder):
            return False
        return bool(set(self.missing) - {CARD_FILE, *result_files(self.record)})


def status_of(folder: str, spec: RunSpec, inputs: Mapping[str, Any], needs: Needs) -> Status:
    """The state of the run `spec` in a folder.

    inputs: name -> fingerprint of each input as it is now, as far as known. An input that is unknown now or in the
    record counts as unchanged.
    """
    try:
        record = read_record(folder)
    except ValueError as error:
        return Status("missing", note=f"{error}. The run counts as missing")
    if record is None:
        return Status("missing")
    if record.id != spec.id:
        return Status("other", record)
    if record.status != "success":
        return Status("failed" if record.status == "failed" else "missing", record)
    if changed := changed_inputs(record.inputs, inputs, spec):
        what = ", ".join(changed)
        note = f"{folder}: holds this run with the same settings, but {what} changed since"
        return Status("changed", record, changed=tuple(changed), note=note)
    missing = tuple(missing_outputs(record, inputs, needs))
    return Status("incomplete" if missing else "done", record, missing)


def changed_inputs(before: Mapping[str, Any], now: Mapping[str, Any], spec: RunSpec) -> list[str]:
    """Names of the inputs that differ, in words: `train`, `the model`, `the start`.

    Inputs that are unknown on one side count as equal, and so do test rows that were not used for scoring.
    """
    words = {name: name if _is_split(name) else f"the {name.replace('_', ' ')}" for name in now}
    counts = [name for name in now if not name.startswith("test") or spec.drop.score_split == "test"]
    return [words[name] for name in counts if before.get(name) is not None and before[name] != now[name]]


def holds_model(folder: str | Path) -> bool:
    """Whether a folder holds a model: its configuration and weights."""
    folder = Path(folder)
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in WEIGHTS)


def _is_split(name: str) -> bool:
    return name.partition("_")[0] in ("train", "validation", "test")


def missing_outputs(record: RunRecord, inputs: Mapping[str, Any], needs: Needs) -> list[str]:
    """The outputs that a successful run's folder lacks: names of files, or MODEL. Arguments as of status_of."""
    folder = Path(record.folder)
    kinds = [kind for kind, needed in (("validation", needs.evaluate), ("test", needs.predict)) if needed]
    missing = [
        file
        for kind in kinds
        for split in _splits(kind, record, inputs)
        if not (folder / (file := predictions_file(record.task, split))).is_file()
        or record.inputs.get(split) is None
        or inputs.get(split, record.inputs[split]) != record.inputs[split]
    ]
    if needs.evaluate and not record.metrics and not missing:
        missing += [predictions_file(record.task, split) for split in _splits("validation", record, inputs)]
    files = [*result_files(record), *([CARD_FILE] if needs.model else [])]
    missing += [name for name in files if not (folder / name).is_file()]
    return missing + ([MODEL] if needs.model and not holds_model(folder) else [])


def _splits(kind: str, record: RunRecord, inputs: Mapping[str, Any]) -> list[str]:
    """The splits of a kind that the run has now, or had then, or should have."""
    known = next((names for names in (inputs, record.inputs) if any(n.partition("_")[0] == kind for n in names)), {})
    return [name for name in known if name.partition("_")[0] == kind] or record.task.splits(kind)
