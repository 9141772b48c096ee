"""Execute one job in a worker process: redirect the output to a file, record a failure, free memory at the end."""

import os
import pickle
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerdrop.errors import UserError
from layerdrop.runs.record import Environment, Run, RunRecord, read_record
from layerdrop.sweeps.engines.base import Job
from layerdrop.system.faults import fault
from layerdrop.system.process import free_memory, prepare_process


def load_run(pickled: bytes) -> Run:
    """Prepare this process, then unpickle the function that executes a run. Unpickling imports torch."""
    prepare_process()
    run: Run = pickle.loads(pickled)
    return run


def work(run: Run, job: Job) -> RunRecord | None:
    """Execute a job, and append its output to `job.log`.

    Returns the record, also for a failed run. Returns None if another process uses the folder.
    """
    from layerdrop.runs.environment import environment
    from layerdrop.runs.folder import Locked, lock_folder

    try:
        with _output_to(job.log):
            try:
                with lock_folder(job.options.folder):
                    pass  # raise Locked before the run reads its inputs
                return run(job.spec, job.options)
            except Locked:
                return None
            except UserError as error:
                reason = str(error)
            except Exception as error:
                traceback.print_exc()
                reason = f"{type(error).__name__}: {fault(error) or error}"
            finally:
                free_memory()
    except OSError as error:  # the folder cannot be written
        reason = f"OSError: {fault(error) or error}"
    return record_failure(job, reason, environment(job.options.use_cpu))


def record_failure(job: Job, error: str, environment: Environment | None = None) -> RunRecord:
    """Return a record with status `failed` for a job that failed without a record.

    Write it into the folder, unless the folder is locked, or has the record of a success or of another run.
    environment: the environment of the failed run, if known.
    """
    from layerdrop.runs.folder import Locked, lock_folder

    record = RunRecord(job.spec, job.options.folder, "failed", error=error, environment=environment or {})
    with suppress(Locked, UserError, OSError), lock_folder(job.options.folder):
        try:
            old = read_record(job.options.folder)
        except ValueError:
            old = None
        if old is None or (old.id == job.spec.id and old.status != "success"):
            record.write()
    return record


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Append the output of this process, including compiled libraries, to a file."""
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
