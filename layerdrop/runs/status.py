"""Decide whether a run is done. Runs, sweeps, searches and prerequisite runs use the same rule.

A run is done if its folder holds a record of the same spec and the same inputs, and every requested output.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerdrop.runs.predictions import predictions_file
from layerdrop.runs.record import RunRecord, read_record
from layerdrop.runs.results import CARD_FILE, result_files
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.system.own_files import SPEC_FILE, WEIGHTS, OwnFiles

MODEL = "the model"
"""Name of the output that consists of the model's files and its card."""
LIST_LOST = f"its list of files ({SPEC_FILE}) is missing or damaged"
INPUTS = {
    **{name: f"the {name}" for name in ("model", "tokenizer", "teacher")},
    "start": "the start model",
    "score_on": "the model of --score_on",
}
"""Name of an input other than a split -> words for messages."""


@dataclass(frozen=True)
class Needs:
    """The requested outputs of a run."""

    evaluate: bool = True
    """Metrics and predictions on the validation set."""
    predict: bool = False
    """Predictions for the test set."""
    model: bool = False
    """The trained model and its card."""

    @classmethod
    def of(cls, options: Options) -> "Needs":
        """The outputs that a run's options request."""
        return cls(options.evaluate, options.predict, options.save_model)


@dataclass(frozen=True)
class Status:
    """The result of comparing a run's folder with a spec."""

    word: str
    """`done`; `incomplete`: done without some outputs; `failed`; `changed`: done with other input contents; `other`: a
    record of another spec; `missing`: no record of a finished run (never started, interrupted, unreadable)."""
    record: RunRecord | None = None
    """The record in the folder, of this or another spec."""
    missing: tuple[str, ...] = ()
    """`incomplete`: requested outputs that are missing: file names, or MODEL."""
    changed: tuple[str, ...] = ()
    """`changed`: names of the changed inputs."""
    note: str | None = None
    """`missing`, `changed`: reason not to use the record in the folder. `done`, `incomplete`: reason why no file can be
    added to the run."""

    @property
    def has_model(self) -> bool:
        """Whether the folder holds the model, trained on the same inputs."""
        return self.word in ("done", "incomplete") and self.record is not None and holds_model(self.record.folder)

    @property
    def must_train(self) -> bool:
        """Whether a missing output needs the trained model, which was not kept."""
        if self.word != "incomplete" or self.record is None or self.record.spec.train is None or self.has_model:
            return False
        return need_model(self.record, self.missing)


def need_model(record: RunRecord, outputs: Iterable[str]) -> bool:
    """Whether the model of a run is needed to make one of the outputs."""
    return bool(set(outputs) - {SPEC_FILE, CARD_FILE, *result_files(record)})


def status_of(folder: str, spec: RunSpec, inputs: Mapping[str, Any], needs: Needs) -> Status:
    """The status of the run `spec` in a folder.

    inputs: name -> current fingerprint of each known input. An input that is unknown now or in the record counts as
    unchanged.
    """
    try:
        record = read_record(folder)
    except ValueError as error:
        return Status("missing", note=f"{error}. Move the file away")
    if record is None:
        return Status("missing")
    if record.id != spec.id:
        return Status("other", record)
    if record.status != "success":
        return Status("failed" if record.status == "failed" else "missing", record)
    if changed := changed_inputs(record.inputs, inputs, spec):
        names = ", ".join(changed)
        note = f"{folder}: contains this run with the same settings, but {names} changed since"
        return Status("changed", record, changed=tuple(changed), note=note)
    missing = tuple(missing_outputs(record, inputs, needs))
    lost = OwnFiles(folder).spec is None
    note = f"{folder}: {LIST_LOST}, so no file can be added. Move the folder away to repeat the run"
    return Status("incomplete" if missing else "done", record, missing, note=note if lost else None)


def changed_inputs(before: Mapping[str, Any], now: Mapping[str, Any], spec: RunSpec) -> list[str]:
    """Names of the inputs that differ, in words: `the rows of train`, `the model`, `the start model`.

    Inputs that are unknown on one side count as equal. Test rows count as equal unless they score layers.
    """
    counts = [name for name in now if not name.startswith("test") or spec.drop.score_split == "test"]
    changed = [name for name in counts if before.get(name) is not None and before[name] != now[name]]
    splits = ("train", "validation", "test")
    return [f"the rows of {name}" if name.startswith(splits) else INPUTS.get(name, name) for name in changed]


def holds_model(folder: str | Path) -> bool:
    """Whether a folder holds a model: its configuration and weights."""
    folder = Path(folder)
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in WEIGHTS)


def missing_outputs(record: RunRecord, inputs: Mapping[str, Any], needs: Needs) -> list[str]:
    """The outputs that a successful run's folder lacks: names of files, or MODEL. Arguments: see status_of."""
    folder, before = Path(record.folder), record.inputs
    validation = _splits("validation", record, inputs) if needs.evaluate else []
    test = _splits("test", record, inputs) if needs.predict else []
    missing = [
        file
        for split in validation + test
        if not (folder / (file := predictions_file(record.task, split))).is_file()
        or before.get(split) is None
        or inputs.get(split, before[split]) != before[split]
    ]
    if not record.metrics and not missing:
        missing = [predictions_file(record.task, split) for split in validation]
    files = [*result_files(record), *([CARD_FILE] if needs.model else [])]
    missing += [name for name in files if not (folder / name).is_file()]
    missing += [SPEC_FILE] if OwnFiles(folder).reserving else []  # the list of files is not complete
    return missing + ([MODEL] if needs.model and not holds_model(folder) else [])


def _splits(kind: str, record: RunRecord, inputs: Mapping[str, Any]) -> list[str]:
    """The run's splits of a kind: from its current inputs, else from its record, else from its task."""
    by_inputs, by_record = ([n for n in names if n.partition("_")[0] == kind] for names in (inputs, record.inputs))
    return by_inputs or by_record or record.task.splits(kind)
