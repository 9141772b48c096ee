"""Execute many runs with an engine: what is done already, retries, runs of other processes, progress, time left.

Studies and searches are lists of jobs; this module does not know what a job means.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.status import Needs, Status, status_of
from layerdrop.sweeps.engines.base import Engine, Job, Result
from layerdrop.sweeps.engines.worker import record_failure

if TYPE_CHECKING:
    from layerdrop.runs.inputs import Inputs

WORTH_RETRYING = ("out of memory", "OutOfMemoryError", "MemoryError", "OSError", "the worker process", "CUDA error")
"""Failures that are worth a second attempt. A diverged training or unusable data would fail again."""
ANOTHER_STORE = "Choose another --store to keep these results, or delete the folder to do the run again."
POLL = 1.0
"""Polling interval for runs of other processes, in seconds."""


# ---- what is done ----------------------------------------------------------------------------------------------------
def statuses(jobs: Iterable[Job], inputs: "Inputs | None" = None) -> list[Status]:
    """The state of each job, compared with its requested outputs and present inputs.

    inputs: computes fingerprints; None: a new one.
    """
    from layerdrop.runs.inputs import Inputs

    inputs = inputs or Inputs()
    return [_status(job, inputs) for job in jobs]


def _status(job: Job, inputs: "Inputs") -> Status:
    if not Path(job.options.folder).is_dir():
        return Status("missing")
    return status_of(job.options.folder, job.spec, inputs.of(job.spec, job.options), Needs.of(job.options))


# ---- how long it takes -----------------------------------------------------------------------------------------------
class Estimate:
    """How long runs will take, from the records of runs that are done."""

    def __init__(self, records: Iterable[RunRecord] = ()):
        self.seen: dict[tuple, list[float]] = {}
        for record in records:
            self.add(record)

    def add(self, record: RunRecord) -> None:
        """Add a run, unless it was resumed: its seconds cover a part alone."""
        if record.resumed_at_step is None and "total" in record.seconds:
            for key in self._keys(record.spec):
                self.seen.setdefault(key, []).append(record.seconds["total"])

    @staticmethod
    def _keys(spec: RunSpec) -> list[tuple]:
        model, task, drop, train = spec.model.name, spec.data.task, spec.drop, spec.train
        k = len(drop.layers) if drop.layers else drop.k
        how = spec.variants, train and train.num_train_epochs, train and train.max_steps
        return [(model, task, k, how), (model, task, k), (model, task), (model,), ()]

    def seconds(self, job: Job) -> float | None:
        """The median of the runs most like it: same model, task, K, training variant and epochs, or the first three,
        or the first two, or the first; None without any."""
        return next((statistics.median(self.seen[key]) for key in self._keys(job.spec) if key in self.seen), None)

    def remaining(self, waiting: list[Job], running: Iterable[tuple[Job, float]] = (), slots: int = 1) -> float | None:
        """Seconds until all these are done, at least as many as the longest takes; None if unknown.

        running: as in Progress. A run beyond its own estimate counts as 0 s.
        """
        each = [(self.seconds(job), 0.0) for job in waiting]
        each += [(self.seconds(job), time.monotonic() - began) for job, began in running]
        if not each or any(seconds is None for seconds, _ in each):
            return None
        left = [max(0.0, seconds - spent) for seconds, spent in each]
        return max(max(left), sum(left) / slots)


# ---- doing the rest --------------------------------------------------------------------------------------------------
@dataclass
class Progress:
    """Where an execution stands."""

    total: int
    """Different runs."""
    already: list[RunRecord] = field(default_factory=list)
    """Done before."""
    running: dict[str, tuple[Job, float]] = field(default_factory=dict)
    """Id of the spec -> the job in flight, and when it began (time.monotonic)."""
    done: list[RunRecord] = field(default_factory=list)
    failed: list[tuple[Job, str]] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    """Ids among the failed: runs that are done with other contents of their inputs, and that were left as they are."""
    elsewhere: list[Job] = field(default_factory=list)
    """Jobs that another process executes."""
    remaining: float | None = None
    """Seconds; None if unknown, or nothing is left."""
    stopped: bool = False

    @property
    def records(self) -> dict[str, RunRecord]:
        """Id of the spec -> the record of each run that is done."""
        return {record.id: record for record in (*self.already, *self.done)}


Tell = Callable[[Progress, Result | None], Any]


def execute(
    jobs: Iterable[Job],
    engine: Engine,
    tell: Tell = lambda progress, result: None,
    stop: Callable[[], bool] = lambda: False,
    inputs: "Inputs | None" = None,
) -> Progress:
    """Execute the unfinished jobs in their order, each spec once.

    tell: called at the end of each job and about once a second. stop: once it returns True, no more jobs are started.
    inputs: computes fingerprints; None: a new one. Failures of WORTH_RETRYING are retried once. Runs of other processes
    are awaited. A finished run with changed inputs fails without being started, because its folder holds the results
    of the old inputs.
    """
    this = _Execution(jobs, engine, tell, inputs)
    while this.is_unfinished():
        if stop():
            this.forget_waiting()
        this.fill()
        this.wait()
    return this.progress


class _Execution:
    def __init__(self, jobs: Iterable[Job], engine: Engine, tell: Tell, inputs: "Inputs | None"):
        from layerdrop.runs.inputs import Inputs

        unique: dict[str, Job] = {}
        for job in jobs:
            unique.setdefault(job.spec.id, job)
        self.inputs = inputs or Inputs()
        states = dict(zip(unique, statuses(unique.values(), self.inputs), strict=True))
        done = [state.record for state in states.values() if state.word == "done"]
        self.engine, self.tell = engine, tell
        self.progress = Progress(len(unique), done)
        self.waiting = deque(job for key, job in unique.items() if states[key].word != "done")
        self.estimate = Estimate(done)
        self.retried: set[str] = set()
        self.next_look = 0.0

    def is_unfinished(self) -> bool:
        return bool(self.waiting or self.progress.running or self.progress.elsewhere)

    def forget_waiting(self) -> None:
        self.progress.stopped = True
        self.waiting.clear()
        self.progress.elsewhere.clear()

    def fill(self) -> None:
        """Start as many jobs as the engine takes."""
        progress = self.progress
        if progress.elsewhere and time.monotonic() >= self.next_look:
            self.waiting.extend(progress.elsewhere)
            progress.elsewhere.clear()
        while self.waiting and len(progress.running) < self.engine.slots:
            job = self.waiting.popleft()
            state = _status(job, self.inputs)
            if state.word == "done":  # meanwhile, by another process
                self.settle(Result(job, state.record))
                self.report(Result(job, state.record))
                continue
            if state.word == "changed" and not job.options.overwrite:
                error = f"{state.note}. {ANOTHER_STORE}"
                progress.failed.append((job, error))
                progress.changed.add(job.spec.id)
                self.report(Result(job, error=error))
                continue
            progress.running[job.spec.id] = job, time.monotonic()
            self.engine.start(job)

    def wait(self) -> None:
        """Until a job ends, but not much longer than POLL seconds."""
        results: list[Result] = []
        if self.progress.running:
            results = self.engine.wait(POLL)
        elif self.progress.elsewhere:
            time.sleep(POLL)
        for result in results:
            del self.progress.running[result.job.spec.id]
            if result.record is None and result.error is None:
                self.progress.elsewhere.append(result.job)
                self.next_look = time.monotonic() + POLL
            else:
                self.settle(result)
                self.report(result)
        if not results:
            self.report(None)

    def settle(self, result: Result) -> None:
        """Count a job as done or failed, or queue its second attempt."""
        job, record, progress = result.job, result.record, self.progress
        if record is not None and record.status == "success":
            progress.done.append(record)
            self.estimate.add(record)
            return
        error = result.error or record.error or record.status
        if any(word in error for word in WORTH_RETRYING) and job.spec.id not in self.retried and not progress.stopped:
            self.retried.add(job.spec.id)
            note = f"second attempt; the first: {error}"
            self.waiting.append(replace(job, options=replace(job.options, notes=(*job.options.notes, note))))
            return
        if record is None:
            record_failure(job, error)
        progress.failed.append((job, error))

    def report(self, result: Result | None) -> None:
        progress = self.progress
        left = [*self.waiting, *progress.elsewhere]
        progress.remaining = self.estimate.remaining(left, progress.running.values(), self.engine.slots)
        self.tell(progress, result)
