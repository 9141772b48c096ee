"""One job in a worker process: output to a file, failures to records, memory freed before the next job."""

import os
import pickle
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerdrop.errors import UserError
from layerdrop.runs.record import Run, RunRecord, read_record
from layerdrop.sweeps.engines.base import LOG_FILE, Job
from layerdrop.system.process import free_memory, prepare_process


def load_run(pickled: bytes) -> Run:
    """The function that executes a run, in a process that is prepared before the function's module imports torch."""
    prepare_process()
    return pickle.loads(pickled)


def work(run: Run, job: Job) -> RunRecord | None:
    """Execute a job. Returns its record, also of a failure; None: another process is at its folder.

    What the run prints is added to LOG_FILE.
    """
    from layerdrop.runs.environment import environment
    from layerdrop.runs.folder import Locked, lock_folder

    with _output_to(Path(job.options.folder) / LOG_FILE):
        try:
            with lock_folder(job.options.folder):
                pass  # raises Locked before the run reads its inputs
            return run(job.spec, job.options)
        except Locked:
            return None
        except UserError as error:
            reason = str(error)
        except Exception as error:
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
        finally:
            free_memory()
    return record_failure(job, reason, environment(job.options.use_cpu))


def record_failure(job: Job, error: str, environment: dict | None = None) -> RunRecord:
    """The record of a job that failed without one. It is written unless the folder holds a success, or the record of
    another run, or another process is at it.

    environment: where it failed; None if that is not known.
    """
    from layerdrop.runs.folder import Locked, lock_folder

    record = RunRecord(job.spec, job.options.folder, "failed", error=error, environment=environment or {})
    with suppress(Locked, UserError), lock_folder(job.options.folder):
        if _may_replace(job):
            record.write()
    return record


def _may_replace(job: Job) -> bool:
    try:
        record = read_record(job.options.folder)
    except ValueError:
        return True
    return record is None or (record.id == job.spec.id and record.status != "success")


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send the output of this process, compiled libraries included, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
