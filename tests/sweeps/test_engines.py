"""Workers that die, sweeps that are killed, sweeps at the same time: no record is lost, none is made twice."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from layerdrop.runs.folder import lock_folder
from layerdrop.runs.record import RunRecord
from layerdrop.sweeps.engines import local, slots, worker
from layerdrop.sweeps.engines.base import Result
from layerdrop.sweeps.engines.local import LocalEngine
from layerdrop.sweeps.engines.slots import WorkerSlot
from layerdrop.sweeps.engines.worker import load_run, record_failure, work
from layerdrop.sweeps.execute import execute
from layerdrop.system import process
from tests import sweeping
from tests.made_up import state_of
from tests.processes import Forked, wait_for_all
from tests.running import ROOT
from tests.sweeping import jobs, pretend

CORE = (min(os.sched_getaffinity(0)),) if hasattr(os, "sched_getaffinity") else (0,)
GIB = 2**30


@pytest.fixture
def store(tmp_path):
    """The folder of the runs of a test."""
    return str(tmp_path / "store")


@pytest.fixture(scope="module")
def engine():
    """A local engine with one worker."""
    made = LocalEngine(pretend, [WorkerSlot(CORE)])
    yield made
    made.close()


def log(job) -> str:
    return (Path(job.options.folder) / "log.txt").read_text()


# ---- workers ---------------------------------------------------------------------------------------------------------
def test_a_worker_that_dies_input_that_is_unusable_and_a_defect(store, engine):
    study = jobs(store, 1, 13, 14, 15, 2)
    progress = execute(study, engine)
    assert sorted(record.spec.seed for record in progress.done) == [1, 2]
    errors = {job.spec.seed: error for job, error in progress.failed}
    assert set(errors) == {13, 14, 15} and "signal 9" in errors[13]
    assert errors[14] == "unusable" and errors[15] == "ZeroDivisionError: a defect"
    assert all(job.record().error == errors[job.spec.seed] for job in study if job.spec.seed in errors)
    assert study[2].record().environment["versions"]["python"]
    assert study[0].record().metrics == {"accuracy": 1.0} and "hello" in log(study[0])
    assert "Traceback" in log(study[3]) and "Traceback" not in log(study[2])


def test_a_worker_is_prepared_before_torch_is_imported(store, engine):
    (job,) = jobs(store, 3)
    execute([job], engine)
    assert "torch False" in log(job) and f"cores {{{CORE[0]}}}" in log(job)


def test_preparation_comes_before_the_import_of_the_run(monkeypatch):
    events = []
    monkeypatch.setattr(worker, "prepare_process", lambda: events.append("prepare"))
    monkeypatch.setattr(pickle, "loads", lambda pickled: events.append(pickled))
    load_run(b"import")
    assert events == ["prepare", b"import"]


@pytest.mark.parametrize(("allowed", "threads"), [(None, "2"), ("1", "1"), ("8", "2"), ("2,1", "2")])
def test_threads_of_a_worker(monkeypatch, allowed, threads):
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", allowed or "")
    local._use_cores((0, 1))
    assert os.environ["OMP_NUM_THREADS"] == threads


def test_a_worker_that_dies_while_idle_is_replaced(store, engine):
    first, second = jobs(store, 4, 5)
    execute([first], engine)
    engine.workers[0].process.kill()
    engine.workers[0].process.join()
    assert len(execute([second], engine).done) == 1


def test_a_worker_that_dies_as_it_gets_its_job(store):
    """Neither the sweep nor the job is lost."""

    class Connection:
        def send(self, job):
            raise BrokenPipeError

    one = object.__new__(local._Worker)
    one.process, one.connection = type("Process", (), {"is_alive": lambda self: True})(), Connection()
    (job,) = jobs(store, 1)
    one.begin(job)
    assert one.job is job


PROGRAM = """
import sys, time
from pathlib import Path
from layerdrop.sweeps.engines.local import LocalEngine
from layerdrop.sweeps.engines.slots import WorkerSlot
from tests.sweeping import jobs, show_a_bar

