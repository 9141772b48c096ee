"""Interface of engines, which execute jobs with a given function and return their records.

Workers import this module before they prepare their process: it must not import torch or numpy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec

LOG_FILE = "log.txt"
"""In a run's folder: the output of the run."""


@dataclass(frozen=True)
class Job:
    """A run to execute. Its folder is `options.folder`."""

    spec: RunSpec
    options: Options

    @property
    def name(self) -> str:
        """Name of the folder, without its parents."""
        return Path(self.options.folder).name

    def record(self) -> RunRecord | None:
        """The record of this run; None if its folder has no readable record."""
        from layerdrop.runs.store import find_record

        return find_record(self.options.folder, self.spec)


@dataclass(frozen=True)
class Result:
    """The result of a job. Without record and error, another process uses its folder."""

    job: Job
    record: RunRecord | None = None
    error: str | None = None
    """The reason for a missing record: the worker died."""


class Engine(Protocol):
    """Executor of up to `slots` jobs at once."""

    slots: int

    def start(self, job: Job) -> None:
        """Begin a job. At most `slots` jobs may be unfinished."""

    def wait(self, seconds: float) -> list[Result]:
        """Return the jobs that ended since the last call. Wait up to `seconds` for the first."""

    def close(self) -> None:
        """Terminate the workers."""
