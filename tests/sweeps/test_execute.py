"""What is done, what is tried again, what another process is at, how long it takes: with runs that are made up."""

import shutil
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.spec import DataSpec
from layerdrop.errors import UserError
from layerdrop.finetune.spec import DistilSpec
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.sweeps import execute as module
from layerdrop.sweeps.engines.base import Job
from layerdrop.sweeps.execute import Estimate, execute, statuses
from tests.made_up import MadeUp, state_of, write_run


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.001)


@pytest.fixture
def make(tmp_path):
    """make(task, k, seed) -> a job; without a folder yet."""

    def call(task="rte", k=0, seed=1, model="m"):
        drop = DropSpec("top", k) if k else DropSpec()
        spec = RunSpec(ModelSpec(model), DataSpec(task), drop, seed=seed)
        return Job(spec, Options(str(tmp_path / spec.id), resume="auto"))

    return call


def success(job, seconds=10.0):
    return RunRecord(job.spec, job.options.folder, "success", metrics={"accuracy": 0.5}, seconds={"total": seconds})


def failure(job, error):
    return RunRecord(job.spec, job.options.folder, "failed", error=error)


def seeds(make, n=6):
    return [make(seed=seed) for seed in range(n, 0, -1)]


# ---- states ----------------------------------------------------------------------------------------------------------
def test_states(make):
    job = make()
    assert state_of(job) == "missing" and statuses([job])[0].note is None
    for status, word in [("failed", "failed"), ("running", "missing"), ("cancelled", "missing"), ("success", "done")]:
        write_run(replace(success(job), status=status), job.options)
        assert state_of(job) == word


