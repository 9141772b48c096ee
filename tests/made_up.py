"""An engine whose runs are made up, in this process. This module must not import torch: workers import it."""

from layerdrop.runs.record import RECORD_FILE, RunRecord
from layerdrop.runs.results import result_files
from layerdrop.runs.status import MODEL, Needs, missing_outputs
from layerdrop.sweeps.engines.base import Result
from layerdrop.sweeps.engines.worker import work
from layerdrop.system.own_files import OwnFiles


def write_run(record, options=None):
    """Write a record after the outputs that its run is asked for; predictions and the model are empty files."""
    needs, own = Needs.of(options) if options else Needs(), OwnFiles(record.folder)
    record.data = {"validation": {"rows": 1}, "test": {"rows": 1}} | record.data
    record.metrics = record.metrics or {"accuracy": 0.5}
    files = {}
    if record.status == "success":
        files = dict.fromkeys(missing_outputs(record, {}, needs), "") | result_files(record)
        files |= {"config.json": "{}", "model.safetensors": ""} if files.pop(MODEL, None) is not None else {}
    own.write(files | {RECORD_FILE: record.to_json()})
    return record


def state_of(job) -> str:
    """The word of a job's status."""
    from layerdrop.sweeps.execute import statuses  # imports torch

    return statuses([job])[0].word


class MadeUp:
    """`outcome(job)` is the record to write, an error without one, or None (another process is at the folder)."""

    def __init__(self, outcome, slots=2):
        self.outcome, self.slots = outcome, slots
        self.started, self.pending = [], []

    def start(self, job):
        """See Engine."""
        assert len(self.pending) < self.slots
        self.started.append(job)
        self.pending.append(job)

    def wait(self, seconds):
        """See Engine."""
        job = self.pending.pop(0)
        made = self.outcome(job)
        if isinstance(made, RunRecord):
            write_run(made, job.options)
            return [Result(job, made)]
        return [Result(job, error=made)]

    def close(self):
        """See Engine."""


class InProcessEngine:
    """An engine that executes one job at a time, in this process."""

    slots = 1

    def __init__(self, run):
        self.run = run

    def start(self, job):
        """See Engine."""
        self.job = job

    def wait(self, seconds):
        """See Engine."""
        return [Result(self.job, work(self.run, self.job))]

    def close(self):
        """See Engine."""
