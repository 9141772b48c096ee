"""Where runs execute: worker processes of this machine that stay warm, or a Ray cluster.

An engine does jobs and hands back their records. It is given the function that does a run (run_glue.run), so that what
a run is and where it happens know nothing of each other.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from layerdrop.arguments import Arguments, parse
from layerdrop.errors import UserError
from layerdrop.runs import RunRecord, RunSpec, checkpoints, environment, read_record

Run = Callable[[Arguments], RunRecord]
LOG_FILE = "log.txt"
"""In a run's folder: what the run printed."""


@dataclass(frozen=True)
class Job:
    """A run that is to be done: its flags (without the folder), its identity, its folder."""

    flags: tuple[str, ...]
    spec: RunSpec
    folder: str
    note: str | None = None
    """For the record: what came before."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return Path(self.folder).name

    def record(self) -> RunRecord | None:
        """The record of this very run, if its folder has one."""
        found = read_record(self.folder)
        return RunRecord.from_dict(found) if found and found.get("id") == self.spec.id else None


@dataclass(frozen=True)
class Result:
    """What became of a job. Neither record nor error: another process is at it."""

    job: Job
    record: RunRecord | None = None
    error: str | None = None
    """Why there is no record: the worker died."""


class Engine(Protocol):
    """Something that does up to `slots` jobs at once."""

    slots: int

    def start(self, job: Job) -> None:
        """Begin a job; at most `slots` may be unfinished."""

    def wait(self, seconds: float) -> list[Result]:
        """The jobs that ended since the last call; waits up to so many seconds for the first."""

    def close(self) -> None:
        """End the workers, whatever they are at."""


# ---- in the worker --------------------------------------------------------------------------------------------------
def work(run: Run, job: Job) -> RunRecord | None:
    """Do a job, unless its record is there already, or another process is at it (None).

    Whatever happened is in the record afterwards, also that the input could not be used.
    """
    import torch

    try:
        claim = _claim(job).acquire()
    except Timeout:
        return None
    try:
        with claim:
            record = job.record()
            if record is None or record.status != "success":
                with _output_to(Path(job.folder) / LOG_FILE):
                    record = _run(run, job)
            return record
    finally:
        gc.collect()  # the model of this run must not stand beside that of the next
        if not gc.get_freeze_count():
            gc.freeze()  # what is imported is not looked through again, which takes 0.3 s each time
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def record_failure(job: Job, error: str) -> None:
    """Write that a job's worker died, unless another process has done the job since, or is at it."""
    with suppress(Timeout), _claim(job):
        record = job.record()
        if record is None or record.status != "success":
            RunRecord(job.spec, job.folder, status="failed", error=error, environment=environment()).write()


def _claim(job: Job):
    """A lock for the time that a process is at a job; the operating system frees it however the process ends."""
    path = Path(job.folder).parent / ".locks" / f"{job.spec.id}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, timeout=0)


