"""Worker processes of this machine that stay warm. Imports and tokenised data are paid once for each.

Workers import this module before they prepare their process: it must not import torch or numpy.
"""

import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait

from layerdrop.runs.record import Run
from layerdrop.sweeps.engines.base import LOG_FILE, Job, Result
from layerdrop.sweeps.engines.slots import WorkerSlot
from layerdrop.sweeps.engines.worker import load_run, work


class LocalEngine:
    """An engine with one worker process for each place."""

    def __init__(self, run: Run, where: list[WorkerSlot]):
        self.workers = [_Worker(pickle.dumps(run), place) for place in where]
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


class _Worker:
    """A process that does one job after the other."""

    def __init__(self, run: bytes, place: WorkerSlot):
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
        if not self.process.is_alive():  # it died while it was idle
            self.connection.close()
            self._start()
        self.job = job
        with suppress(OSError):  # it has died since: result() says so
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


@contextmanager
def _seeing(gpu: str | None) -> Iterator[None]:
    """Processes that are started inside the block see this GPU alone; None: all GPUs of this process."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        yield
    finally:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _serve(run: bytes, place: WorkerSlot, connection: Connection) -> None:
    os.setsid()  # Ctrl-C is the sweep's to deal with
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    _use_cores(place.cores)
    function = load_run(run)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(work(function, job))


def _use_cores(cores: tuple[int, ...]) -> None:
    """Stay on these cores, with at most one thread on each; before torch is imported, which counts them once."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    os.environ["OMP_NUM_THREADS"] = str(min(len(cores), int(allowed)) if allowed.isdecimal() else len(cores))
