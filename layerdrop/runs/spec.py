"""What a run is: everything that can change its result, as small frozen values without torch, files or flags.

A RunSpec is the identity of a run; Options are the rest: where the run writes, what it keeps, how it is watched.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from layerdrop.system.text import short_name

VERSION = 3
"""Version of the fields' meaning; part of every id."""


@dataclass(frozen=True)
class ModelSpec:
    """Which checkpoint."""

    name: str
    """Folder or hub name; `demo`: the embedded miniature."""
    revision: str = "main"
    tokenizer: str | None = None
    """Folder or hub name of the tokenizer; None: the checkpoint's own."""
    from_scratch: bool = False
    """Random weights instead of the pre-trained ones."""


@dataclass(frozen=True)
class DataSpec:
    """Which task and examples, and how many tokens of each."""

    task: str
    """Name of a GLUE or demo task; for own files a name derived from theirs."""
    source: str = "hub"
    """`hub`, `demo`, `files`, or a GLUE folder as given."""
    files: tuple[tuple[str, str], ...] = ()
    """Own files: (split, path) of `train` and `validation`, as far as the run reads them."""
    text_columns: tuple[str, ...] = ()
    """Own files: one or two names; empty: found in the files."""
    label_column: str = "label"
    label_type: str = "auto"
    """Own files: `class`, `number`, or `auto`."""
    positive_label: str | None = None
    """Own files with two classes: the class that `f1` measures; None: chosen by name and frequency."""
    skip_bad_rows: bool = False
    max_seq_length: int = 128
    """Tokens."""
    pad_to_max_length: bool = False
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    hold_out: float | None = None
    """Share of the training set that takes the place of the development set; None: none."""


@dataclass(frozen=True)
class DropSpec:
    """Which layers go. Ids count from 0 in the numbering of the checkpoint."""

    strategy: str | None = None
    """A name in layerdrop.strategies.STRATEGIES; None: nothing is dropped."""
    k: int | None = None
    threshold: float | None = None
    layers: tuple[int, ...] = ()
    """`list`: the ids."""
    found: tuple[int, ...] = ()
    """The ids that a search found for this k, ascending (in its order, where they go gradually); empty where the run
    searches itself."""
    score_on: str | None = None
    """Scores come from this checkpoint instead of the model."""
    score_split: str | None = None
    score_samples: int | None = None
    weight_scope: str | None = None


@dataclass(frozen=True)
class WhenSpec:
    """When the layers of a DropSpec are dropped; by default before training."""

    frozen: bool | None = None
    """True: the layers are frozen instead of dropped."""
    step: int | None = None
    """Gradual dropping: number of layers dropped at a time; None: all layers are dropped before training."""
    every_epochs: int | None = None
    """Gradual dropping: epochs before each drop."""