def _run(run: Run, job: Job) -> RunRecord:
    ways = [["--overwrite_output_dir"]]
    if checkpoints(job.folder):
        ways.insert(0, ["--resume_from_checkpoint", "last"])
    for how in ways:
        try:
            arguments = parse([*job.flags, "--output_dir", job.folder, *how])
            arguments.notes += [job.note] if job.note else []
            return run(arguments)
        except UserError as error:
            reason = str(error)
        except Exception as error:  # before its record began; what comes later is in the record that run returns
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
    record = RunRecord(job.spec, job.folder, status="failed", error=reason, environment=environment())
    record.write()
    return record


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send what this process prints, compiled libraries included, to the end of a file."""
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


# ---- this machine ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Place:
    """What a worker may use: some cores, and perhaps a GPU (as CUDA_VISIBLE_DEVICES names it)."""

    cores: tuple[int, ...]
    gpu: str | None = None


MEMORY_PER_WORKER = 4 * 2**30
"""Bytes that a worker on a CPU is expected to need at most, for a base-size model."""


def places(workers: int | None = None, runs_per_gpu: int = 1) -> list[Place]:
    """Where local workers go: `runs_per_gpu` on each GPU, or without a GPU one on each core, as far as memory allows.

    workers: so many instead. The cores are shared out evenly.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    gpus: list[str | None] = [gpu for gpu in _gpus() for _ in range(runs_per_gpu)]
    if not gpus:
        memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        gpus = [None] * (workers or max(1, min(len(cores), memory // MEMORY_PER_WORKER)))
    elif workers:
        gpus = [gpus[i % len(gpus)] for i in range(workers)]
    n = len(gpus)
    shares = [tuple(cores[i::n]) or (cores[i % len(cores)],) for i in range(n)]
    return [Place(share, gpu) for share, gpu in zip(shares, gpus, strict=True)]


def _gpus() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    n = torch.cuda.device_count()
    return named.split(",")[:n] if named else [str(i) for i in range(n)]


class _Worker:
    """A process that does one job after the other."""

    def __init__(self, run: Run, place: Place):
        self.run, self.place = run, place
        self.job: Job | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.run, self.place, theirs), daemon=True)
        with _seeing(self.place.gpu):
            self.process.start()
        theirs.close()

    def begin(self, job: Job) -> None:
        if not self.process.is_alive():  # it died while it had nothing to do
            self._start()
        self.job = job
        self.connection.send(job)

    def result(self) -> Result:
        """Of the job that ended, or whose worker did (a new one is started)."""
        job, self.job = self.job, None
        try:
            return Result(job, self.connection.recv())
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.connection.close()
            self._start()
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return Result(job, error=f"the worker process {how} (memory? see {LOG_FILE})")


class LocalEngine:
    """Worker processes of this machine, one for each place. Imports and tokenised data are paid once for each."""

    def __init__(self, run: Run, where: list[Place]):
        self.workers = [_Worker(run, place) for place in where]
        self.slots = len(self.workers)

    def start(self, job: Job) -> None:
        """Begin a job on a free worker."""
        next(worker for worker in self.workers if worker.job is None).begin(job)

    def wait(self, seconds: float) -> list[Result]:
        """See Engine."""
        busy = {worker.connection: worker for worker in self.workers if worker.job is not None}
        return [busy[connection].result() for connection in wait(list(busy), seconds)]

    def close(self) -> None:
        """See Engine."""
        for worker in self.workers:
            worker.connection.close()  # one that is idle ends by itself
            if worker.job is not None:
                worker.process.kill()
        for worker in self.workers:
            worker.process.join()


@contextmanager
def _seeing(gpu: str | None) -> Iterator[None]:
    """Let a process that is started here see this GPU alone, from its first import on; None: all that are seen here."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        yield
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _serve(run: Run, place: Place, connection: Connection) -> None:
    os.setsid()  # Ctrl-C is the sweep's to deal with
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, place.cores)
    import torch

    torch.set_num_threads(min(len(place.cores), torch.get_num_threads()))  # which OMP_NUM_THREADS may limit
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(work(run, job))


# ---- a Ray cluster --------------------------------------------------------------------------------------------------
class RayEngine:
    """Jobs as tasks of an existing Ray cluster; what a lost node was at is done again elsewhere.

    The store must be a folder that all nodes share, and the code must lie at the same path on each.
    """

    def __init__(self, run: Run, address: str, runs_per_gpu: int = 1, cores_per_run: int = 1):
        try:
            import ray
        except ImportError:
            raise UserError("--engine ray: Ray is not installed. Do: pip install 'ray>=2.40'") from None
        self.ray = ray
        _check_address(address)
        root = str(Path(__file__).resolve().parent.parent)
        try:
            ray.init(address=address, runtime_env={"env_vars": {"PYTHONPATH": root}}, log_to_driver=False)
        except ConnectionError as error:
            raise UserError(
                f"--address {address}: no Ray cluster there ({error}). Start one: ray start --head"
            ) from None
        have = ray.cluster_resources()
        gpus, cores = have.get("GPU", 0), have.get("CPU", 0)
        self.slots = max(1, int(gpus * runs_per_gpu if gpus else cores // cores_per_run))
        self.task = ray.remote(_work_on_node).options(
            num_cpus=cores_per_run if not gpus else 0,
            num_gpus=1 / runs_per_gpu if gpus else 0,
            max_retries=3,
        )
        self.run, self.cores_per_run = run, cores_per_run
        self.jobs: dict = {}

    def start(self, job: Job) -> None:
        """See Engine."""
        self.jobs[self.task.remote(self.run, job, self.cores_per_run)] = job

    def wait(self, seconds: float) -> list[Result]:
        """See Engine."""
        ended, _ = self.ray.wait(list(self.jobs), num_returns=1, timeout=seconds) if self.jobs else ([], [])
        results = []
        for reference in ended:
            job = self.jobs.pop(reference)
            try:
                results.append(Result(job, self.ray.get(reference)))
            except self.ray.exceptions.RayError as error:
                results.append(Result(job, error=" ".join(str(error).split())[:300]))
        return results

    def close(self) -> None:
        """See Engine."""
        for reference in self.jobs:
            self.ray.cancel(reference, force=True)
        self.ray.shutdown()


def _check_address(address: str) -> None:
    """Raise UserError at once where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # auto, local
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"--address {address}: no Ray cluster there ({error.strerror or error}). Start one: ray start --head"
        ) from None


def _work_on_node(run: Run, job: Job, cores: int) -> RunRecord | None:
    import torch

    torch.set_num_threads(cores)
    return work(run, job)
