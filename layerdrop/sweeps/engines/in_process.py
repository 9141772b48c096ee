"""The process itself as an engine."""

from layerdrop.runs.record import Run
from layerdrop.sweeps.engines.base import Job, Result
from layerdrop.sweeps.engines.worker import work


class InProcessEngine:
    """An engine that executes one job at a time, in this process."""

    slots = 1

    def __init__(self, run: Run):
        self.run = run
        self.job: Job | None = None

    def start(self, job: Job) -> None:
        """See Engine."""
        self.job = job

    def wait(self, seconds: float) -> list[Result]:
        """Execute the job to its end, regardless of the seconds."""
        job, self.job = self.job, None
        return [Result(job, work(self.run, job))]

    def close(self) -> None:
        """See Engine."""
