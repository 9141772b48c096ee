"""Execute runs with an engine: skip finished runs, retry, wait for runs of other processes, estimate the time left.

A study or a search gives the jobs. This module does not distinguish the two.
"""

import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from layerdrop.runs.fingerprints import Fingerprints
from layerdrop.runs.inputs import needed_splits, read_data
from layerdrop.runs.record import RECORD_FILE, RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.status import Needs, Status, status_of
from layerdrop.sweeps.engines.base import Engine, Job, Result
from layerdrop.sweeps.engines.worker import record_failure

WORTH_RETRYING = ("out of memory", "OutOfMemoryError", "MemoryError", "OSError", "the worker process", "CUDA error")
"""Parts of error messages that justify a second attempt. A diverged training or unusable data would fail again."""
ANOTHER_STORE = "Choose another --store to keep these results, or delete the folder to repeat the run."
POLL = 1.0
"""Polling interval for runs of other processes, in seconds."""
POLLED = 32
"""Number of runs of other processes to poll at once. With 1,000 such runs, polling all would take more than POLL."""


def statuses(jobs: Iterable[Job], inputs: Fingerprints | None = None) -> list[Status]:
    """Compare each job's folder with the requested outputs and the current inputs.

    inputs: computes the fingerprints of the inputs; None: create it.
    """
    inputs = inputs or Fingerprints()
    return [_status(job, inputs) for job in jobs]


def _status(job: Job, inputs: Fingerprints) -> Status:
    if not Path(job.options.folder).is_dir():
        return Status("missing")
    return status_of(job.options.folder, job.spec, inputs.of(job.spec, job.options), Needs.of(job.options))


def read_shared_data(jobs: Iterable[Job]) -> list[str]:
    """Read the data set that all jobs share, so that a fault is found before the first run. Returns notes on the data.

    Nothing is read if the jobs have several data sets, or no training set: then, the models decide the classes. Raises
    UserError for unusable data.
    """
    by_data = {(job.spec.data, tuple(needed_splits(job.spec, job.options))): job for job in jobs}
    if len(by_data) != 1:
        return []
    (((_, splits), job),) = by_data.items()
    return read_data(job.spec, job.options, splits).notes if "train" in splits else []


