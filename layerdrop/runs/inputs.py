"""The inputs of a run and their fingerprints: the checkpoint, its tokenizer, the rows of each split, the models of
prerequisite runs, the scored checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.selection import split_to_score
from layerdrop.data.batches import Collator
from layerdrop.data.labels import Labels, head_kind
from layerdrop.data.read import Data, read_splits
from layerdrop.data.tokens import TokenizedDataset, tokenize
from layerdrop.errors import UserError
from layerdrop.finetune.spec import ADAPTIVE
from layerdrop.runs.record import rows_input
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import Needs, Status, status_of
from layerdrop.runs.store import Store, prior_store

MULTIPLE = 8
"""On a GPU: batches are padded to a multiple of this. CUDA captures each length once."""


def needed_splits(spec: RunSpec, options: Options) -> list[str]:
    """Kinds of splits that a run or its start reads: `train`, `validation`, `test`."""
    scored = split_to_score(spec.drop)
    needed = {"train": bool(spec.train or spec.start), "validation": options.evaluate, "test": options.predict}
    return [split for split, wanted in needed.items() if wanted or split == scored]


def splits_to_select(spec: RunSpec) -> list[str]:
    """Kinds of splits that the selection of a run's layers reads."""
    needed = {split for split, _ in spec.data.files[:1]} | {split_to_score(spec.drop)}  # own files tell the classes
    return [split for split in ("train", "validation", "test") if split in needed]


def quiet_options(options: Options) -> Options:
    """Options of a prerequisite run or a search candidate: no predictions, reports or uploads."""
    quiet = {"eval_strategy": "no", "disable_tqdm": True, "report_to": []}
    trainer = {name: value for name, value in options.trainer.items() if not name.startswith(("push_to", "hub_"))}
    changes = {"predict": False, "evaluate": True, "test_file": None, "start": None, "notes": ()}
    return replace(options, trainer=trainer | quiet, overwrite=False, rolling_checkpoints=True, **changes)


@dataclass(frozen=True)
class RunInputs:
    """What a run reads before it selects layers."""

    checkpoint: Checkpoint
    data: Data
    labels: Labels
    collate: Collator
    max_length: int
    """Tokens of an example at most: of the spec, or of the model."""
    device: torch.device
    batch_size: int
    """Of evaluations and scores."""

    @classmethod
    def read(
        cls,
        spec: RunSpec,
        options: Options,
        args: TrainingArguments,
        checkpoint: Checkpoint,
        splits: Sequence[str] | None = None,
    ) -> "RunInputs":
        """Read the data. splits: `train`, `validation`, `test`; None: those that the run needs. Raises UserError."""
        data = read_splits(
            spec.data,
            needed_splits(spec, options) if splits is None else splits,
            checkpoint=checkpoint,
            test_file=options.test_file,
            max_predict_samples=options.max_predict_samples,
            cache_dir=options.cache_dir,
            token=options.token,
        )
        max_length = min(spec.data.max_seq_length, checkpoint.max_length())
        multiple = 1 if args.device.type == "cpu" else MULTIPLE
        collate = Collator.of(checkpoint.tokenizer, max_length, spec.data.pad_to_max_length, multiple)
        labels, size = Labels(data.task, checkpoint), args.per_device_eval_batch_size
        return cls(checkpoint, data, labels, collate, max_length, args.device, size)

    @property
    def tokenizer(self):
        """The checkpoint's tokenizer."""
        return self.checkpoint.tokenizer

    def dataset(self, split: str) -> TokenizedDataset:
        """A split, tokenized, with labels in the checkpoint's order. Raises UserError for a text without a token."""
        examples, sizes = self.data.examples[split], self.checkpoint.embeddings
        labels = None if examples.labels is None else self.labels.to_model(examples.labels)
        return tokenize(examples, self.tokenizer, self.max_length, labels, sizes)