(job,) = jobs(sys.argv[1], 1)
engine = LocalEngine(show_a_bar, [WorkerSlot((int(sys.argv[2]),))])
engine.start(job)
began, end = Path(job.options.folder, "began"), time.monotonic() + 60
while not began.exists() and time.monotonic() < end:
    time.sleep(0.02)
engine.close()
print(began.exists())
"""
"""Ends a worker in the middle of a run, as the second Ctrl-C does."""


def test_a_worker_that_is_ended_in_a_run_leaves_no_semaphore(store):
    """Python would report it on stderr."""
    words = [sys.executable, "-c", PROGRAM, store, str(CORE[0])]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_worker_sees_its_own_gpu_from_the_start(store, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    engine = LocalEngine(pretend, [WorkerSlot(CORE, "3"), WorkerSlot(CORE, "5")])
    study = jobs(store, 1, 2)
    execute(study, engine)
    engine.close()
    logs = sorted(log(job) for job in study)
    assert "GPU 3" in logs[0] and "GPU 5" in logs[1] and "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_worker_starts_when_a_job_needs_it(store, monkeypatch):
    class Worker:
        def __init__(self, run, slot):
            self.job = None
            started.append(slot.gpu)

        def begin(self, job):
            self.job = job

    started = []
    monkeypatch.setattr(local, "_Worker", Worker)
    engine = LocalEngine(pretend, [WorkerSlot(CORE, "0"), WorkerSlot(CORE, "1")])
    first, second, third = jobs(store, 1, 2, 3)
    assert engine.slots == 2 and not started
    engine.start(first)
    engine.workers[0].job = None  # it has ended
    engine.start(second)
    assert started == ["0"]
    engine.start(third)
    assert started == ["0", "1"] and [worker.job for worker in engine.workers] == [second, third]


def test_a_claimed_job_is_left_alone(store):
    (job,) = jobs(store, 1)
    began = []
    with lock_folder(job.options.folder):
        assert work(lambda *_: began.append(1), job) is None and job.record() is None
        assert not began  # not even its inputs are read
        record_failure(job, "died")
        assert job.record() is None
    assert work(pretend, job).status == "success"
    record_failure(job, "died")
    assert job.record().status == "success"


def test_a_failure_replaces_no_record_of_another_run(store):
    job, other = jobs(store, 1, 2)
    RunRecord(other.spec, job.options.folder, "failed", error="its own").write()
    assert record_failure(job, "died").error == "died"
    assert job.record() is None and replace(other, options=job.options).record().error == "its own"


def test_done_is_not_done_again_and_failed_is(store):
    (job,) = jobs(store, 1)
    RunRecord(job.spec, job.options.folder, "failed", error="x").write()
    assert work(pretend, job).status == "success"
    work(pretend, job)
    assert (Path(store) / "ledger.txt").read_text().count("begin") == 1


def test_memory_is_freed_between_runs(store, monkeypatch):
    """Garbage is collected before what is left, the imports, is exempted from collection."""
    events = []
    monkeypatch.setattr(process.gc, "collect", lambda: events.append("collect"))
    monkeypatch.setattr(process, "freeze_imports", lambda: events.append("exempt"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: events.append("empty"))
    work(pretend, jobs(store, 1)[0])
    assert events == ["collect", "exempt", "empty"]


def test_job_needs_its_own_record(store):
    job, other = jobs(store, 1, 7)
    RunRecord(other.spec, job.options.folder, "success").write()
    assert job.record() is None and job.name == f"demo_rte_full_k0_seed1_{job.spec.id[:8]}"
    assert Result(job).record is None


# ---- slots ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def machine(monkeypatch):
    """A function that makes up the available memory, in GiB, of a machine with four cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(slots, "visible_gpus", lambda: [])
    memory = type("Memory", (), {"available": 0})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    return lambda available: setattr(memory, "available", int(available * GIB))


def test_places_by_available_memory(machine):
    machine(9)
    assert slots.slots() == [WorkerSlot((0, 2)), WorkerSlot((1, 3))]  # 9 GiB: two workers
    assert slots.slots(4) == [WorkerSlot((i,)) for i in range(4)]
    assert slots.slots(5)[4] == WorkerSlot((0,))  # more workers than cores
    machine(0.5)
    assert slots.slots() == [WorkerSlot((0, 1, 2, 3))]  # never none
    machine(900)
    assert len(slots.slots()) == 4


