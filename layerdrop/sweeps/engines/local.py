"""Persistent worker processes on this machine: each worker imports and tokenizes once for several runs.

Workers import this module before they prepare their process: it must not import torch or numpy.
"""

import multiprocessing
import os
import pickle
import threading
from contextlib import suppress
from multiprocessing.connection import Connection, wait

from tqdm import tqdm

from layerdrop.runs.record import Run
from layerdrop.sweeps.engines.base import LOG_FILE, Job, Result
from layerdrop.sweeps.engines.slots import WorkerSlot
from layerdrop.sweeps.engines.worker import load_run, work


class LocalEngine:
    """Engine with at most one worker process for each slot. A worker starts when a job needs it."""

    def __init__(self, run: Run, slots: list[WorkerSlot]):
        self.run, self.unused = pickle.dumps(run), list(slots)
        self.workers: list[_Worker] = []
        self.slots = len(slots)

    def start(self, job: Job) -> None:
        """Start a job on a free worker, or on a new one."""
        worker = next((worker for worker in self.workers if worker.job is None), None)
        if worker is None:
            worker = _Worker(self.run, self.unused.pop(0))
            self.workers.append(worker)
        worker.begin(job)

    def wait(self, seconds: float) -> list[Result]:
        """See Engine."""
        busy = [(worker, worker.job) for worker in self.workers if worker.job is not None]
        ready = wait([worker.connection for worker, _ in busy], seconds)
        return [worker.result(job) for worker, job in busy if worker.connection in ready]

    def close(self) -> None:
        """See Engine."""
        for worker in self.workers:
            worker.connection.close()  # an idle worker exits when its connection closes
            if worker.job is not None:
                worker.process.kill()
        for worker in self.workers:
            worker.process.join()


class _Worker:
    """A process that executes one job after another."""

    def __init__(self, run: bytes, slot: WorkerSlot):
        self.run, self.slot = run, slot
        self.job: Job | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, child_connection = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.run, self.slot, child_connection), daemon=True)
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        if self.slot.gpu is not None:  # CUDA reads the variable once, at its first use in a process
            os.environ["CUDA_VISIBLE_DEVICES"] = self.slot.gpu
        try:
            self.process.start()
        finally:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if before is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = before
        child_connection.close()

    def _restart(self) -> None:
        self.connection.close()
        self._start()

    def begin(self, job: Job) -> None:
        if not self.process.is_alive():  # the worker died while it was idle
            self._restart()
        self.job = job
        with suppress(OSError):  # the process has died: result() reports it
            self.connection.send(job)

    def result(self, job: Job) -> Result:
        """Return the result of the worker's job, which has ended. Start a new process if the worker died."""
        self.job = None
        try:
            return Result(job, self.connection.recv())
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self._restart()
            ending = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
            return Result(job, error=f"the worker process {ending} (out of memory? See {LOG_FILE} in the run's folder)")


def _serve(run: bytes, slot: WorkerSlot, connection: Connection) -> None:
    os.setsid()  # Ctrl-C is handled by the parent
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    tqdm.set_lock(threading.RLock())  # the default is a named semaphore, which a killed process would leave behind
    _use_cores(slot.cores)
    function = load_run(run)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(work(function, job))


def _end_with(sentinel: int) -> None:
    """Wait for the end of the process with this sentinel, then end this process."""
    wait([sentinel])
    os._exit(1)


def _use_cores(cores: tuple[int, ...]) -> None:
    """Pin this process to cores, with at most one thread on each. Call it before torch is imported."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    os.environ["OMP_NUM_THREADS"] = str(min(len(cores), int(allowed)) if allowed.isdecimal() else len(cores))
