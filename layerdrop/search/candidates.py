"""Score sets of layers by training without them, in a store, each set once."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from layerdrop.criteria.spec import DropSpec
from layerdrop.errors import UserError
from layerdrop.runs.inputs import Inputs
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import changed_inputs
from layerdrop.runs.store import Store
from layerdrop.search.methods import Ids
from layerdrop.sweeps.engines.base import Engine, Job, Result
from layerdrop.sweeps.execute import Progress, execute

ATTEMPTS = 2
"""Maximum number of trainings of a run whose model is needed."""


class Stopped(KeyboardInterrupt):
    """The user stopped a search; what is done stays in the store."""


class Candidates:
    """Scores of sets: of a model that is fine-tuned without these layers, on the run's development data.

    An Evaluate of layerdrop.search.methods. A set that any run of the store has trained (with the same settings but
    for its strategy) is not trained again.
    """

    def __init__(
        self,
        full_run: RunRecord,
        options: Options,
        store: Store,
        engine: Engine,
        *,
        seeds: Sequence[int],
        total: int,
        select_on: str | None = None,
        tell: Callable[[Progress, Result | None], Any] = lambda progress, result: None,
        stop: Callable[[], bool] = lambda: False,
    ):
        """full_run: the run in full depth, with the fingerprints of its inputs. total: number of trainings that will be
        asked for. select_on: a metric, or `loss`, which counts with the sign turned round; None: the task's
        `selection_metric`."""
        self.full_run, self.options, self.store, self.engine = full_run, options, store, engine
        self.seeds, self.total, self.select_on = tuple(seeds), total, select_on
        self.tell, self.stop = tell, stop
        self.inputs = Inputs()
        self.known = {_key_of(record): record for record in store.done() if record.metrics}
        self.records: dict[str, RunRecord] = {}
        """Of the trainings that were asked for and are done, by id."""
        self.failed: list[tuple[Job, str]] = []
        """Trainings that failed, and why."""

    def __call__(self, sets: Sequence[Ids]) -> list[tuple[float, ...]]:
        """One score a seed for each set, NaN for a training that failed. Raises Stopped, and UserError where every
        training failed."""
        return self.scores(sets, self._spec)

    def scores(self, sets: Sequence[Ids], spec_of: Callable[[Ids, int], RunSpec]) -> list[tuple[float, ...]]:
        """As a call, for runs of another kind. spec_of: (set, seed) -> the run."""
        keys = [(ids, seed) for ids in sets for seed in self.seeds]
        done = dict(zip(keys, self.train([spec_of(*key) for key in keys]), strict=True))
        return [tuple(self.score(done[ids, seed]) for seed in self.seeds) for ids in sets]

    def train(self, specs: Sequence[RunSpec], save_model: bool = False) -> list[RunRecord | None]:
        """Train the missing runs. The record of each run, earlier ones included; None for a failure. Raises as a call
        does.

        save_model: whether the models of runs that are done now are kept.
        """
        there = [self._known(spec) for spec in specs]
        missing = [spec for spec, record in zip(specs, there, strict=True) if record is None]
        for first in {first.id: first for spec in missing for first in spec.prerequisites}.values():
            self.model(first)
        before = [record for record in there if record]
        progress = execute(
            [self._job(spec, save_model) for spec in missing],
            self.engine,
            lambda progress, result: self.tell(self._of_the_whole(progress, before), result),
            self.stop,
            self.inputs,
        )
        if progress.stopped:
            raise Stopped
        if progress.changed:
            of = f"{len(progress.changed)} of {len(missing)} runs"
            raise UserError(
                f"{self.store.root}: {of} in this store were done with other inputs. {progress.failed[0][1]}"
            )
        self.failed += progress.failed
        found = [record or progress.records.get(spec.id) for spec, record in zip(specs, there, strict=True)]
        done = [record for record in found if record]
        if not done:
            job, error = progress.failed[0]
            raise UserError(f"none of {len(specs)} trainings has a score. {job.name}: {error}")
        self.records |= {record.id: record for record in done}
        self._check_contents()
        self.known |= {_key_of(record): record for record in done}
        return found

    def model(self, spec: RunSpec) -> str:
        """The folder of a run's trained model. A run whose model was not kept is done again. Raises as a call does."""
        folder = self.store.folder(spec)
        for _ in range(ATTEMPTS):
            status = self.inputs.status(spec, folder, self._job(spec, save_model=True).options)
            if status.has_model:
                self.records[status.record.id] = status.record
                return folder
            self.known.pop(_key(spec, spec.drop.layers), None)
            self.train([spec], save_model=True)
        raise UserError(f"{spec.name}: its model is needed. It was trained, but its model is not in {folder}.")

    def score(self, record: RunRecord | None) -> float:
        """Higher is better; NaN without a record. Raises UserError for a metric that was not measured."""
        if record is None:
            return math.nan
        name = self.select_on or record.task.selection_metric
        if name not in record.metrics:
            raise UserError(f"--select_on {name}: was not measured. Allowed: {', '.join(record.metrics)}.")
        return -record.metrics[name] if name == "loss" else record.metrics[name]

    def predicts_one_value(self, ids: Ids) -> bool:
        """Whether a model without these layers predicts the same for every row, with one of the seeds."""
        records = [self._known(self._spec(ids, seed)) for seed in self.seeds]
        return any(record is not None and record.constant_predictions("validation") for record in records)

    def trained(self) -> list[Ids]:
        """The sets that the store has trained with these settings and every seed, whoever asked for them."""
        settings = {_key(self._spec(frozenset(), seed), ())[0] for seed in self.seeds}
        seeds_of = Counter(ids for setting, ids in self.known if setting in settings)
        return [frozenset(ids) for ids, n in seeds_of.items() if n == len(self.seeds)]

    @property
    def metric(self) -> str:
        """The metric that counts; known once a training is done."""
        return self.select_on or next(iter(self.records.values())).task.selection_metric

    @property
    def cost(self) -> dict[str, float]:
        """Cost of all trainings that were asked for, earlier ones included: `trainings`, `steps`, `seconds` of whole
        runs (twice the time that two workers take)."""
        steps = sum(record.steps or 0 for record in self.records.values())
        seconds = sum(record.seconds.get("total", 0.0) for record in self.records.values())
        return {"trainings": len(self.records), "steps": steps, "seconds": seconds}

    def _check_contents(self) -> None:
        """Raise UserError for a run on other weights or rows: its scores cannot be compared."""
        for record in self.records.values():
            if changed := changed_inputs(record.inputs, self.full_run.inputs, record.spec):
                raise UserError(
                    f"{record.folder}: {' and '.join(changed)} changed since this run. Choose another --store."
                )

    def _known(self, spec: RunSpec) -> RunRecord | None:
        return self.known.get(_key(spec, spec.drop.layers))

    def _spec(self, ids: Ids, seed: int) -> RunSpec:
        drop = DropSpec("list", layers=tuple(sorted(ids))) if ids else DropSpec()
        return replace(self.full_run.spec, drop=drop, seed=seed)

    def _job(self, spec: RunSpec, save_model: bool) -> Job:
        options = replace(self.options, save_model=save_model, resume="auto", overwrite=False)
        return Job(spec, replace(options, folder=self.store.folder(spec), prior_store=self.store.root))

    def _of_the_whole(self, progress: Progress, before: list[RunRecord]) -> Progress:
        """A level's progress as the progress of the whole search."""
        already, failed = [*self.records.values(), *before, *progress.already], [*self.failed, *progress.failed]
        over = len(already) + len(progress.done) + len(failed)
        like = progress.done or already
        each = [record.seconds["total"] for record in like if "total" in record.seconds]
        left = progress.remaining
        if each and not progress.stopped:
            left = (self.total - over) * statistics.median(each) / self.engine.slots
        return replace(progress, total=self.total, already=already, failed=failed, remaining=left)


def _key(spec: RunSpec, ids: Iterable[int]) -> tuple[str, tuple[int, ...]]:
    """A key that is equal for runs with the same layers, drop time (`when`) and settings, whatever their strategy. ids:
    the checkpoint's."""
    return replace(spec, drop=DropSpec()).id, tuple(sorted(ids))


def _key_of(record: RunRecord) -> tuple[str, tuple[int, ...]]:
    there = [i for i in range(record.n_layers or 0) if i not in record.dropped_before]
    return _key(record.spec, (there.index(i) for i in record.dropped if i in there))
