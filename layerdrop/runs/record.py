"""The record of a run, and its file."""

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

from layerdrop.data.spec import DataSpec
from layerdrop.data.tasks import DEMO_TASKS, TASKS, Task, custom_task
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.system.files import read_json
from layerdrop.system.own_files import OwnFiles
from layerdrop.system.process import BUSY
from layerdrop.system.typecheck import check_type

RECORD_FILE = "record.json"
NEARLY_CONSTANT = 0.05
"""Predictions with a smaller range count as nearly constant. Unit: standard deviations of the labels."""
CHOICE_OF_K = "layerdrop choose-k selects K on half of the validation rows"
"""Note of every run that choose-k executes. The card of a model that it keeps says so, too."""


class SplitRead(TypedDict, total=False):
    """A split that a run has read."""

    rows: int
    bad_rows: int
    """Malformed rows that were skipped."""
    fingerprint: str | None
    also_in_train: int
    """`validation`, own data: rows whose texts are also in the training set. Absent without such rows."""


class Environment(TypedDict, total=False):
    """The environment of a run: see layerdrop.runs.environment."""

    versions: dict[str, str | None]
    device: str | None
    device_count: int | None
    cores: int | None
    threads: int | None
    platform: str | None
    commit: str | None
    dirty: bool | None
    """Whether tracked files differed from the commit."""


@dataclass(frozen=True)
class Cut:
    """One removal of layers. Layer ids count in the original model, from 0."""

    step: int
    """Number of training steps before the cut; 0: before training."""
    dropped: list[int]
    """All dropped layers after this cut."""
    kept: list[int]
    why: str
    """The reason: `top, K = 2`."""
    scores: list[float] | None = None
    """One score for each layer of the checkpoint, if the strategy computes scores. NaN for a layer without a score."""