def test_a_record_of_another_run_does_not_count(make):
    job, other = make(), make(seed=2)
    write_run(replace(success(other), folder=job.options.folder), job.options)
    assert state_of(job) == "other" and job.record() is None


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[1, 2]", b"{", b'{"spec": 3}'])
def test_an_unreadable_record_counts_as_missing_and_stays(make, content):
    """This tool writes records whole or not at all: it is the user's file, or the disk's fault."""
    job = make()
    Path(job.options.folder).mkdir()
    (Path(job.options.folder) / "record.json").write_bytes(content)
    status = statuses([job])[0]
    assert status.word == "missing" and job.record() is None
    assert "record.json: cannot be read" in status.note and status.note.endswith(". Move the file away")
    with pytest.raises(UserError, match="record.json. This run did not write it"):
        execute([job], MadeUp(success))
    assert (Path(job.options.folder) / "record.json").read_bytes() == content


def test_outputs_that_are_asked_for_later_are_missing(make):
    job = make()
    record = write_run(success(job), job.options)
    asked = replace(job, options=replace(job.options, predict=True))
    assert (state_of(job), state_of(asked)) == ("done", "incomplete")
    assert statuses([asked])[0].missing == ("RTE.tsv",)
    write_run(record, asked.options)
    assert state_of(asked) == "done"
    record.metrics = {}
    record.write()
    assert statuses([job])[0].missing == ("predictions_dev.tsv",)
    assert state_of(replace(job, options=replace(job.options, evaluate=False))) == "done"


@pytest.mark.parametrize("name", ["layers.json", "all_results.json", "README.md", "predictions_dev.tsv", "record.json"])
def test_a_file_that_a_kill_prevented_is_missing(make, name):
    job = make()
    write_run(success(job), job.options)
    assert state_of(job) == "done"
    (Path(job.options.folder) / name).unlink()
    if name == "record.json":
        assert state_of(job) == "missing"
    else:
        assert statuses([job])[0].missing == (name,) and not statuses([job])[0].must_train


def test_a_model_that_was_not_kept_is_missing_where_it_is_needed(make):
    kept = make()
    light = replace(kept, options=replace(kept.options, save_model=False))
    write_run(success(light), light.options)
    assert state_of(light) == "done" and state_of(kept) == "incomplete"
    assert statuses([kept])[0].must_train and not statuses([kept])[0].has_model
    write_run(success(kept), kept.options)
    assert state_of(light) == state_of(kept) == "done" and statuses([kept])[0].has_model
    (Path(kept.options.folder) / "model.safetensors").unlink()  # a configuration alone is no model
    assert state_of(kept) == "incomplete" and statuses([kept])[0].must_train
    (Path(kept.options.folder) / "model.safetensors").touch()
    (Path(kept.options.folder) / "config.json").unlink()
    assert state_of(kept) == "incomplete" and statuses([kept])[0].must_train
    predicted = replace(light, options=replace(light.options, predict=True))
    assert statuses([predicted])[0].must_train  # predictions need the model too


# ---- execution -------------------------------------------------------------------------------------------------------
def test_everything_once_in_order_and_then_nothing(make):
    study = seeds(make)
    engine = MadeUp(success)
    progress = execute(study, engine)
    assert [job.spec.seed for job in engine.started] == [6, 5, 4, 3, 2, 1]
    assert len(progress.done) == 6 and not progress.failed and {state_of(job) for job in study} == {"done"}
    again = MadeUp(success)
    progress = execute(study, again)
    assert len(progress.already) == progress.total == 6 and not again.started
    assert set(progress.records) == {job.spec.id for job in study}


def test_a_spec_that_comes_twice_is_one_run(make):
    """As a search may ask for it."""
    engine = MadeUp(success)
    progress = execute([make(), make(seed=2), make()], engine)
    assert [job.spec.seed for job in engine.started] == [1, 2] and progress.total == len(progress.records) == 2


def test_one_engine_for_several_calls(make):
    engine = MadeUp(success)
    execute([make()], engine)
    progress = execute([make(), make(seed=2)], engine)
    assert len(engine.started) == 2 and len(progress.already) == len(progress.done) == 1
    assert not execute([], engine).total


def test_failures_do_not_stop_the_others_and_are_done_again(make):
    study = seeds(make)
    broken = study[3]
    failed = replace(failure(broken, "training diverged"), environment={"device": "its own"})
    engine = MadeUp(lambda job: failed if job == broken else success(job))
    progress = execute(study, engine)
    assert len(progress.done) == 5 and progress.failed == [(broken, "training diverged")]
    assert len(engine.started) == 6  # it would diverge again
    advice = "Correct the cause, then repeat the command."
    assert progress.first_failure == f"{broken.name}: this run failed (training diverged). {advice}"
    broken.log.touch()  # a log without contents is not named
    assert progress.first_failure == f"{broken.name}: this run failed (training diverged). {advice}"
    broken.log.write_text("loss nan")
    assert f"(training diverged). See {broken.log}. {advice}" in progress.first_failure
    assert state_of(broken) == "failed" and broken.record().environment == {"device": "its own"}
    engine = MadeUp(success)
    execute(study, engine)
    assert engine.started == [broken] and state_of(broken) == "done"


@pytest.mark.parametrize("error", ["OutOfMemoryError: CUDA out of memory", "the worker process was ended by signal 9"])
def test_retried_once_where_that_can_help(make, error):
    study = seeds(make)
    bad, attempts = study[0], []

    def outcome(job):
        if job.spec != bad.spec:
            return success(job)
        attempts.append(job)
        return success(job) if len(attempts) == 2 else error

    assert not execute(study, MadeUp(outcome)).failed
    assert [job.options.notes for job in attempts] == [(), (f"second attempt; the first: {error}",)]
    study = [make(seed=7), make(seed=8)]
    progress = execute(study, MadeUp(lambda job: error if job.spec.seed == 7 else success(job)))
    assert [job.spec.seed for job, _ in progress.failed] == [7] and study[0].record().error == error
    assert len(progress.done) == 1


def test_a_run_of_another_process_is_waited_for(make):
    study, looks = seeds(make), []

    def outcome(job):
        if job != study[1]:
            return success(job)
        looks.append(job)
        return None if len(looks) < 3 else success(job)

    progress = execute(study, MadeUp(outcome))
    assert len(progress.done) == 6 and len(looks) == 3


def test_few_runs_of_other_processes_are_polled_at_once(make, monkeypatch):
    """All at once would occupy a core. After the first one that has finished, the others are polled without a pause."""
    study, now, started = seeds(make, 100), [0.0], []
    engine = MadeUp(lambda job: None)

    def sleep(seconds):
        if seconds == 0:
            return
        now[0] += seconds
        started.append(len(engine.started))
        if len(started) == 9:
            for job in study:
                write_run(success(job), job.options)

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    monkeypatch.setattr(module, "POLL", 1.0)
    assert len(execute(study, engine).done) == 100 and now[0] == 9.0
    assert started[0] == 101 and started[-1] == 101 + 8 * module.POLLED
    assert [after - before for before, after in pairwise(started)] == [module.POLLED] * 8


def test_a_run_that_another_process_did_meanwhile_is_not_started(make):
    """Not even to find that out: a worker would read its inputs first."""
    study = seeds(make, 3)

    def outcome(job):
        write_run(success(study[2]), study[2].options)
        return success(job)

    engine = MadeUp(outcome, slots=1)
    progress = execute(study, engine)
    assert [job.spec.seed for job in engine.started] == [3, 2] and len(progress.done) == 3


def test_stopping_finishes_what_is_in_flight(make):
    engine = MadeUp(success)
    progress = execute(seeds(make), engine, stop=lambda: len(engine.started) >= 2)
    assert progress.stopped and len(engine.started) == len(progress.done) == 2


def test_tell_hears_of_every_end_with_what_is_left(make):
    heard = []
    engine = MadeUp(lambda job: success(job, 10.0), slots=1)
    execute(seeds(make, 3), engine, lambda progress, result: heard.append((result.job.spec.seed, progress.remaining)))
    assert [seed for seed, _ in heard] == [3, 2, 1]
    assert [left for _, left in heard] == [20.0, 10.0, None]


# ---- estimates -------------------------------------------------------------------------------------------------------
def test_estimates_by_hand(make):
    full, other_seed, top = make(), make(seed=2), make(k=2)
    bottom = replace(top, spec=replace(top.spec, drop=DropSpec("bottom", 2)))
    other_task, other_model = make("sst2", 4), make("sst2", 4, model="n")
    estimate = Estimate()
    assert estimate.seconds(full) is None and estimate.remaining([full], slots=2) is None
    estimate = Estimate([success(full, 30.0), success(top, 10.0)])
    assert estimate.seconds(other_seed) == 30 and estimate.seconds(bottom) == 10  # same task and K
    assert estimate.seconds(make(k=4)) == estimate.seconds(other_task) == estimate.seconds(other_model) == 20
    assert Estimate(success(full, seconds) for seconds in (30.0, 10.0, 20.0)).seconds(full) == 20  # the median
    estimate.add(success(make("sst2", 1), 90.0))
    assert estimate.seconds(make(k=4)) == 20 and estimate.seconds(other_task) == 90  # same task
    estimate.add(success(make(model="n"), 1.0))
    assert estimate.seconds(other_model) == 1  # same model
    assert estimate.remaining([other_seed, bottom], slots=2) == 30  # no less than the longest
    assert estimate.remaining([other_seed, bottom, bottom, bottom], slots=2) == 30
    assert estimate.remaining([bottom] * 5, slots=2) == 25 and estimate.remaining([], slots=2) is None
    distilled = replace(top, spec=replace(top.spec, distil=DistilSpec("logits", teacher="t")))
    some = replace(top, spec=replace(top.spec, drop=DropSpec("list", layers=(1, 3))))
    assert estimate.seconds(distilled) == estimate.seconds(some) == 10  # same K
    estimate.add(success(distilled, 50.0))
    assert estimate.seconds(distilled) == 50 and estimate.seconds(top) == 10  # same training variant
    running = [(bottom, time.monotonic() - 4), (top, time.monotonic() - 99)]
    assert estimate.remaining([bottom], running, slots=1) == pytest.approx(10 + 6 + 0, abs=0.1)


def test_seconds_of_a_part_of_a_run_say_nothing(make):
    resumed = success(make(), 3.0)
    resumed.resumed_at_step = 7
    assert Estimate([resumed, replace(success(make()), seconds={})]).seconds(make()) is None


def test_a_store_that_is_deleted_during_a_sweep(make, tmp_path):
    """A finished run whose record is gone is not reported as done."""

    def outcome(job):
        if job.spec.seed == 2:
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
        return RunRecord(job.spec, job.options.folder, "success")

    progress = execute([make(seed=seed) for seed in (0, 1, 2)], MadeUp(outcome, slots=1))
    assert [record.spec.seed for record in progress.done] == [2]
    assert [job.spec.seed for job, error in progress.failed if "was deleted during this command" in error] == [0, 1]
