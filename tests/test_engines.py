"""Workers that die, sweeps that are killed, sweeps at the same time: no record is lost, none is made twice."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from layerdrop import engines
from layerdrop.engines import Job, LocalEngine, Place, places, record_failure, work
from layerdrop.runs import RunRecord, RunSpec
from layerdrop.study import read_study, status, sweep
from tests.sweeping import pretend

ROOT = Path(__file__).parent.parent
STUDY = "settings: {model_name_or_path: demo, task_name: demo-rte}\ngrid: {k: 0, seeds: [%s]}\n"


@pytest.fixture
def store(tmp_path):
    """A function: seeds -> the study of pretended runs with these."""

    def make(*seeds):
        (tmp_path / "s.yaml").write_text(STUDY % ", ".join(map(str, seeds)))
        return read_study(str(tmp_path / "s.yaml"), str(tmp_path / "store"), flags=("--use_cpu",))

    return make


@pytest.fixture
def engine():
    """A local engine with one worker."""
    made = LocalEngine(pretend, [Place((min(os.sched_getaffinity(0)),))])
    yield made
    made.close()


def test_a_worker_that_dies_input_that_is_unusable_and_a_defect(store, engine):
    study = store(1, 13, 14, 15, 2)
    progress = sweep(study, engine, lambda *_: None)
    assert sorted(record.spec.seed for record in progress.done) == [1, 2]
    errors = {job.spec.seed: error for job, error in progress.failed}
    assert set(errors) == {13, 14, 15} and "signal 9" in errors[13]
    assert errors[14] == "unusable" and errors[15] == "ZeroDivisionError: a defect"
    assert all(job.record().error == errors[job.spec.seed] for job in study.jobs if job.spec.seed in errors)
    done = study.jobs[0]
    assert done.record().metrics == {"accuracy": 1.0} and "hello" in (Path(done.folder) / "log.txt").read_text()
    assert "Traceback" in (Path(study.jobs[3].folder) / "log.txt").read_text()


def test_a_worker_sees_its_own_gpu_from_the_start(store, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    core = (min(os.sched_getaffinity(0)),)
    engine = LocalEngine(pretend, [Place(core, "3"), Place(core, "5")])
    study = store(1, 2)
    sweep(study, engine, lambda *_: None)
    engine.close()
    logs = sorted((Path(job.folder) / "log.txt").read_text() for job in study.jobs)
    assert "GPU 3" in logs[0] and "GPU 5" in logs[1] and "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_claimed_job_is_left_alone(store):
    job = store(1).jobs[0]
    with engines._claim(job):
        assert work(pretend, job) is None and job.record() is None
        record_failure(job, "died")
        assert job.record() is None
    assert work(pretend, job).status == "success"
    record_failure(job, "died")
    assert job.record().status == "success"


def test_done_is_not_done_again_and_failed_is(store):
    job = store(1).jobs[0]
    RunRecord(job.spec, job.folder, "failed", error="x").write()
    assert work(pretend, job).status == "success"
    work(pretend, job)
    assert (Path(job.folder).parent / "ledger.txt").read_text().count("begin") == 1


def test_places(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: 2**30 if name == "SC_PAGE_SIZE" else 9)
    assert places() == [Place((0, 2)), Place((1, 3))]  # 9 GiB: two workers
    assert places(4) == [Place((i,)) for i in range(4)]
    assert places(5)[4] == Place((0,))  # more workers than cores
    monkeypatch.setattr(engines, "_gpus", lambda: ["0", "3"])
    assert places() == [Place((0, 2), "0"), Place((1, 3), "3")]
    assert [place.gpu for place in places(runs_per_gpu=2)] == ["0", "0", "3", "3"]
    assert [place.gpu for place in places(3)] == ["0", "3", "0"]


def test_job_needs_its_own_record(tmp_path):
    spec = RunSpec("m", "rte", "hub")
    job = Job((), spec, str(tmp_path / "a"))
    RunRecord(RunSpec("m", "rte", "hub", seed=7), job.folder, "success").write()
    assert job.record() is None and job.name == "a"


# ---- kill -9 --------------------------------------------------------------------------------------------------------
def begin(folder: Path, workers: int = 2) -> subprocess.Popen:
    words = [sys.executable, "-m", "tests.sweeping", folder / "s.yaml", folder / "store", str(workers)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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
def test_killed_at_random_moments(store, tmp_path):
    """Of the sweep or a worker; then a last sweep finishes, with every record there and made once after success."""
    study = store(*range(20, 44))
    moments = random.Random(5)
    for _ in range(2):
        before = len(ledger(tmp_path))
        process = begin(tmp_path)
        until(lambda process=process, before=before: len(ledger(tmp_path)) > before or process.poll() is not None)
        time.sleep(moments.random() * 0.3)
        workers = children(process.pid)
        os.kill(moments.choice(workers), signal.SIGKILL)
        time.sleep(moments.random() * 0.2)
        process.kill()
        process.wait()
        until(lambda workers=workers: not any(Path(f"/proc/{pid}/task").exists() for pid in workers))  # none lives on
    assert 0 < sum(status(job) == "done" for job in study.jobs) < 24
    done_before = {job.spec.id for job in study.jobs if status(job) == "done"}
    begun_before = Counter(run for what, run in ledger(tmp_path) if what == "begin")
    out, err = begin(tmp_path).communicate(timeout=120)
    assert out.split() == [str(24 - len(done_before)), "0", str(len(done_before))], err
    assert all(job.record().metrics == {"accuracy": float(job.spec.seed)} for job in study.jobs)
    begun = Counter(run for what, run in ledger(tmp_path) if what == "begin")
    assert all(begun[run] == begun_before[run] for run in done_before)
    ended = Counter(run for what, run in ledger(tmp_path) if what == "end")
    assert len(ended) <= 24 and max(ended.values()) == 1


def test_two_sweeps_at_once(store, tmp_path):
    study = store(*range(20, 44))
    sweeps = [begin(tmp_path, workers=1) for _ in range(2)]
    outputs = [sweep.communicate(timeout=120) for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], outputs
    assert Counter(what for what, _ in ledger(tmp_path)) == {"begin": 24, "end": 24}
    assert {status(job) for job in study.jobs} == {"done"}