@dataclass
class RunRecord:
    """The record of a run. Layer ids count in the original model, from 0."""

    spec: RunSpec
    folder: str
    status: str = "running"
    """`running`, `success`, `failed`, `cancelled`; `dry_run` for a preview."""
    n_layers: int | None = None
    """Depth of the original model."""
    cuts: list[Cut] = field(default_factory=list)
    dropped_before: list[int] = field(default_factory=list)
    """Layers that the checkpoint does not contain, because they were dropped earlier."""
    parameters_before: int | None = None
    parameters_after: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics on the validation set, as fractions. MNLI's have the prefix `matched_` or `mismatched_`."""
    epochs: list[dict[str, float | None]] = field(default_factory=list)
    """One entry for each logging step: `step`, `epoch`, `train_loss`, `loss` and metrics on the validation set."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage: load, read, prerequisites, select, tokenize, teacher (its pass over the training set), train,
    evaluate (all passes over the validation set), inference (the last of these passes), predict, total."""
    steps: int | None = None
    """Optimizer steps of the whole training."""
    train_loss: float | None = None
    """Mean training loss over all steps."""
    prerequisites: dict[str, float] = field(default_factory=dict)
    """Cost of the prerequisite runs: trainings, steps, seconds of training, number of resumed trainings (`resumed`)."""
    resumed_at_step: int | None = None
    """Resumed run: step of the checkpoint. Seconds, tokens per second and peak memory cover only later steps."""
    tokens_per_second: float | None = None
    """Tokens per second in training, without padding."""
    padding_share: float | None = None
    """Fraction of padding in the tokens of the training."""
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)
    """Largest resident size of the process (`host`) and largest allocation on the GPU (`cuda`), without scoring
    layers."""
    data: dict[str, SplitRead] = field(default_factory=dict)
    """The splits that the run has read."""
    text_columns: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    """Class names in id order; empty for regression."""
    label_type: str | None = None
    """Kind of the labels, as --label_type. None in records of version 0.2, for `class` or `number`."""
    label_threshold: float | None = None
    """Several labels at once: the probability above which a label is predicted."""
    positive_label: str | None = None
    """The class that `f1` measures. None if F1 is not a metric of the task. Also None in records of version 0.2, where
    `f1` measures the last class."""
    class_weights: dict[str, float] = field(default_factory=dict)
    """Class name -> weight in the training loss; empty without --class_weights."""
    class_f1: dict[str, dict[str, float]] = field(default_factory=dict)
    """Validation split -> class name -> F1; empty for regression."""
    distinct_predictions: dict[str, int] = field(default_factory=dict)
    """Split -> number of different predictions."""
    prediction_range: dict[str, float] = field(default_factory=dict)
    """Regression: split with labels -> range of the predictions, in standard deviations of the labels."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Hashes of the contents of `model`, `tokenizer`, `score_on`, `start`, `teacher`."""
    notes: list[str] = field(default_factory=list)
    """Notes to the user."""
    environment: Environment = field(default_factory=Environment)
    error: str | None = None
    id: str = ""
    """The id of the spec, or the id in the file that the record was read from."""

    def __post_init__(self) -> None:
        self.id = self.id or self.spec.id

    @property
    def task(self) -> Task:
        """The task in the table of tasks. For own data: a task with the data's classes."""
        positive = self.labels.index(self.positive_label) if self.positive_label in self.labels else 1
        task = (TASKS | DEMO_TASKS).get(self.spec.data.task)
        return task or custom_task("", (), "", tuple(self.labels), positive, self.label_type)

    @property
    def data_to_read(self) -> DataSpec:
        """The data of the run, to read their rows again. Numbers stay numbers: the file alone may leave this unclear.

        Other kinds of labels are found again. To name the kind `class` would make classes of missing labels.
        """
        data = self.spec.data
        numbers = data.source in ("files", "dataset") and data.label_type == "auto" and self.label_type == "number"
        return replace(data, label_type="number") if numbers else data

    @property
    def named_metrics(self) -> dict[str, float]:
        """Display name -> metric. On own data, the name of `f1` includes its class."""
        names = {"f1": f"f1 ({self.positive_label})"} if self.spec.data.files and self.positive_label else {}
        return {names.get(name, name): value for name, value in self.metrics.items()}

    @property
    def dropped(self) -> list[int]:
        """Dropped layers after the last cut."""
        return self.cuts[-1].dropped if self.cuts else []

    @property
    def kept(self) -> list[int]:
        """Kept layers after the last cut."""
        return self.cuts[-1].kept if self.cuts else list(range(self.n_layers or 0))

    @property
    def scores(self) -> list[float] | None:
        """Scores of the last cut."""
        return self.cuts[-1].scores if self.cuts else None

    @property
    def training_seconds(self) -> float | None:
        """Seconds of all trainings of the model, with the teacher's pass and the prerequisite runs. None without a
        training, and if one of the trainings was resumed: its seconds cover only a part."""
        parts = [self.seconds.get("train"), self.seconds.get("teacher"), self.prerequisites.get("seconds")]
        known = [seconds for seconds in parts if seconds is not None]
        resumed = self.resumed_at_step is not None or self.prerequisites.get("resumed")
        return sum(known) if known and not resumed else None

    @property
    def busy(self) -> bool:
        """Whether times of the run, or of a prerequisite run, were measured beside other processes."""
        return any(note.startswith(BUSY) for note in self.notes)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, with null for NaN. `dropped`, `kept` and `scores` come from the last cut."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {"spec": self.spec.to_dict(), "cuts": [dataclasses.asdict(cut) for cut in self.cuts]}
        derived = {"dropped": self.dropped, "kept": self.kept, "scores": self.scores}
        json_values: dict[str, Any] = plain({"id": values.pop("id"), **values, **derived})
        return json_values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunRecord":
        """The inverse of `to_dict`. Unknown fields are ignored. Raises ValueError for values that are not a record."""
        if not isinstance(values, Mapping) or not isinstance(values.get("spec"), Mapping):
            raise ValueError("not the record of a run: it has no spec")
        known = {f.name for f in dataclasses.fields(cls)} - {"spec", "cuts"}
        try:
            record = cls(spec=RunSpec.from_dict(values["spec"]), **{n: v for n, v in values.items() if n in known})
            record.cuts = [Cut(**cut | {"scores": _with_nan(cut.get("scores"))}) for cut in values.get("cuts", ())]
            if "first" in values:  # version 2
                record.prerequisites = values["first"]
            record.metrics = {name: math.nan if v is None else v for name, v in record.metrics.items()}
            check_type(record, cls)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not the record of a run: {error}") from error
        return record

    @property
    def inputs(self) -> dict[str, Any]:
        """Name -> fingerprint of each known input: models, tokenizer, and [rows, fingerprint] of each split."""
        rows = {split: [values.get("rows"), values.get("fingerprint")] for split, values in self.data.items()}
        return self.fingerprints | rows

    def constant_predictions(self, kind: str = "") -> dict[str, int]:
        """Split with constant or nearly constant predictions -> number of different predictions.

        kind: `validation` for validation splits only.
        """
        width, distinct = self.prediction_range, self.distinct_predictions
        constant = {split: n for split, n in distinct.items() if is_constant(n, width.get(split))}
        return {split: n for split, n in constant.items() if split.startswith(kind)}

    def write(self) -> Path:
        """Write `record.json` into the run's folder atomically.

        Raises UserError if the user has a file of this name.
        """
        OwnFiles(self.folder).write({RECORD_FILE: self.to_json()})
        return Path(self.folder) / RECORD_FILE

    def to_json(self) -> str:
        """The content of `record.json`."""
        return json.dumps(self.to_dict(), indent=1, default=str) + "\n"


Run = Callable[[RunSpec, Options], RunRecord]
"""Executes a run, writes its record, and returns the record. The status is `failed` if the run fails. Raises UserError
for unusable input, and Locked if another process uses the folder."""


def is_constant(n_distinct: int, width: float | None) -> bool:
    """Whether predictions are constant or nearly constant.

    n_distinct: number of different predictions. width: range of values in standard deviations of the labels.
    """
    return n_distinct == 1 or (width is not None and width < NEARLY_CONSTANT)


def _with_nan(scores: list[float | None] | None) -> list[float] | None:
    return None if scores is None else [math.nan if score is None else score for score in scores]


def plain(value: Any) -> Any:
    """JSON values, with null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_record(folder: str | os.PathLike[str]) -> RunRecord | None:
    """The record in a run's folder; None without a record, and for a file. The folder may have been moved.

    Raises ValueError, which names the path, for an unreadable record.
    """
    path = Path(folder) / RECORD_FILE
    try:
        record = RunRecord.from_dict(read_json(path, parse_constant=_no_number))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    record.folder = str(folder)
    return record


def _no_number(name: str) -> float:
    """Refuse NaN and infinity, which are not JSON."""
    raise ValueError(f"{name} is not a JSON number. A record has null instead")


class Clock:
    """Seconds by stage. A repeated stage adds to its seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.began = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def only(self, *stages: str) -> dict[str, float]:
        """The seconds of some stages. Stages that did not take place are omitted."""
        return {stage: self.seconds[stage] for stage in stages if stage in self.seconds}

    def total(self) -> dict[str, float]:
        """The seconds of all stages, and `total` since the start of the clock."""
        return {**self.seconds, "total": time.perf_counter() - self.began}
