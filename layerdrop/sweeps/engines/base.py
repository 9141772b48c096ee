"""Engines execute jobs with a given function, and return their records.

Workers import this module before they prepare their process: it must not import torch or numpy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec

LOG_FILE = "log.txt"
"""In a run's folder: what the run printed."""


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
        """The record of this very run; None if its folder has none that can be read."""
        from layerdrop.runs.store import find_record

        return find_record(self.options.folder, self.spec)


@dataclass(frozen=True)
class Result:
    """The end of a job. Neither record nor error: another process is at its folder."""

    job: Job
    record: RunRecord | None = None
    error: str | None = None
    """Why there is no record: the worker died."""


class Engine(Protocol):
    """Executes up to `slots` jobs at once."""

    slots: int

    def start(self, job: Job) -> None:
        """Begin a job; at most `slots` may be unfinished."""

    def wait(self, seconds: float) -> list[Result]:
        """The jobs that ended since the last call; waits up to `seconds` for the first."""

    def close(self) -> None:
        """Terminate the workers."""