class Inputs:
    """Computes fingerprints of inputs, each once. An input that cannot be read here is left out.

    Rows of hub datasets are left out too, unless a run has read them: reading would take seconds for each dataset.
    """

    def __init__(self):
        self._checkpoints: dict[tuple, Checkpoint | None] = {}
        self._rows: dict[tuple, dict[str, Any]] = {}

    def of(self, spec: RunSpec, options: Options) -> dict[str, Any]:
        """Name -> fingerprint of every input, as in RunRecord.inputs."""
        return self.models(spec, options) | self._rows_of(spec, options, self._open(spec.model, options))

    def models(self, spec: RunSpec, options: Options) -> dict[str, str]:
        """`model`, `tokenizer`, `start`, `teacher`, `score_on`. A prerequisite run that is not trained yet has no
        fingerprint."""
        checkpoint = self._open(spec.model, options)
        found = dict(checkpoint.fingerprints) if checkpoint else {}
        models = {"start": self.start(spec, options), "teacher": self.teacher(spec, options)}
        if spec.drop.score_on:
            scored = ModelSpec(spec.drop.score_on, tokenizer=spec.model.tokenizer)
            models["score_on"] = self._open(scored, options)
        return found | {name: model.fingerprints["model"] for name, model in models.items() if model}

    def start(self, spec: RunSpec, options: Options) -> Checkpoint | None:
        """The model that the run starts from; None without one, or before it is trained."""
        return self.trained(spec.start, spec, options) if spec.start else None

    def teacher(self, spec: RunSpec, options: Options) -> Checkpoint | None:
        """The run's teacher; None without one, or before it is trained."""
        if spec.distil and spec.distil.teacher:
            return self._open(ModelSpec(spec.distil.teacher), options)
        return self.trained(spec.teacher, spec, options) if spec.distil else None

    def trained(self, prerequisite: RunSpec, spec: RunSpec, options: Options) -> Checkpoint | None:
        """The model that a prerequisite run of `spec` has trained; None before that."""
        folder = self.folder(prerequisite, spec, options)
        if not self.status(prerequisite, folder, options).has_model:
            return None
        return self._open(ModelSpec(folder), options, fresh=True)

    def folder(self, prerequisite: RunSpec, spec: RunSpec, options: Options) -> str:
        """The folder of a prerequisite run.

        Given by the options, else beside the run if its trained model is there, else in the store of prerequisites.
        """
        if options.start and prerequisite == spec.start:
            return options.start
        beside = Path(options.folder).parent
        for folder in (Store(str(beside)).folder(prerequisite), str(beside / prerequisite.name)):
            if self.status(prerequisite, folder, options).has_model:
                return folder
        return prior_store(options).folder(prerequisite)

    def status(self, prerequisite: RunSpec, folder: str, options: Options) -> Status:
        """The status of a prerequisite run in a folder. options: those of the dependent run."""
        if not Path(folder).is_dir():
            return Status("missing")
        own = replace(quiet_options(options), folder=folder, prior_store=prior_store(options).root)
        inputs = self.of(prerequisite, own)
        if not _depends_on_validation(prerequisite):
            inputs = {name: value for name, value in inputs.items() if not name.startswith("validation")}
        return status_of(folder, prerequisite, inputs, Needs(evaluate=False, model=True))

    def know(self, spec: RunSpec, options: Options, data: Mapping[str, Mapping[str, Any]]) -> None:
        """Adopt the row fingerprints of a run's record. data: as in RunRecord."""
        checkpoint = self._open(spec.model, options)
        without_test = replace(options, predict=False)  # as prerequisite runs read them
        for its in (options, without_test):
            kinds = needed_splits(spec, its)
            read = {split: rows_input(of) for split, of in data.items() if split.partition("_")[0] in kinds}
            self._rows[_rows_key(spec, its, checkpoint)] = read

    def _rows_of(self, spec: RunSpec, options: Options, checkpoint: Checkpoint | None) -> dict[str, Any]:
        key = _rows_key(spec, options, checkpoint)
        if key not in self._rows and spec.data.source == "hub":
            return {}
        if key not in self._rows:
            try:
                data = read_splits(
                    spec.data,
                    needed_splits(spec, options),
                    checkpoint=checkpoint,
                    test_file=options.test_file,
                    max_predict_samples=options.max_predict_samples,
                )
                rows = {split: [len(of), of.fingerprint()] for split, of in data.examples.items()}
            except UserError:
                rows = {}
            self._rows[key] = rows
        return self._rows[key]

    def _open(self, model: ModelSpec, options: Options, fresh: bool = False) -> Checkpoint | None:
        """Open a checkpoint. None if it cannot be opened here. fresh: open it again instead of reusing it."""
        key = model, options.hub
        if fresh or key not in self._checkpoints:
            try:
                self._checkpoints[key] = Checkpoint.open(*key)
            except UserError:
                self._checkpoints[key] = None
        return self._checkpoints[key]


def _depends_on_validation(spec: RunSpec) -> bool:
    """Whether the validation rows choose a run's layers, checkpoint or learning rate. If not, its trained model is the
    same with other rows."""
    other, schedule = (spec.train.other, spec.train.lr_scheduler_type) if spec.train else ({}, "")
    by_evaluation = other.get("load_best_model_at_end") or schedule in ADAPTIVE
    return spec.drop.score_split == "validation" or bool(by_evaluation)


def _rows_key(spec: RunSpec, options: Options, checkpoint: Checkpoint | None) -> tuple:
    labels = (tuple(checkpoint.label_names), head_kind(checkpoint)) if checkpoint else None
    splits = tuple(needed_splits(spec, options))
    test = (options.test_file, options.max_predict_samples) if "test" in splits else None
    return spec.data, splits, test, labels
