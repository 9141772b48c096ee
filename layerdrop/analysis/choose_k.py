"""Find the largest K within a maximum loss, and execute the needed runs. Protocol: layerdrop.analysis.tolerance."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layerdrop.analysis.tolerance import Tolerance, halves, largest_k, loss, next_k, score, standard_error
from layerdrop.checkpoints import Checkpoint, work_offline_unless_reachable
from layerdrop.data.tasks import Task, check_metric
from layerdrop.errors import UserError
from layerdrop.runs.checks import check_selection
from layerdrop.runs.folder import keeps_model
from layerdrop.runs.predictions import read_predictions
from layerdrop.runs.record import CHOICE_OF_K, RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.store import PRIOR_FOLDER, SCORE_FOLDER, Store, find_record
from layerdrop.surgery import droppable
from layerdrop.sweeps.engines.base import Job
from layerdrop.sweeps.execute import statuses
from layerdrop.sweeps.study import QUIET, Parse, refuse_flags_of_one_run

Train = Callable[[Sequence[Job]], dict[str, RunRecord]]
"""Execute runs. Returns id -> record. Raises UserError if a run fails, Stopped if the user stops."""


@dataclass(frozen=True)
class ToleranceSettings:
    """Settings of the choice of K."""

    max_loss: Sequence[float]
    seeds: Sequence[int]
    store: str
    """Folder of the runs."""
    k: Sequence[int] | None = None
    """Candidates for K; None: all."""
    percent: bool = False
    """Whether losses are in percent of the full model's score instead of points."""
    exhaustive: bool = False
    """Whether to try every K instead of bisection. Always with elastic depth, where one training serves every K."""
    finetune_chosen: bool = False
    """Whether to fine-tune the chosen model of an elastic training once more."""
    select_on: str | None = None
    """Metric of the losses; None: the task's selection metric."""


