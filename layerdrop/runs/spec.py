"""The settings of a run. This module imports no torch, reads no files and parses no flags.

RunSpec has every setting that can change the result, so it identifies a run. Options has all other settings.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal

from layerdrop.architectures import HubOptions, ModelSpec, paths_to_text
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.finetune.spec import DistilSpec, TheseusSpec, TrainSpec, WhenSpec
from layerdrop.system.text import short_name

VERSION = 3
"""Version of the fields and their meaning. Every id depends on it."""


@dataclass(frozen=True)
class RunSpec:
    """The settings that can change the result of a run."""

    model: ModelSpec
    data: DataSpec
    drop: DropSpec = DropSpec()
    when: WhenSpec = WhenSpec()
    train: TrainSpec | None = TrainSpec()
    """None: evaluate the checkpoint without training."""
    seed: int = 42
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    processes: int = 1
    no_speedups: bool = False
    """True: train without this project's speed-ups, which change dropout draws and rounding."""
    start: "RunSpec | None" = None
    """The run that trains the start model; None: start from the checkpoint. The start model has at least the layers
    that this run keeps. Layer ids are in the checkpoint's numbering."""
    distil: DistilSpec | None = None
    """None: no teacher."""
    teacher: "RunSpec | None" = None
    """The run that trains the teacher; None: no teacher, or the teacher that `distil` names."""
    theseus: TheseusSpec | None = None
    """None: no module replacing (BERT-of-Theseus)."""

    @property
    def drop_when(self) -> str:
        """The value of --drop_when."""
        if self.when.every_epochs:
            return "gradual"
        if self.elastic_k:
            return "elastic"
        if self.start:
            return "finetuned" if self.train else "after"
        return "pretrained"

    @property
    def elastic_k(self) -> tuple[int, ...]:
        """The values of K of the elastic training that this run is, or that its model comes from."""
        return self.when.elastic_k or (self.start.when.elastic_k if self.start else ())

    @property
    def finetune_again(self) -> bool:
        """Whether the reduced model of an elastic training is fine-tuned once more."""
        return bool(self.start and self.start.when.elastic_k and self.train)

    @property
    def variants(self) -> tuple[str, ...]:
        """One word for each training variant of the run (`finetuned` ...). Empty for plain dropping before training."""
        train, distil = self._recipe, self.distil
        words = {
            "frozen": self.when.frozen,
            self.drop_when + "-finetuned" * self.finetune_again: self.drop_when != "pretrained",
            "freeze": self.start and self.start.when.frozen,
            "layerdrop": train and train.layerdrop_rate,
            "theseus": self.theseus,
            f"distill-{distil and distil.distill}": distil,
        }
        return tuple(word for word, holds in words.items() if holds)

    @property
    def _recipe(self) -> TrainSpec | None:
        """The recipe of the run. If the run does not train: the recipe of its start run."""
        return self.train or (self.start and self.start.train) or None

    @property
    def prerequisites(self) -> list["RunSpec"]:
        """The runs that train this run's start model and teacher."""
        return [run for run in (self.start, self.teacher if self.teacher != self.start else None) if run]

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits; equal for equal specs, on every machine.

        The hash covers the version and every field. None and empty values count as absent, so that a new optional field
        does not change older ids.
        """
        text = json.dumps({"version": VERSION, **_without_empty(self)}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_seed(self, seed: int) -> "RunSpec":
        """The run with another seed, which its prerequisite runs share."""
        runs: dict[str, Any] = {
            "start": self.start and self.start.with_seed(seed),
            "teacher": self.teacher and self.teacher.with_seed(seed),
        }
        return replace(self, seed=seed, **runs)

    @property
    def name(self) -> str:
        """Name for folders: MODEL_TASK_STRATEGY_kK_seedS, or MODEL_TASK_full_k0_seedS without a strategy.

        Before the seed: `_scratch` for random weights, and training variants (`_finetuned`, `_distill-logits` ...).
        At the end: `_eval` without training.
        """
        drop = self.drop
        if drop.layers:
            selection = "list_" + "-".join(map(str, drop.layers))
        elif drop.strategy:
            selection = f"{drop.strategy}_" + (f"k{drop.k}" if drop.threshold is None else f"t{drop.threshold:g}")
        else:
            selection = "full_k0"
        scratch = ["scratch"] if self.model.from_scratch else []
        start = short_name(self.model.name), self.data.task, selection
        return "_".join([*start, *scratch, *self.variants, f"seed{self.seed}"]) + ("" if self.train else "_eval")

    def flat(self) -> dict[str, Any]:
        """All settings by name, without nesting, for records, tables and messages. Settings of an absent part are None.

        `start_*` and `teacher_*` are settings of a prerequisite run's recipe that differ from this run's recipe.
        """
        values: dict[str, Any] = {}
        for part, kind in _PARTS.items():
            source = self._recipe if part == "train" else getattr(self, part)
            values |= {name: None if source is None else getattr(source, name) for name in _names(kind)}
        values["model"] = values.pop("name")
        other = values.pop("other") or {}
        rest = {name: getattr(self, name) for name in _SCALARS}
        runs = {"start": self.start, "teacher": self.teacher}
        own = {f"{part}_{name}": self._own(run, name) for part, run in runs.items() for name in OWN_RECIPE}
        elastic = {"elastic_k": self.elastic_k, "finetune_again": self.finetune_again or None}
        freeze = {"freeze_dropped": bool(self.start and self.start.when.frozen) or None}
        auto = {"teacher": "auto"} if self.teacher else {}
        when = {"drop_when": self.drop_when, "training": self._recipe is not None}
        return values | dict(other) | rest | own | elastic | freeze | auto | when

    def _own(self, run: "RunSpec | None", name: str) -> Any:
        """A setting of a prerequisite run's recipe if it differs from this run's, else None."""
        if not (run and run.train and self.train):
            return None
        value = getattr(run.train, name)
        return value if value != getattr(self.train, name) else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values, nested as the fields, with the version."""
        runs = {"start": self.start and self.start.to_dict(), "teacher": self.teacher and self.teacher.to_dict()}
        return {"version": VERSION, **dataclasses.asdict(replace(self, start=None, teacher=None)), **runs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """The inverse of `to_dict`, also from JSON. Unknown fields are ignored.

        Also reads version 2 and earlier field names. Raises ValueError for version 1.
        """
        if "version" not in values:
            raise ValueError("a record of version 1, which this version cannot read (layerdrop 0.2 can)")
        values = _renamed(values)
        parts = {name: kind for name, kind in _PARTS.items() if values.get(name) is not None}
        built: dict[str, Any] = {name: _build(kind, values[name]) for name, kind in parts.items()}
        rest: dict[str, Any] = {name: values[name] for name in _SCALARS if name in values}
        for name in ("start", "teacher"):
            if values.get(name) is not None:
                rest[name] = cls.from_dict(values[name])
        return cls(**{"train": None, **built, **rest})


OWN_RECIPE = ("num_train_epochs", "learning_rate")
"""Recipe settings with a separate value for prerequisite runs: flags --start_... and --teacher_..."""
_SCALARS = ("seed", "precision", "processes", "no_speedups")
_PARTS = {
    **{"model": ModelSpec, "data": DataSpec, "drop": DropSpec, "when": WhenSpec, "train": TrainSpec},
    **{"distil": DistilSpec, "theseus": TheseusSpec},
}


@cache
def _names(kind: type) -> tuple[str, ...]:
    """Field names of a dataclass; empty for another class."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else ()


def _build(kind: type, values: Mapping[str, Any]) -> Any:
    return kind(**{name: _tuples(value) for name, value in values.items() if name in _names(kind)})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _without_empty(value: Any) -> Any:
    """A dict or dataclass, nested as JSON, without None and empty values. Any other value unchanged."""
    kind: type = type(value)
    if not isinstance(value, dict) and not _names(kind):
        return value
    items = value.items() if isinstance(value, dict) else ((name, getattr(value, name)) for name in _names(kind))
    plain = {name: _without_empty(item) for name, item in items}
    return {name: item for name, item in plain.items() if item is not None and item not in ((), {}, [])}


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the fields of an older spec. Earlier names: `plain`, and `teacher_run` in `distil`.

    In version 2, `drop` has the fields of `when`.
    """
    old = {"when": values["drop"]} if values["version"] == 2 and values.get("drop") else {}
    if "plain" in values:
        old["no_speedups"] = values["plain"]
    if run := (values.get("distil") or {}).get("teacher_run"):
        old["teacher"] = run
    return {**values, **old}


TRAINER_DEFAULTS: Mapping[str, Any] = {
    **{"eval_strategy": "epoch", "logging_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 1},
    **{"per_device_eval_batch_size": 32, "remove_unused_columns": False},
}
"""Settings of `TrainingArguments` that change no result and differ from the library's defaults."""


@dataclass(frozen=True)
class Options:
    """Settings that change no result of a run: folders, outputs, checkpoints, reports."""

    folder: str
    evaluate: bool = True
    """Report metrics and predictions on the validation set."""
    predict: bool = False
    """Write predictions for the test set."""
    test: str | None = None
    """Own data to predict: a file, or a dataset's name of the split."""
    max_predict_samples: int | None = None
    save_model: bool = True
    overwrite: bool = False
    """Delete a run in the folder and start over."""
    resume: str | None = None
    """A checkpoint's folder, `last` (the last usable checkpoint in the run's folder), or `auto` (as `last`, but
    start over if there is no usable checkpoint)."""
    rolling_checkpoints: bool = True
    """Write few checkpoints, only to resume from, and delete them at the end."""
    use_cpu: bool = False
    cache_dir: str | None = None
    token: str | None = None
    trust_remote_code: bool = False
    trainer: Mapping[str, Any] = field(default_factory=lambda: TRAINER_DEFAULTS)
    """Settings of `TrainingArguments` for logging, saving, data loading and reporting that differ from the library's
    defaults."""
    start: str | None = None
    """Folder of the start model, if the spec has a `start`; None: train the start model first."""
    prior_store: str | None = None
    """Folder of the prerequisite runs; None: `prior` in the run's folder."""
    score_store: str | None = None
    """Folder of cached layer scores; None: no cache."""
    notes: tuple[str, ...] = ()
    """Notes to the user from before the run. They are added to the record."""

    def __post_init__(self) -> None:
        paths_to_text(self)

    @property
    def hub(self) -> HubOptions:
        """Access to the hub."""
        return HubOptions(self.cache_dir, self.token, self.trust_remote_code)