@dataclass(frozen=True)
class TrainSpec:
    """The recipe. Fields are named as in `TrainingArguments`; the defaults are the papers'."""

    num_train_epochs: float = 3.0
    max_steps: int = -1
    per_device_train_batch_size: int = 32
    gradient_accumulation_steps: int = 1
    learning_rate: float = 2e-5
    lr_scheduler_type: str = "linear"
    warmup_steps: float = 0.0
    optim: str = "adamw_torch_fused"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    label_smoothing_factor: float = 0.0
    train_sampling_strategy: str = "group_by_length"
    data_seed: int | None = None
    freeze_layers: tuple[int, ...] = ()
    """Kept layers that are frozen; ids in the numbering of the checkpoint."""
    freeze_embeddings: bool = False
    layerdrop_rate: float | None = None
    """Probability with which a training step leaves out a layer; None: none is left out."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """Every further setting of `TrainingArguments` that changes a result and is not at its default."""


ADAPTIVE = ("reduce_lr_on_plateau", "greedy")
"""Learning rate schedules that follow the evaluations."""
NOT_THE_LIBRARYS = ("freeze_layers", "freeze_embeddings", "layerdrop_rate", "other")
"""Fields of TrainSpec that are no setting of `TrainingArguments`."""


@dataclass(frozen=True)
class DistilSpec:
    """Distillation: loss = (1 - weight) task loss + weight logits loss + states weight x states loss."""

    distill: str
    """`logits`; `patient`: sentence-token states too; `layers`: the states of every token too."""
    teacher: str | None = None
    """Folder or hub name of the teacher; None: the trained model of `teacher_run`."""
    teacher_run: "RunSpec | None" = None
    distill_temperature: float = 1.0
    distill_weight: float = 0.5
    distill_states_weight: float | None = None
    distill_attention: bool | None = None
    """`layers`: whether attention is matched too."""


@dataclass(frozen=True)
class TheseusSpec:
    """Module replacing (Xu et al. 2020)."""

    replacing_rate: float
    """Probability at the first step with which a module of the successor takes its place."""
    replacing_steps: float
    """Step, or share of the training's steps if below 1, from which on the rate is 1."""
    replacing_schedule: str
    """Before that `constant`, or `linear`: it rises to 1."""


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
    plain: bool = False
    """Without this project's speed-ups: other dropout draws, other rounding."""
    start: "RunSpec | None" = None
    """The run whose trained model this one starts from; None: the checkpoint. That model has at least the layers that
    this run keeps; layer ids count in the checkpoint."""
    distil: DistilSpec | None = None
    """None: no teacher."""
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
    def firsts(self) -> list["RunSpec"]:
        """The runs whose trained models this one needs: its start and its teacher."""
        teacher = self.distil and self.distil.teacher_run
        return [run for run in (self.start, teacher if teacher != self.start else None) if run]

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
        is absent. No two parts share a name (`name` becomes `model`). Of a first run, the settings in which its recipe
        differs."""
        values: dict[str, Any] = {}
        for part, kind in _PARTS.items():
            of = self._recipe if part == "train" else getattr(self, part)
            names = [f.name for f in dataclasses.fields(kind) if not f.name.endswith("_run")]
            values |= {name: None if of is None else getattr(of, name) for name in names}
        values["model"] = values.pop("name")
        other = values.pop("other") or {}
        rest = {name: getattr(self, name) for name in _ALONE}
        first = {f"first_{name}": self._of_first(name) for name in FIRST_RECIPE}
        freeze = {"freeze_dropped": bool(self.start and self.start.when.frozen) or None}
        auto = {"teacher": "auto"} if self.distil and self.distil.teacher_run else {}
        when = {"drop_when": self.drop_when, "training": self._recipe is not None}
        return values | dict(other) | rest | first | freeze | auto | when

    def _of_first(self, name: str) -> Any:
        """A setting of the first training, where it differs from this run's."""
        values = [getattr(run.train, name) for run in self.firsts if run.train and self.train]
        return next((value for value in values if value != getattr(self.train, name)), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, nested as the fields are, with the version."""
        values = {"version": VERSION, **dataclasses.asdict(replace(self, start=None, distil=None))}
        if self.distil:
            run = self.distil.teacher_run
            values["distil"] = dataclasses.asdict(replace(self.distil, teacher_run=None))
            values["distil"]["teacher_run"] = run and run.to_dict()
        return values | {"start": self.start and self.start.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """The spec that `to_dict` gave these values (lists for tuples, as JSON has them); unknown fields are ignored.

        Also reads version 1, whose fields were not nested, and version 2, whose `drop` had the fields of `when`.
        """
        if "version" not in values:
            values = _from_version_1(values)
        if values.get("when") is None:
            values = {**values, "when": values.get("drop")}
        parts = {name: kind for name, kind in _PARTS.items() if values.get(name) is not None}
        built = {name: _build(kind, values[name]) for name, kind in parts.items()}
        rest = {name: values[name] for name in _ALONE if name in values}
        if values.get("start") is not None:
            rest["start"] = cls.from_dict(values["start"])
        return cls(**built, **rest, **({} if "train" in built else {"train": None}))


FIRST_RECIPE = ("num_train_epochs", "learning_rate")
"""Settings of the recipe that the first training of a run can have of its own: flags --first_..."""
_ALONE = ("seed", "precision", "processes", "plain")
_PARTS = {
    **{"model": ModelSpec, "data": DataSpec, "drop": DropSpec, "when": WhenSpec, "train": TrainSpec},
    **{"distil": DistilSpec, "theseus": TheseusSpec},
}
_OF_VERSION_1 = (ModelSpec, DataSpec, DropSpec, TrainSpec)


def _build(kind: type, values: Mapping[str, Any]) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    built = {name: _tuples(value) for name, value in values.items() if name in known}
    if built.get("teacher_run") is not None:
        built["teacher_run"] = RunSpec.from_dict(built["teacher_run"])
    return kind(**built)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _chosen(values: dict[str, Any]) -> dict[str, Any]:
    plain = {name: _chosen(value) if isinstance(value, dict) else value for name, value in values.items()}
    return {name: value for name, value in plain.items() if value is not None and value not in ((), {}, [])}


def _from_version_1(old: Mapping[str, Any]) -> dict[str, Any]:
    """The nested form of a spec of version 1."""
    kinds = {part: kind for part, kind in _PARTS.items() if kind in _OF_VERSION_1}
    fields = {part: {f.name for f in dataclasses.fields(kind)} for part, kind in kinds.items()}
    new: dict[str, Any] = {part: {n: v for n, v in old.items() if n in names} for part, names in fields.items()}
    new["model"]["name"] = old["model"]
    new["drop"]["found"] = sorted((old.get("order") or [])[: old.get("k") or 0])  # the whole order stood there
    new["data"]["source"] = old["data"]
    recipe = dict(old.get("training", {}))
    known = {name: recipe.pop(name) for name in list(recipe) if name in fields["train"]}
    recipe.pop("dataloader_drop_last", None) if not recipe.get("dataloader_drop_last") else None
    new["train"] = new["train"] | known | {"other": recipe} if old.get("train", True) else None
    return new | {name: old[name] for name in ("seed", "precision", "processes") if name in old} | {"version": 1}


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