class TaskTolerance:
    """The runs and the result for one task: how many layers can be dropped."""

    def __init__(self, task: str | None, words: Sequence[str], settings: ToleranceSettings, parse: Parse):
        """task: None for own data. words: flags of a run. Raises UserError for bad flags."""
        refuse_flags_of_one_run(words)
        defaults = QUIET | {"eval_strategy": "no", "drop_strategy": "top", "task_name": task}
        self.settings, self.parse = settings, lambda *more: parse(defaults, [*words, *more])
        arguments = self.parse("--drop_k", "0")
        elastic = arguments.when.drop_when == "elastic"
        if elastic and arguments.when.elastic_k is None:
            defaults["elastic_k"] = [k for k in settings.k or () if k] or "all"
            arguments = self.parse("--drop_k", "0")
        if settings.finetune_chosen and not elastic:
            raise UserError("--finetune_chosen: fine-tunes a model of an elastic training. Add --drop_when elastic.")
        self.elastic, self.exhaustive = elastic, settings.exhaustive or elastic
        if arguments.needs_hub:
            work_offline_unless_reachable()
        self.gives_precision = arguments.gives_precision
        spec, options = arguments.to_spec()
        if not ((spec.train or spec.start) and options.evaluate):
            given = ", ".join(f"--{name}" for name in ("do_train", "do_eval", "do_predict") if name in arguments.given)
            raise UserError(f"{given}: choosing K trains and evaluates. Leave {given} out.")
        self.config = Checkpoint.open(spec.model, options.hub).config
        most = min(len(droppable(self.config)), self.config.num_hidden_layers - 1)
        if most < 1:
            named = f"--model_name_or_path {spec.model.name}"
            raise UserError(f"{named}: a model of one layer has no layer to drop. Give a deeper model.")
        all_k = sorted(set(settings.k or range(1, most + 1)))
        if wrong := [k for k in all_k if not 1 <= k <= most]:
            raise UserError(
                f"--k {' '.join(map(str, wrong))}: must be from 1 to {most} for this model. Leave out "
                f"{' '.join(map(str, wrong))}. The full model (K = 0) is always trained."
            )
        self.name = spec.data.task
        self.model = spec.model.name
        self.strategy = ", ".join((arguments.drop.drop_strategy, *spec.variants))
        """The strategy with its training variant."""
        self.keeps_model = options.save_model or not any(word.startswith("--save_model") for word in words)
        self.known: dict[int, list[RunRecord]] = {}
        """K -> records, one for each seed."""
        self.finetuned: list[RunRecord] = []
        """Records of the chosen K after a further fine-tuning, one for each seed."""
        self.scores: dict[tuple[str, int | None], float] = {}
        """(run id, half) -> score in points. Half None: both halves."""
        self.predictions: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        """Run id -> (labels, predictions) of the validation set, (n,) each."""
        self.jobs: dict[tuple[int, int, bool], Job] = {}
        """(K, seed, whether it is fine-tuned again) -> run."""
        self.impossible: dict[int, str] = {}
        """K that the strategy cannot drop -> reason."""
        for k in all_k:
            try:
                self.job(k, settings.seeds[0])
            except UserError as error:
                self.impossible[k] = error.text if error.flag == "--drop_k" else str(error)
        self.all_k = [k for k in all_k if k not in self.impossible]
        if not self.all_k:
            raise UserError(f"K = {all_k[0]}: {self.impossible[all_k[0]]}")

    def needed(self) -> list[Job]:
        """The runs to execute next; empty once every threshold is decided."""
        losses, settings = self._losses(), self.settings
        all_k = {k for max_loss in settings.max_loss for k in next_k(self.all_k, losses, max_loss, self.exhaustive)}
        return [self.job(k, seed) for k in sorted({0, *all_k} - self.known.keys()) for seed in settings.seeds]

    def unfinished(self) -> list[Job]:
        """The runs of `needed` that are not done."""
        jobs = self.needed()
        return [job for job, status in zip(jobs, statuses(jobs), strict=True) if status.word != "done"]

    def take(self, records: Mapping[str, RunRecord]) -> None:
        """Store the records of executed runs. records: id -> record."""
        for k in {0, *self.all_k} - self.known.keys():
            of_seeds = [records.get(self.job(k, seed).spec.id) for seed in self.settings.seeds]
            if all(of_seeds):
                self.known[k] = of_seeds

    @property
    def tolerances(self) -> list[Tolerance]:
        """One tolerance for each threshold, ascending. Valid once `needed` is empty."""
        losses, thresholds = self._losses(), sorted(self.settings.max_loss)
        return [largest_k(self.all_k, losses, max_loss, self.exhaustive) for max_loss in thresholds]

    @property
    def folder(self) -> str | None:
        """Folder of the model with the largest threshold's K and the first seed. None if no layer can be dropped, or
        models are not kept."""
        job = self.kept_job()
        return job and job.options.folder

    def kept_job(self) -> Job | None:
        """The run whose model to keep."""
        k = self.tolerances[-1].k
        if not (k and self.keeps_model):
            return None
        job = self.job(k, self.settings.seeds[0], self.settings.finetune_chosen)
        return Job(job.spec, replace(job.options, save_model=True))

    def further_trainings(self) -> list[Job]:
        """The further fine-tunings of the chosen K, one for each seed."""
        k = self.tolerances[-1].k if self.settings.finetune_chosen else 0
        jobs = [self.job(k, seed, finetune_again=True) for seed in self.settings.seeds] if k else []
        kept = self.kept_job()
        return [kept if kept and job.spec == kept.spec else job for job in jobs]

    def _losses(self) -> dict[int, float]:
        return {k: self.loss_at(k, 0) for k in self.known if k} if 0 in self.known else {}

    def job(self, k: int, seed: int, finetune_again: bool = False) -> Job:
        """The run of a K and a seed. Raises UserError if the strategy cannot drop K layers.

        finetune_again: whether the reduced model of an elastic training is fine-tuned once more.
        """
        key = k, seed, finetune_again
        if key not in self.jobs:
            again = ["--finetune_again"] if finetune_again else []
            spec, options = self.parse("--drop_k", str(k), "--seed", str(seed), *again).to_spec()
            check_selection(spec, self.config)
            prior = Path(self.settings.store) / PRIOR_FOLDER
            places = {"folder": Store(self.settings.store).folder(spec), "prior_store": str(prior)}
            places["score_store"] = options.score_store or str(prior / SCORE_FOLDER)
            save_model, notes = self._is_repeating(spec, places["folder"]), (*options.notes, CHOICE_OF_K)
            options = replace(options, **places, resume="auto", save_model=save_model, notes=notes)
            self.jobs[key] = Job(spec, options)
        return self.jobs[key]

    def _is_repeating(self, spec: RunSpec, folder: str) -> bool:
        """Whether a command was killed while it repeated this run to keep its model."""
        return self.keeps_model and keeps_model(folder) and find_record(folder, spec) is None

    @property
    def task(self) -> Task:
        """The task of the records."""
        return self.known[0][0].task

    @property
    def metric(self) -> str:
        """Name of the metric of the losses. Raises UserError for a metric that the task does not have."""
        metric = self.settings.select_on or self.task.selection_metric
        check_metric("--select_on", metric, self.name, self.task.metrics)
        return metric

    def n_rows(self, half: int) -> int:
        """Number of rows of a half."""
        return len(self._read(self.known[0][0], half)[0])

    def full_score(self, half: int | None) -> float:
        """Score of the full model in points, the median over seeds. half: as `loss_at`."""
        return statistics.median(self._score(record, half) for record in self.known[0])

    def standard_error(self, k: int, half: int | None) -> float:
        """Standard error of `loss_at` over the rows, the median over seeds. Unit and arguments as `loss_at`."""
        errors = []
        for full, cut in zip(self.known[0], self.known[k], strict=True):
            (labels, before), (_, after) = self._read(full, half), self._read(cut, half)
            errors.append(standard_error(before, after, labels, self.task, self.metric))
        whole = abs(self.full_score(half)) if self.settings.percent else 0
        return statistics.median(errors) * (100 / whole if whole else 1)

    def loss_at(self, k: int, half: int | None) -> float:
        """Loss with K dropped layers on a half of the validation set (0: to choose K, 1: to report, None: both)."""
        return self._loss(self.known[k], half)

    def loss_finetuned(self, half: int) -> float:
        """Loss of the chosen K after its further fine-tuning, as `loss_at`."""
        return self._loss(self.finetuned, half)

    def _loss(self, records: Sequence[RunRecord], half: int | None) -> float:
        full, cut = ([self._score(record, half) for record in of] for of in (self.known[0], records))
        return loss(full, cut, self.settings.percent)

    def _score(self, record: RunRecord, half: int | None) -> float:
        if (record.id, half) not in self.scores:
            labels, predictions = self._read(record, half)
            self.scores[record.id, half] = score(predictions, labels, np.arange(len(labels)), self.task, self.metric)
        return self.scores[record.id, half]

    def _read(self, record: RunRecord, half: int | None) -> tuple[np.ndarray, np.ndarray]:
        """(labels, predictions) of a run on a half, read from disk once. Raises UserError."""
        if record.id not in self.predictions:
            try:
                if (columns := read_predictions(record.folder)) is None:
                    raise ValueError("the file is missing")
                labels, predictions = map(self.task.kind.read, columns[1:])
            except ValueError as error:
                raise UserError(
                    f"{record.folder}: its predictions for the validation set cannot be read ({error}). Delete the "
                    "folder to repeat the run."
                ) from None
            self.predictions[record.id] = labels, predictions
        labels, predictions = self.predictions[record.id]
        if half is None:
            return labels, predictions
        rows = halves(labels, self.task)[half]
        return labels[rows], predictions[rows]


def find_tolerances(tasks: Sequence[TaskTolerance], train: Train, log: Callable[[str], None]) -> None:
    """Execute the runs of all tasks in parallel, and keep the chosen models.

    log: receives lines of progress. Raises the errors of `train`.
    """
    for task in tasks:
        for k, reason in task.impossible.items():
            log(f"note: K = {k} is not tried: {reason}")
    while jobs := [job for task in tasks for job in task.needed()]:
        records = train(jobs)
        for task in tasks:
            task.take(records)
    for task in tasks:
        for tolerance in task.tolerances:
            tried = f"{len(task.known) - 1} values of K tried"
            log(f"{task.name}: K = {tolerance.k} within a loss of {tolerance.max_loss:g} ({tried})")
    if further := [job for task in tasks for job in task.further_trainings()]:
        records = train(further)
        for task in tasks:
            task.finetuned = [records[job.spec.id] for job in task.further_trainings()]
    kept = [job for task in tasks if (job := task.kept_job())]
    for job, status in zip(kept, statuses(kept), strict=True):
        if not status.has_model:
            log(f"repeating {job.name} to keep its model")
    if kept:
        train(kept)
