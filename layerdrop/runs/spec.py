"""What a run is: everything that can change its result, as small frozen values without torch, files or flags.

A RunSpec is the identity of a run; Options are the rest: where the run writes, what it keeps, how it is watched.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from layerdrop.architectures import HubOptions, ModelSpec
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.finetune.spec import DistilSpec, TheseusSpec, TrainSpec, WhenSpec
from layerdrop.system.text import short_name

VERSION = 3
"""Version of the fields' meaning; part of every id."""


@dataclass(frozen=True)
class RunSpec:
    """Everything that can change the result of a run, and nothing else."""

    model: ModelSpec
    data: DataSpec
    drop: DropSpec = DropSpec()
    when: WhenSpec = WhenSpec()
    train: TrainSpec | None = TrainSpec()
    """None: the checkpoint is evaluated as it is."""
    seed: int = 42
    precision: str = "fp32"
    processes: int = 1
    no_speedups: bool = False
    """Without this project's speed-ups: other dropout draws, other rounding."""
    start: "RunSpec | None" = None
    """The run whose trained model this one starts from; None: the checkpoint. That model has at least the layers that
    this run keeps; layer ids count in the checkpoint."""
    distil: DistilSpec | None = None
    """None: no teacher."""
    teacher: "RunSpec | None" = None
    """The run whose trained model is the teacher; None: no teacher, or the one that `distil` names."""
    theseus: TheseusSpec | None = None
    """None: no module replacing."""

    @property
    def drop_when(self) -> str:
        """The value of --drop_when."""
        if self.when.every_epochs:
            return "gradual"
        if self.start:
            return "finetuned" if self.train else "after"
        return "pretrained"

    @property
    def variants(self) -> tuple[str, ...]:
        """Training variants: what distinguishes the run from plain dropping, one word each (`finetuned` ...)."""
        train, distil = self._recipe, self.distil
        words = {
            "frozen": self.when.frozen,
            self.drop_when: self.drop_when != "pretrained",
            "freeze": self.start and self.start.when.frozen,
            "layerdrop": train and train.layerdrop_rate,
            "theseus": self.theseus,
            f"distill-{distil and distil.distill}": distil,
        }
        return tuple(word for word, holds in words.items() if holds)

    @property
    def _recipe(self) -> TrainSpec | None:
        """The recipe of the run, or of the run whose trained model it evaluates."""
        return self.train or (self.start and self.start.train) or None

    @property
    def prerequisites(self) -> list["RunSpec"]:
        """The runs whose trained models this one needs: its start and its teacher."""
        return [run for run in (self.start, self.teacher if self.teacher != self.start else None) if run]

    @property
    def id(self) -> str:
        """16 hexadecimal digits; equal for equal specs, on every machine.

        The hash covers the version and every field; a field at None or empty counts as absent, so that an optional
        field added later leaves the ids of older runs alone.
        """
        text = json.dumps({"version": VERSION, **_chosen(dataclasses.asdict(self))}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """MODEL_TASK_STRATEGY_kK_seedS for folders: `full_k0` without a strategy; before the seed `_scratch` for random
        weights, and what else tells the run from an ordinary one (`_finetuned`, `_gradual`, `_distill-logits` ...);
        `_eval` at the end without training."""
        drop = self.drop
        if drop.layers:
            how = "list_" + "-".join(map(str, drop.layers))
        elif drop.strategy:
            how = f"{drop.strategy}_" + (f"k{drop.k}" if drop.threshold is None else f"t{drop.threshold:g}")
        else:
            how = "full_k0"
        scratch = ["scratch"] if self.model.from_scratch else []
        parts = [
            short_name(self.model.name),
            self.data.task,
            how,
            *scratch,
            *self.variants,
            f"seed{self.seed}",
        ]
        return "_".join(parts) + ("" if self.train else "_eval")

    def flat(self) -> dict[str, Any]:
        """Field -> value, without nesting, under the names that records, tables and messages use; None where the part
        is absent. No two parts share a name (`name` becomes `model`). `start_*` and `teacher_*` are the settings in
        which the recipe of a prerequisite run differs."""
        values: dict[str, Any] = {}
        for part, kind in _PARTS.items():
            of = self._recipe if part == "train" else getattr(self, part)
            names = [f.name for f in dataclasses.fields(kind)]
            values |= {name: None if of is None else getattr(of, name) for name in names}
        values["model"] = values.pop("name")
        other = values.pop("other") or {}
        rest = {name: getattr(self, name) for name in _ALONE}
        runs = {"start": self.start, "teacher": self.teacher}
        own = {f"{part}_{name}": self._own(run, name) for part, run in runs.items() for name in OWN_RECIPE}
        freeze = {"freeze_dropped": bool(self.start and self.start.when.frozen) or None}
        auto = {"teacher": "auto"} if self.teacher else {}
        when = {"drop_when": self.drop_when, "training": self._recipe is not None}
        return values | dict(other) | rest | own | freeze | auto | when

    def _own(self, run: "RunSpec | None", name: str) -> Any:
        """A setting of a prerequisite run's recipe if it differs from this run's, else None."""
        if not (run and run.train and self.train):
            return None
        value = getattr(run.train, name)
        return value if value != getattr(self.train, name) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, nested as the fields are, with the version."""
        runs = {"start": self.start and self.start.to_dict(), "teacher": self.teacher and self.teacher.to_dict()}
        return {"version": VERSION, **dataclasses.asdict(replace(self, start=None, teacher=None)), **runs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """The spec that `to_dict` gave these values (lists for tuples, as JSON has them); unknown fields are ignored.

        Also reads version 2. Raises ValueError for version 1.
        """
        if "version" not in values:
            raise ValueError("a record of version 1, which layerdrop 0.2 reads and this version does not")
        if values.get("version") == 2:
            values = _from_version_2(values)
        parts = {name: kind for name, kind in _PARTS.items() if values.get(name) is not None}
        built = {name: _build(kind, values[name]) for name, kind in parts.items()}
        rest = {name: values[name] for name in _ALONE if name in values}
        for name in ("start", "teacher"):
            if values.get(name) is not None:
                rest[name] = cls.from_dict(values[name])
        return cls(**built, **rest, **({} if "train" in built else {"train": None}))


OWN_RECIPE = ("num_train_epochs", "learning_rate")
"""Settings of the recipe that a prerequisite run can have of its own: flags --start_... and --teacher_..."""
_ALONE = ("seed", "precision", "processes", "no_speedups")
_PARTS = {
    **{"model": ModelSpec, "data": DataSpec, "drop": DropSpec, "when": WhenSpec, "train": TrainSpec},
    **{"distil": DistilSpec, "theseus": TheseusSpec},
}


def _build(kind: type, values: Mapping[str, Any]) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    return kind(**{name: _tuples(value) for name, value in values.items() if name in known})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _chosen(values: dict[str, Any]) -> dict[str, Any]:
    plain = {name: _chosen(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in plain.items() if value is not None and value not in ((), {}, [])}


def _from_version_2(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a spec of version 2: `drop` had those of `when`, `distil` had `teacher`."""
    distil = values.get("distil") or {}
    new = {"when": values.get("drop"), "teacher": distil.get("teacher_run"), "no_speedups": values.get("plain", False)}
    return {**values, **new}


TRAINER_DEFAULTS: Mapping[str, Any] = {
    **{"eval_strategy": "epoch", "logging_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 1},
    **{"per_device_eval_batch_size": 32, "remove_unused_columns": False},
}
"""Settings of `TrainingArguments` that change no result, as far as they are not the library's."""


@dataclass(frozen=True)
class Options:
    """Settings that change no result of a run: folders, outputs, checkpoints, reports."""

    folder: str
    evaluate: bool = True
    """Report metrics and predictions on the development set."""
    predict: bool = False
    """Write predictions for the test set."""
    test_file: str | None = None
    """Own files: those to predict."""
    max_predict_samples: int | None = None
    save_model: bool = True
    overwrite: bool = False
    """Start over in a folder that holds a run."""
    resume: str | None = None
    """A checkpoint's folder, `last` (the last usable one in the folder; an error without one), or `auto` (the last
    usable one, else start again)."""
    rolling_checkpoints: bool = True
    """Checkpoints only serve to resume: few are written, and none is left at the end."""
    use_cpu: bool = False
    cache_dir: str | None = None
    token: str | None = None
    trust_remote_code: bool = False
    trainer: Mapping[str, Any] = field(default_factory=lambda: TRAINER_DEFAULTS)
    """Settings of `TrainingArguments` about logging, saving, data loading and reporting, as far as they differ from the
    library's."""
    start: str | None = None
    """Folder of the model that the run starts from, where its spec has a `start`; None: that run is done first."""
    prior_store: str | None = None
    """Folder for the runs that the run does first (of a search, of the model that it goes on from, of its teacher);
    None: `prior` in its own."""
    score_store: str | None = None
    """Folder of layer scores that are not computed twice; None: none are kept."""
    notes: tuple[str, ...] = ()
    """Notes to the user before the run, for the record."""

    @property
    def hub(self) -> HubOptions:
        """Access to the hub."""
        return HubOptions(self.cache_dir, self.token, self.trust_remote_code)
