"""An engine whose runs are made up, in this process."""

from layerdrop.engines.base import Result
from layerdrop.runs.record import RunRecord


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
            made.write()
            return [Result(job, made)]
        return [Result(job, error=made)]

    def close(self):
        """See Engine."""