def test_places_on_gpus(machine, monkeypatch):
    machine(0.5)
    monkeypatch.setattr(slots, "visible_gpus", lambda: ["0", "3"])
    assert slots.slots() == [WorkerSlot((0, 2), "0"), WorkerSlot((1, 3), "3")]
    assert [place.gpu for place in slots.slots(runs_per_gpu=2)] == ["0", "0", "3", "3"]
    assert [place.gpu for place in slots.slots(3)] == ["0", "3", "0"]


def test_places_where_the_system_has_no_affinity(machine, monkeypatch):
    machine(100)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sysconf", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert slots.slots() == [WorkerSlot((0,))]


@pytest.mark.parametrize(
    ("named", "gpus"),
    [(None, ["0", "1"]), ("", ["0", "1"]), ("4, 2,7", ["4", "2"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])],
)
def test_gpus_are_counted_without_a_context(monkeypatch, named, gpus):
    def initialise(*args, **kwargs):
        raise AssertionError("CUDA is initialised")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("_lazy_init", "init", "set_device", "current_device", "get_device_properties", "mem_get_info"):
        monkeypatch.setattr(torch.cuda, name, initialise)
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert slots.visible_gpus() == gpus
    assert [place.gpu for place in slots.slots()] == gpus


def test_a_worker_that_died_is_recorded_without_cuda(store, monkeypatch):
    """The record is written by the sweep itself, which must not make a context on the first GPU."""

    def initialise(*args, **kwargs):
        raise AssertionError("CUDA is initialised")

    for name in ("is_available", "get_device_name", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, initialise)
    (job,) = jobs(store, 1)
    record_failure(job, "died")
    assert job.record().error == "died" and job.record().status == "failed"


# ---- kill -9 ---------------------------------------------------------------------------------------------------------
SEEDS = tuple(range(20, 44))


def begin(folder: Path, workers: int = 2, name: str = "") -> Forked:
    """A sweep in a process of its own. Its workers are spawned."""
    return Forked(lambda: sweeping.main(str(folder / "store"), str(workers), *map(str, SEEDS)), name)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ledger(folder: Path) -> list[list[str]]:
    path = folder / "store" / "ledger.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_killed_at_random_moments(store, tmp_path, monkeypatch):
    """Of the sweep or a worker; then a last sweep finishes, with every record there and made once after success."""
    monkeypatch.chdir(tmp_path)
    study = jobs(store, *SEEDS)
    moments = random.Random(5)
    for _ in range(2):
        before = len(ledger(tmp_path))
        process = begin(tmp_path)
        until(lambda process=process, before=before: len(ledger(tmp_path)) > before or not process.process.is_alive())
        time.sleep(moments.random() * 0.3)
        workers = children(process.pid)
        os.kill(moments.choice(workers), signal.SIGKILL)
        time.sleep(moments.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda workers=workers: not any(Path(f"/proc/{pid}/task").exists() for pid in workers))  # none lives on
    assert 0 < sum(state_of(job) == "done" for job in study) < 24
    done_before = {job.spec.id for job in study if state_of(job) == "done"}
    begun_before = Counter(run for what, run in ledger(tmp_path) if what == "begin")
    _, out, err = begin(tmp_path).wait()
    assert out.split() == [str(24 - len(done_before)), "0", str(len(done_before))], err
    assert all(job.record().metrics == {"accuracy": float(job.spec.seed)} for job in study)
    begun = Counter(run for what, run in ledger(tmp_path) if what == "begin")
    assert all(begun[run] == begun_before[run] for run in done_before)
    ended = Counter(run for what, run in ledger(tmp_path) if what == "end")
    assert len(ended) <= 24 and max(ended.values()) == 1


def test_two_sweeps_at_once(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweeps = wait_for_all([begin(tmp_path, 1, name) for name in "ab"])
    assert [sweep.code for sweep in sweeps] == [0, 0], sweeps
    assert Counter(what for what, _ in ledger(tmp_path)) == {"begin": 24, "end": 24}
    assert {state_of(job) for job in jobs(store, *SEEDS)} == {"done"}