class Estimate:
    """Duration estimates from the records of finished runs."""

    def __init__(self, records: Iterable[RunRecord] = ()):
        self.durations: dict[tuple[object, ...], list[float]] = {}
        """Key -> seconds of its finished runs, ascending."""
        for record in records:
            self.add(record)

    def add(self, record: RunRecord) -> None:
        """Add a finished run. A resumed run is ignored, because its seconds cover only a part of the run."""
        if record.resumed_at_step is None and "total" in record.seconds:
            for key in self._keys(record.spec):
                insort(self.durations.setdefault(key, []), record.seconds["total"])

    @staticmethod
    def _keys(spec: RunSpec) -> list[tuple[object, ...]]:
        """Keys from specific to general: (model, task, K, training variant), then without the last items."""
        k, train = len(spec.drop.layers) or spec.drop.k, spec.train
        variant = spec.variants, train and train.num_train_epochs, train and train.max_steps
        key = spec.model.name, spec.data.task, k, variant
        return [key[:n] for n in range(len(key), -1, -1)]

    def seconds(self, job: Job) -> float | None:
        """Median seconds of the most similar finished runs; None if no run has finished."""
        for key in self._keys(job.spec):
            if durations := self.durations.get(key):
                n = len(durations)
                return (durations[(n - 1) // 2] + durations[n // 2]) / 2
        return None

    def remaining(self, waiting: list[Job], running: Iterable[tuple[Job, float]] = (), slots: int = 1) -> float | None:
        """Seconds until all jobs are done, at least the remaining seconds of the longest job; None if unknown.

        running: (job, start) as in Progress. A run that exceeds its estimate counts as 0 s.
        """
        now, left = time.monotonic(), []
        for job, began in [*((job, now) for job in waiting), *running]:
            if (seconds := self.seconds(job)) is None:
                return None
            left.append(max(0.0, seconds - (now - began)))
        return max(max(left), sum(left) / slots) if left else None


@dataclass
class Progress:
    """State of an execution. Ids are ids of specs."""

    total: int
    """Number of different runs."""
    already: list[RunRecord] = field(default_factory=list)
    """Records of the runs that were done before the execution."""
    running: dict[str, tuple[Job, float]] = field(default_factory=dict)
    """Id -> the running job, and its start (time.monotonic)."""
    done: list[RunRecord] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    """Ids of failed jobs whose folder has a finished run on other inputs. The folder is left unchanged."""
    elsewhere: list[Job] = field(default_factory=list)
    """Jobs that another process executes."""
    remaining: float | None = None
    """Estimated seconds left; None if unknown, or if no job is left."""
    stopped: bool = False

    @property
    def records(self) -> dict[str, RunRecord]:
        """Id -> the record of each finished run."""
        return {record.id: record for record in (*self.already, *self.done)}

    @property
    def first_failure(self) -> str:
        """The first failed run for a message: its name, its error, and its log if the run has written one."""
        job, error = self.failed[0]
        log = f" See {job.log}." if job.log.is_file() and job.log.stat().st_size else ""
        return f"{job.name}: this run failed ({error.rstrip('.')}).{log} Correct the cause, then repeat the command."

    @property
    def n_ended(self) -> int:
        """Number of runs that are done or failed."""
        return len(self.already) + len(self.done) + len(self.failed)


OnProgress = Callable[[Progress, Result | None], Any]


def execute(
    jobs: Iterable[Job],
    engine: Engine,
    on_progress: OnProgress = lambda progress, result: None,
    stop: Callable[[], bool] = lambda: False,
    inputs: Fingerprints | None = None,
) -> Progress:
    """Execute the unfinished jobs in their order, each spec once.

    on_progress: called at the end of each job and about once a second. stop: once it returns True, no more jobs are
    started. inputs: as in `statuses`.

    A failure with an error of WORTH_RETRYING is retried once. If another process executes a run, wait for its end. A
    finished run with changed inputs counts as failed, and its folder is left unchanged.
    """
    execution = _Execution(jobs, engine, on_progress, inputs or Fingerprints())
    progress = execution.progress
    while execution.waiting or progress.running or progress.elsewhere:
        if stop():
            progress.stopped = True
            execution.waiting.clear()
            progress.elsewhere.clear()
        execution.start_jobs()
        execution.wait()
    execution.check_records()
    return progress


class _Execution:
    def __init__(self, jobs: Iterable[Job], engine: Engine, on_progress: OnProgress, inputs: Fingerprints):
        self.engine, self.on_progress, self.inputs = engine, on_progress, inputs
        unique: dict[str, Job] = {}
        for job in jobs:
            unique.setdefault(job.spec.id, job)
        self.jobs = list(unique.values())
        states = statuses(self.jobs, inputs)
        done = [state.record for state in states if state.word == "done" and state.record]
        self.waiting = deque(job for job, state in zip(unique.values(), states, strict=True) if state.word != "done")
        self.progress, self.estimate = Progress(len(unique), done), Estimate(done)
        self.retried: set[str] = set()
        self.next_poll = 0.0

    def start_jobs(self) -> None:
        """Start jobs until the engine has no free slot."""
        progress = self.progress
        if progress.elsewhere and time.monotonic() >= self.next_poll:
            self.next_poll = time.monotonic() + POLL
            self.waiting.extend(progress.elsewhere[:POLLED])
            del progress.elsewhere[:POLLED]
        while self.waiting and len(progress.running) < self.engine.slots:
            job = self.waiting.popleft()
            state = _status(job, self.inputs)
            if state.word == "done":  # finished by another process
                self.next_poll = 0.0  # other runs may have finished, too
                self.end(Result(job, state.record))
            elif state.word == "changed" and not job.options.overwrite:
                progress.changed.add(job.spec.id)
                error = f"{state.note}. {ANOTHER_STORE}"
                progress.failed.append((job, error))
                self.report(Result(job, error=error))
            else:
                progress.running[job.spec.id] = job, time.monotonic()
                self.engine.start(job)

    def wait(self) -> None:
        """Wait until a job ends, but not much longer than POLL seconds."""
        results: list[Result] = []
        if self.progress.running:
            results = self.engine.wait(POLL)
        elif self.progress.elsewhere:
            time.sleep(max(0.0, min(POLL, self.next_poll - time.monotonic())))
        for result in results:
            del self.progress.running[result.job.spec.id]
            if result.record is None and result.error is None:
                self.progress.elsewhere.append(result.job)
            else:
                self.end(result)
        if not results:
            self.report(None)

    def end(self, result: Result) -> None:
        """Count a job as done or failed, or queue its second attempt."""
        job, record, progress = result.job, result.record, self.progress
        error = result.error or (record.error or record.status if record else "no record")
        retry = any(word in error for word in WORTH_RETRYING) and job.spec.id not in self.retried
        if record is not None and record.status == "success":
            progress.done.append(record)
            self.estimate.add(record)
        elif retry and not progress.stopped:
            self.retried.add(job.spec.id)
            note = f"second attempt; the first: {error}"
            self.waiting.append(replace(job, options=replace(job.options, notes=(*job.options.notes, note))))
        else:
            if record is None:
                record_failure(job, error)
            progress.failed.append((job, error))
        self.report(result)

    def check_records(self) -> None:
        """Count a finished run as failed if its record is gone: another program has deleted the store."""
        progress = self.progress
        for records in (progress.already, progress.done):
            lost = [record for record in records if not Path(record.folder, RECORD_FILE).exists()]
            for record in lost:
                records.remove(record)
                job = next(job for job in self.jobs if job.spec.id == record.id)
                error = f"{record.folder}: the record was deleted during this command. Repeat the command."
                progress.failed.append((job, error))
                self.report(Result(job, error=error))

    def report(self, result: Result | None) -> None:
        progress = self.progress
        left = [*self.waiting, *progress.elsewhere]
        progress.remaining = self.estimate.remaining(left, progress.running.values(), self.engine.slots)
        self.on_progress(progress, result)
