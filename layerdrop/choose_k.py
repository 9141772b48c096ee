"""How many layers a task can lose, from runs that are done as they are needed: see layerdrop.analysis.tolerance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layerdrop.analysis.tolerance import Tolerance, halves, largest_k, loss, score
from layerdrop.arguments import flags_of, parse
from layerdrop.checkpoints import Checkpoint, HubOptions, work_offline_unless_reachable
from layerdrop.engines.base import Job
from layerdrop.errors import UserError
from layerdrop.runs.predictions import as_numbers, read_predictions
from layerdrop.runs.record import RunRecord
from layerdrop.runs.store import PRIOR_FOLDER, SCORE_FOLDER, Store, forget_unless_kept, holds_trained
from layerdrop.selection import check_selection
from layerdrop.study import QUIET, refuse_flags_of_one_run
from layerdrop.surgery import droppable
from layerdrop.tasks import Task

Train = Callable[[Sequence[Job]], dict[str, RunRecord]]
"""Id -> record of every run. Raises UserError for a failure, Stopped where the user stops."""


@dataclass(frozen=True)
class Protocol:
    """How K is chosen."""

    max_loss: Sequence[float]
    seeds: Sequence[int]
    store: str
    """Folder of the runs."""
    k: Sequence[int] | None = None
    """Numbers of layers to choose from; None: all."""
    percent: bool = False
    """Whether losses are in percent of the full model's score, or in points."""
    exhaustive: bool = False
    """Whether every K is tried."""


class Question:
    """How many layers a task can lose."""

    def __init__(self, task: str, words: Sequence[str], protocol: Protocol):
        """words: flags of run_glue.py. Raises UserError for what is wrong with them."""
        refuse_flags_of_one_run(words)
        settings = flags_of(QUIET | {"eval_strategy": "no", "drop_strategy": "top", "task_name": task})
        self.protocol, self.words = protocol, [*settings, *words]
        arguments = parse([*self.words, "--drop_k", "0"])
        if arguments.needs_hub:
            work_offline_unless_reachable()
        self.gives_precision = bool({"precision", "bf16", "fp16"} & arguments.given)
        spec, options = arguments.to_spec()
        if not (spec.train and options.evaluate):
            raise UserError("--do_train, --do_eval, --do_predict: choosing K trains and evaluates. Leave them out.")
        self.config = Checkpoint.open(spec.model, HubOptions.of(options)).config
        most = min(len(droppable(self.config)), self.config.num_hidden_layers - 1)
        self.all_k = sorted(set(protocol.k or range(1, most + 1)))
        if not 1 <= self.all_k[0] <= self.all_k[-1] <= most:
            raise UserError(f"--k {' '.join(map(str, self.all_k))}: this model can lose 1 to {most} layers.")
        self.model, self.strategy = spec.model.name, arguments.drop.drop_strategy
        self.keeps_model = options.save_model or not any(word.startswith("--save_model") for word in words)
        self.known: dict[int, list[RunRecord]] = {}
        """K -> the records, one for each seed."""
        self.answers: list[Tolerance] = []
        self.folder: str | None = None

    def answer(self, train: Train, say: Callable[[str], None]) -> None:
        """Choose K for every threshold. train: does the runs that this takes. say: hears how it goes. Raises as `train`
        does."""
        self.train, self.say = train, say
        self.runs(0)
        possible = self.possible()
        for max_loss in sorted(self.protocol.max_loss):
            answer = largest_k(possible, lambda k: self.loss_at(k, 0), max_loss, self.protocol.exhaustive)
            self.answers.append(answer)
            say(f"{self.task.name}: K = {answer.k} within {max_loss:g}, after {len(self.known) - 1} tried")
        if self.answers[-1].k and self.keeps_model:
            self.folder = self.keep(self.answers[-1].k)

    def possible(self) -> list[int]:
        """The K that the strategy can drop."""
        found = []
        for k in self.all_k:
            try:
                self.job(k, self.protocol.seeds[0])
                found.append(k)
            except UserError as error:
                self.say(f"note: {error}")
        return found

    def job(self, k: int, seed: int, save_model: bool = False) -> Job:
        """The run of a K and a seed. Raises UserError where the strategy cannot drop so many."""
        spec, options = parse([*self.words, "--drop_k", str(k), "--seed", str(seed)]).to_spec()
        check_selection(spec.drop, (), self.config)
        prior = Path(self.protocol.store) / PRIOR_FOLDER
        places = {"folder": Store(self.protocol.store).folder(spec), "prior_store": str(prior)}
        places["score_store"] = options.score_store or str(prior / SCORE_FOLDER)
        return Job(spec, replace(options, **places, resume="auto", save_model=save_model))

    def runs(self, k: int) -> list[RunRecord]:
        """The records of a K, one for each seed; done where they are missing."""
        if k not in self.known:
            jobs = [self.job(k, seed) for seed in self.protocol.seeds]
            records = self.train(jobs)
            self.known[k] = [records[job.spec.id] for job in jobs]
        return self.known[k]

    def keep(self, k: int) -> str:
        """The folder of the model that was chosen, with the first seed; it is trained again if it was not kept."""
        job = self.job(k, self.protocol.seeds[0], save_model=True)
        while not holds_trained(job.options.folder, job.spec):
            self.say(f"{job.name} once more, to keep its model")
            forget_unless_kept(job.options.folder, job.spec)
            self.train([job])
        return job.options.folder

    @property
    def task(self) -> Task:
        """Of the records."""
        return self.known[0][0].task

    def loss_at(self, k: int, half: int) -> float:
        """On one of the halves."""
        full, cut = ([self._score(record, half) for record in self.runs(of)] for of in (0, k))
        return loss(full, cut, self.protocol.percent)

    def _score(self, record: RunRecord, half: int) -> float:
        labels, predictions = (as_numbers(self.task, shown) for shown in read_predictions(record.folder)[1:])
        return score(predictions, labels, halves(labels, self.task)[half], self.task)
