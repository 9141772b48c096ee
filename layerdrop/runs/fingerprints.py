"""Fingerprints of a run's inputs: the checkpoint, its tokenizer, the rows of each split, the models of prerequisite
runs, the scored checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.data.read import row_fingerprints
from layerdrop.errors import UserError
from layerdrop.finetune.spec import ADAPTIVE
from layerdrop.runs.inputs import needed_splits, quiet_options
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import Needs, Status, status_of
from layerdrop.runs.store import Store, prior_store


class Fingerprints:
    """Fingerprints of inputs. Each checkpoint is opened once. Unreadable inputs have no fingerprint."""

    def __init__(self) -> None:
        self._checkpoints: dict[tuple[Any, ...], Checkpoint | None] = {}

    def of(self, spec: RunSpec, options: Options) -> dict[str, Any]:
        """Name -> fingerprint of every input, as in RunRecord.inputs.

        Rows of a hub dataset are included only if this process has read them, because reading takes seconds.
        """
        splits, test = needed_splits(spec, options), (options.test, options.max_predict_samples)
        try:
            rows = row_fingerprints(spec.data, splits, self._open(spec.model, options), *test)
        except UserError:
            rows = {}
        return self.models(spec, options) | rows

    def models(self, spec: RunSpec, options: Options) -> dict[str, str]:
        """Fingerprints of `model`, `tokenizer`, `start`, `teacher`, `score_on`. Models not trained yet are left out."""
        checkpoint = self._open(spec.model, options)
        models = {"start": self.start(spec, options), "teacher": self.teacher(spec, options)}
        if spec.drop.score_on:
            scored = ModelSpec(spec.drop.score_on, tokenizer=spec.model.tokenizer)
            models["score_on"] = self._open(scored, options)
        known = dict(checkpoint.fingerprints) if checkpoint else {}
        return known | {name: model.fingerprints["model"] for name, model in models.items() if model}

    def start(self, spec: RunSpec, options: Options) -> Checkpoint | None:
        """The start model; None if the run has no start model, or if it is not trained yet."""
        return self.trained(spec.start, spec, options) if spec.start else None

    def teacher(self, spec: RunSpec, options: Options) -> Checkpoint | None:
        """The teacher; None if the run has no teacher, or if it is not trained yet."""
        if spec.distil and spec.distil.teacher:
            return self._open(ModelSpec(spec.distil.teacher), options)
        return self.trained(spec.teacher, spec, options) if spec.distil and spec.teacher else None

    def trained(self, prerequisite: RunSpec, spec: RunSpec, options: Options) -> Checkpoint | None:
        """The model that a prerequisite run of `spec` has trained; None if it is not trained yet."""
        folder = self.folder(prerequisite, spec, options)
        if not self.status(prerequisite, folder, options).has_model:
            return None
        return self._open(ModelSpec(folder), options, fresh=True)

    def folder(self, prerequisite: RunSpec, spec: RunSpec, options: Options) -> str:
        """The folder of a prerequisite run.

        The first of: `options.start`; a folder next to the run's folder, if it holds the trained model; a folder in the
        prerequisite store.
        """
        if options.start and prerequisite == spec.start:
            return options.start
        parent = Path(options.folder).parent
        for folder in (Store(str(parent)).folder(prerequisite), str(parent / prerequisite.name)):
            if self.status(prerequisite, folder, options).has_model:
                return folder
        return prior_store(options).folder(prerequisite)

    def status(self, prerequisite: RunSpec, folder: str, options: Options) -> Status:
        """The status of a prerequisite run in a folder. options: the dependent run's options."""
        if not Path(folder).is_dir():
            return Status("missing")
        own = replace(quiet_options(options), folder=folder, prior_store=prior_store(options).root)
        inputs = self.of(prerequisite, own)
        if not _depends_on_validation(prerequisite):
            inputs = {name: value for name, value in inputs.items() if not name.startswith("validation")}
        return status_of(folder, prerequisite, inputs, Needs(evaluate=False, model=True))

    def _open(self, model: ModelSpec, options: Options, fresh: bool = False) -> Checkpoint | None:
        """Open a checkpoint; None if it is unreadable. fresh: open it again."""
        key = model, options.hub
        if fresh or key not in self._checkpoints:
            try:
                self._checkpoints[key] = Checkpoint.open(*key)
            except UserError:
                self._checkpoints[key] = None
        return self._checkpoints[key]


def _depends_on_validation(spec: RunSpec) -> bool:
    """Whether the validation rows determine a run's layers, best checkpoint or learning rate."""
    other, schedule = (spec.train.other, spec.train.lr_scheduler_type) if spec.train else ({}, "")
    by_evaluation = other.get("load_best_model_at_end") or schedule in ADAPTIVE
    return spec.drop.score_split == "validation" or bool(by_evaluation)
