"""Score sets of layers by fine-tuning the model without these layers. Each set is trained once per store."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerdrop.criteria.spec import DropSpec
from layerdrop.data.tasks import check_metric
from layerdrop.errors import UserError
from layerdrop.runs.fingerprints import Fingerprints
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.status import changed_inputs, holds_model
from layerdrop.runs.store import Store
from layerdrop.search.methods import Ids
from layerdrop.sweeps.engines.base import Engine, Job, Result
from layerdrop.sweeps.execute import Progress, execute


class Stopped(KeyboardInterrupt):
    """The user stopped a search. Finished runs stay in the store."""


class Candidates:
    """An `Evaluate` of layerdrop.search.methods: fine-tune candidates, and score them on the run's validation rows.

    A set is not trained again if any run of the store has trained it with the same settings and any strategy.
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
        on_progress: Callable[[Progress, Result | None], Any] = lambda progress, result: None,
        stop: Callable[[], bool] = lambda: False,
    ):
        """full_run: the run of the full model, with the fingerprints of its inputs. total: number of trainings of the
        search. select_on: a metric or `loss` (negated); None: the task's `selection_metric`."""
        self.full_run, self.options, self.store, self.engine = full_run, options, store, engine
        self.seeds, self.total, self.select_on = tuple(seeds), total, select_on
        self.on_progress, self.stop = on_progress, stop
        self.inputs = Fingerprints()
        self.known = {_key_of(record): record for record in store.done() if record.metrics}
        self.records: dict[str, RunRecord] = {}
        """Id -> record of each finished training of this search."""
        self.failed: list[tuple[Job, str]] = []
        """Failed trainings, with their errors."""

    def __call__(self, sets: Sequence[Ids]) -> list[tuple[float, ...]]:
        """Return one score per seed for each set, NaN for a failed training.

        Raises Stopped, and UserError if every training failed.
        """
        keys = [(ids, seed) for ids in sets for seed in self.seeds]
        records = dict(zip(keys, self._train([self._spec(*key) for key in keys]), strict=True))
        return [tuple(self._score(records[ids, seed]) for seed in self.seeds) for ids in sets]

    def model(self, spec: RunSpec) -> str:
        """Train a run if its model is missing. Returns the folder of the model. Raises the errors of `__call__`."""
        self._train([spec], save_model=True)
        if not holds_model(folder := self.store.folder(spec)):
            raise UserError(
                f"{spec.name}: the run is done, but its model is not in {folder}. Delete the folder to repeat the run."
            )
        return folder

    def predicts_one_value(self, ids: Ids) -> bool:
        """Whether the model without these layers has constant predictions for at least one seed."""
        records = [self._known(self._spec(ids, seed)) for seed in self.seeds]
        return any(record is not None and record.constant_predictions("validation") for record in records)

    def trained(self) -> list[Ids]:
        """The sets that the store's runs have trained with these settings and every seed."""
        settings = {_key(self._spec(frozenset(), seed), ())[0] for seed in self.seeds}
        n_seeds = Counter(ids for setting, ids in self.known if setting in settings)
        return [frozenset(ids) for ids, n in n_seeds.items() if n == len(self.seeds)]

    @property
    def metric(self) -> str:
        """The selection metric. Known after the first training."""
        return self.select_on or next(iter(self.records.values())).task.selection_metric

    @property
    def cost(self) -> dict[str, float]:
        """Cost of all trainings of this search, including reused ones: `trainings`, `steps`, `seconds` of the runs.

        Parallel runs count separately. resumed: number of resumed trainings, whose seconds cover only a part.
        """
        records = self.records.values()
        steps = sum(record.steps or 0 for record in records)
        seconds = sum(record.seconds.get("total", 0.0) for record in records)
        resumed = sum(record.resumed_at_step is not None for record in records)
        return {"trainings": len(records), "steps": steps, "seconds": seconds, "resumed": resumed}

    def _train(self, specs: Sequence[RunSpec], save_model: bool = False) -> list[RunRecord | None]:
        """Train the missing runs. Returns their records, None for a failure. Raises the errors of `__call__`."""
        known = [None if save_model else self._known_elsewhere(spec) for spec in specs]
        missing = [spec for spec, record in zip(specs, known, strict=True) if record is None]
        for prerequisite in {run.id: run for spec in missing for run in spec.prerequisites}.values():
            self.model(prerequisite)
        before = [record for record in known if record]
        progress = execute(
            [self._job(spec, save_model) for spec in missing],
            self.engine,
            lambda progress, result: self.on_progress(self._whole_progress(progress, before), result),
            self.stop,
            self.inputs,
        )
        if progress.stopped:
            raise Stopped
        if progress.changed:
            runs = f"{len(progress.changed)} of {len(missing)} runs"
            raise UserError(
                f"{self.store.root}: {runs} in this store are done with other inputs. {progress.failed[0][1]}"
            )
        self.failed += progress.failed
        records = [record or progress.records.get(spec.id) for spec, record in zip(specs, known, strict=True)]
        done = [record for record in records if record]
        if not done:
            raise UserError(f"none of {len(specs)} trainings has a score. {progress.first_failure}")
        for record in done:
            if changed := changed_inputs(record.inputs, self.full_run.inputs, record.spec):
                raise UserError(
                    f"{record.folder}: {' and '.join(changed)} changed since this run. Choose another --store."
                )
            self.records[record.id] = self.known[_key_of(record)] = record
        return records

    def _score(self, record: RunRecord | None) -> float:
        """A score, higher is better; NaN without a record. Raises UserError for a metric that was not measured."""
        if record is None:
            return math.nan
        name = self.select_on or record.task.selection_metric
        check_metric("--select_on", name, record.spec.data.task, record.metrics)
        return -record.metrics[name] if name == "loss" else record.metrics[name]

    def _known(self, spec: RunSpec) -> RunRecord | None:
        return self.known.get(_key(spec, spec.drop.layers))

    def _known_elsewhere(self, spec: RunSpec) -> RunRecord | None:
        """A record from another folder than the run's own. `execute` completes the run's own folder after a kill."""
        record = self._known(spec)
        return record if record and Path(record.folder) != Path(self.store.folder(spec)) else None

    def _spec(self, ids: Ids, seed: int) -> RunSpec:
        drop = DropSpec("list", layers=tuple(sorted(ids))) if ids else DropSpec()
        return replace(self.full_run.spec, drop=drop, seed=seed)

    def _job(self, spec: RunSpec, save_model: bool) -> Job:
        options = replace(self.options, save_model=save_model, resume="auto", overwrite=False)
        return Job(spec, replace(options, folder=self.store.folder(spec), prior_store=self.store.root))

    def _whole_progress(self, progress: Progress, before: list[RunRecord]) -> Progress:
        """Convert the progress of one level to the progress of the whole search."""
        already, failed = [*self.records.values(), *before, *progress.already], [*self.failed, *progress.failed]
        whole = replace(progress, total=self.total, already=already, failed=failed)
        each = [record.seconds["total"] for record in progress.done or already if "total" in record.seconds]
        if each and not progress.stopped:
            whole.remaining = (self.total - whole.n_ended) * statistics.median(each) / self.engine.slots
        return whole


def _key(spec: RunSpec, ids: Iterable[int]) -> tuple[str, tuple[int, ...]]:
    """A key that is equal for runs with the same dropped layers, drop time (`when`) and settings.

    ids: dropped layers in the checkpoint's numbering.
    """
    return replace(spec, drop=DropSpec()).id, tuple(sorted(ids))


def _key_of(record: RunRecord) -> tuple[str, tuple[int, ...]]:
    present = [i for i in range(record.n_layers or 0) if i not in record.dropped_before]
    return _key(record.spec, (present.index(i) for i in record.dropped if i in present))
