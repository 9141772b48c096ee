"""Interface of execution engines. An engine executes jobs with a given function and returns their records.

Workers import this module before they prepare their process: it must not import torch or numpy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec

LOG_FILE = "log.txt"
"""Name of the file in a run's folder with the output of the run."""


@dataclass(frozen=True)
class Job:
    """A run to execute. Its folder is `options.folder`."""

    spec: RunSpec
    options: Options

    @property
    def name(self) -> str:
        """Name of the folder, without its parents."""
        return Path(self.options.folder).name

    @property
    def log(self) -> Path:
        """The file with the output of the run. A worker makes it."""
        return Path(self.options.folder) / LOG_FILE

    def record(self) -> RunRecord | None:
        """The record of the job's run; None if the folder has no readable record of this run."""
        from layerdrop.runs.store import find_record

        return find_record(self.options.folder, self.spec)


@dataclass(frozen=True)
class Result:
    """The result of a job. If record and error are None, another process uses the job's folder."""

    job: Job
    record: RunRecord | None = None
    error: str | None = None
    """Reason for a missing record, for example that the worker process died."""


class Engine(Protocol):
    """Executor of up to `slots` jobs at once."""

    slots: int

    def start(self, job: Job) -> None:
        """Start a job. Call it only if fewer than `slots` jobs are unfinished."""

    def wait(self, seconds: float) -> list[Result]:
        """Return the results of jobs that ended since the last call. Wait up to `seconds` for the first result."""

    def close(self) -> None:
        """Terminate the workers."""
