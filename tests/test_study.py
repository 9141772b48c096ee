"""Studies: what a grid holds, what is done, and the sweep's bookkeeping, with runs that are made up."""

import io
import re
import time
from pathlib import Path

import pytest

from layerdrop import study
from layerdrop.engines import Result
from layerdrop.errors import UserError
from layerdrop.progress import Display, duration, plan, summary
from layerdrop.runs import RunRecord
from layerdrop.study import Estimate, read_study, status, sweep

CPU = ("--use_cpu",)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """write(yaml) -> the study in it, with its store in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "POLL", 0.001)

    def call(text: str, flags=(), **kwargs):
        Path("s.yaml").write_text(text)
        return read_study("s.yaml", "store", flags=(*CPU, *flags), **kwargs)

    return call


def what(job):
    spec = job.spec
    return spec.task, spec.strategy, spec.k, spec.seed


GRID = """
settings: {model_name_or_path: demo}
grid:
  tasks: [demo-rte, demo-sst2]
  strategies: [top, bottom]
  k: [0, 2]
  seeds: [1, 2]
"""


def test_the_full_model_is_one_run_for_all_strategies(write):
    made = write(GRID)
    per_task = [(None, None), ("top", 2), ("bottom", 2)]
    assert sorted(map(what, made.jobs), key=str) == sorted(
        [(task, *how, seed) for task in ("demo-rte", "demo-sst2") for how in per_task for seed in (1, 2)], key=str
    )
    assert len({job.folder for job in made.jobs}) == len({job.spec.id for job in made.jobs}) == 12
    assert made.jobs[0].folder == f"store/demo_demo-rte_full_k0_seed1_{made.jobs[0].spec.id[:8]}"


def test_a_study_without_a_run_is_refused(write):
    model = "settings: {model_name_or_path: demo}\n"
    with pytest.raises(UserError, match="holds no run"):
        write(model + "grid: {}")
    with pytest.raises(UserError, match="holds no run"):
        write(model + "grid: {tasks: demo-rte, k: 0}\nexclude: [{k: 0}]")
    with pytest.raises(UserError, match="none of its 2 runs is possible.*--drop_k 3"):
        write(model + "grid: {tasks: demo-rte, strategies: symmetric, k: 3, seeds: [1, 2]}")
    assert len(write(model + "grid: {}", axes={"tasks": ["demo-rte"]}).jobs) == 1


def test_errors_name_the_axis(write):
    with pytest.raises(UserError, match="^tasks: unknown value 'rto'"):
        write("grid: {tasks: rto, k: 0}")


def test_exclusions(write):
    made = write(GRID + "exclude: [{strategies: bottom, seeds: [1, 3]}, {tasks: demo-rte, k: 2, strategies: top}]")
    kept = set(map(what, made.jobs))
    assert ("demo-sst2", "bottom", 2, 1) not in kept and ("demo-sst2", "bottom", 2, 2) in kept
    assert ("demo-rte", "top", 2, 2) not in kept and ("demo-sst2", "top", 2, 2) in kept
    assert len(kept) == 12 - 2 - 2
    assert not any(job.spec.k is None for job in write(GRID + "exclude: [{k: 0}]").jobs)


def test_several_grids_any_flag_and_scalars(write):
    made = write(
        "settings: {model_name_or_path: demo, task_name: demo-rte}\n"
        "grid:\n- {learning_rate: [1e-4, 3e-4], k: 0}\n- {from_scratch: yes, k: 0, seeds: [42, 42]}\n"
    )
    assert [(job.spec.training["learning_rate"], job.spec.from_scratch) for job in made.jobs] == [
        (1e-4, False),
        (3e-4, False),
        (2e-5, True),
    ]


def test_axes_flags_and_recipe_of_the_command_line(write):
    Path("r.yaml").write_text("learning_rate: 5e-5\n")
    made = write(GRID, ["--num_train_epochs", "1"], axes={"tasks": ["demo-cola"], "k": [3]}, recipe="r.yaml")
    assert {job.spec.task for job in made.jobs} == {"demo-cola"} and {job.spec.k for job in made.jobs} == {3}
    assert all(job.spec.training["learning_rate"] == 5e-5 for job in made.jobs)
    assert all(job.spec.training["num_train_epochs"] == 1 for job in made.jobs)


def test_recipe_lies_beside_the_study(write, tmp_path):
    (tmp_path / "r.yaml").write_text("learning_rate: 5e-5\nseed: 9\n")
    made = write("recipe: r.yaml\nsettings: {model_name_or_path: demo, seed: 3}\ngrid: {tasks: demo-rte}")
    assert [(job.spec.training["learning_rate"], job.spec.seed) for job in made.jobs] == [(5e-5, 3)]


def test_what_cannot_be_is_named_and_not_run(write):
    made = write("settings: {model_name_or_path: demo, task_name: demo-rte}\ngrid: {strategies: symmetric, k: [4, 5]}")
    assert [job.spec.k for job in made.jobs] == [4]
    ((name, why),) = made.impossible.items()
    assert name == "demo_demo-rte_symmetric_k5_seed42" and "4 or 6" in why


def test_what_cannot_be_read_is_said(write):
    made = write("settings: {task_name: rte, drop_strategy: top}\ngrid: {models: [./no-such], k: [9], seeds: [1, 2]}")
    (text,) = made.unread
    assert len(made.jobs) == 2 and "no-such" in text and "was not checked" in text
    made = write("settings: {model_name_or_path: demo, task_name: rte, data_dir: nowhere}\ngrid: {seeds: [1, 2]}")
    assert made.unread == ["--data_dir nowhere: no such folder here."]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grids: {}", "unknown value 'grids'. Did you mean 'grid'?"),
        ("grid: {k: 0}\nsettings: {learning_rat: 1}", "--learning_rat: no such flag. Did you mean --learning_rate"),
        ("grid: {task: [rte]}", "s.yaml: grid: no axis 'task'. Did you mean 'tasks'?"),
        ("grid: {k: 0}\nexclude: [{strategy: top}]", "s.yaml: exclude: no axis 'strategy'. Did you mean 'strategies'?"),
        ("grid: {learning_rat: 1}", "no axis 'learning_rat'. Did you mean 'learning_rate'?"),
        ("grid: {tasks: [rto]}", "unknown value 'rto'. Did you mean 'rte'?"),
        ("grid: {k: [2]}", "k needs a strategy. Choose strategies: top"),
        ("grid: 3", "'grid' is a mapping"),
        ("grid: {k: []}", "holds no run"),
        ("recipe: none.yaml\ngrid: {k: 0}", "none.yaml: cannot read"),
        ("grid: {k: 0}\ngrid: {k: 1}", "'grid' is there twice"),
        ("- a", "a configuration is"),
    ],
)
def test_wrong_files(write, text, said):
    with pytest.raises(UserError, match=re.escape(said)):
        write(text)


# ---- sweeping -------------------------------------------------------------------------------------------------------
class MadeUp:
    """An engine of this process: `outcome(job)` is the record to write, an error without one, or None (elsewhere)."""

    def __init__(self, outcome, slots=2):
        self.outcome, self.slots = outcome, slots
        self.started = []
        self.pending = []

    def start(self, job):
        assert len(self.pending) < self.slots
        self.started.append(job)
        self.pending.append(job)

    def wait(self, seconds):
        job = self.pending.pop(0)
        made = self.outcome(job)
        if isinstance(made, RunRecord):
            made.write()
            return [Result(job, made)]
        return [Result(job, error=made)]


def success(job, seconds=10.0):
    return RunRecord(job.spec, job.folder, "success", metrics={"accuracy": 0.5}, seconds={"total": seconds})


def failure(job, error):
    return RunRecord(job.spec, job.folder, "failed", error=error)


def ignore(progress, result):
    pass


def test_everything_once_and_then_nothing(write):
    made = write(GRID)
    engine = MadeUp(success)
    progress = sweep(made, engine, ignore)
    assert [job.spec.id for job in engine.started] == [job.spec.id for job in made.jobs]
    assert len(progress.done) == 12 and not progress.failed and {status(job) for job in made.jobs} == {"done"}
    again = MadeUp(success)
    assert sweep(made, again, ignore).already == 12 and not again.started


def test_failures_do_not_stop_the_others_and_are_done_again(write):
    made = write(GRID)
    broken = made.jobs[3]
    engine = MadeUp(lambda job: failure(job, "training diverged") if job.spec == broken.spec else success(job))
    progress = sweep(made, engine, ignore)
    assert len(progress.done) == 11 and progress.failed == [(broken, "training diverged")]
    assert len(engine.started) == 12  # that it diverged, it would do again
    assert "failed     " + broken.name in summary(made, progress) and "11 done (0 of them before), 1 failed" in summary(
        made, progress
    )
    assert status(broken) == "failed" and "training diverged" in plan(made, 1)
    engine = MadeUp(success)
    sweep(made, engine, ignore)
    assert [job.spec.id for job in engine.started] == [broken.spec.id] and status(broken) == "done"


@pytest.mark.parametrize("error", ["OutOfMemoryError: CUDA out of memory", "the worker process was ended by signal 9"])
def test_retried_once_where_that_can_help(write, error):
    made = write(GRID)
    bad = made.jobs[0]
    attempts = []

    def outcome(job):
        if job.spec != bad.spec:
            return success(job)
        attempts.append(job)
        return success(job) if len(attempts) == 2 else error

    assert not sweep(made, MadeUp(outcome), ignore).failed
    assert attempts[1].note == f"second attempt; the first: {error}" and attempts[0].note is None

    made = write(GRID.replace("[1, 2]", "[3]"))
    attempts.clear()
    bad, said = made.jobs[0], io.StringIO()
    engine = MadeUp(lambda job: error if job.spec == bad.spec else success(job))
    progress = sweep(made, engine, Display(said).update)
    said = [line for line in said.getvalue().splitlines() if bad.name in line]
    assert [("failed" in line, "is tried once more" in line) for line in said] == [(True, True), (True, False)]
    assert [job.spec.id for job, _ in progress.failed] == [bad.spec.id] and bad.record().error == error
    assert len(progress.done) == 5


def test_what_another_sweep_is_at_is_waited_for(write):
    made = write(GRID)
    other = made.jobs[1]
    looks = []

    def outcome(job):
        if job.spec == other.spec:
            looks.append(job)
            return None if len(looks) < 3 else success(job)
        return success(job)

    progress = sweep(made, MadeUp(outcome), ignore)
    assert len(progress.done) == 12 and len(looks) == 3


def test_stopping_finishes_what_is_in_flight(write):
    made = write(GRID)
    engine = MadeUp(success)
    progress = sweep(made, engine, ignore, stop=lambda: len(engine.started) >= 2)
    assert progress.stopped and len(engine.started) == len(progress.done) == 2
    assert "10 missing" in summary(made, progress)


def test_estimates_by_hand(write):
    made = write(GRID)
    full, other_seed, top, _, bottom, *_ = made.jobs
    assert (what(full), what(top), what(bottom)) == (
        ("demo-rte", None, None, 1),
        ("demo-rte", "top", 2, 1),
        ("demo-rte", "bottom", 2, 1),
    )
    estimate = Estimate(made.jobs)
    assert estimate.seconds(full) is None and estimate.remaining(made.jobs, slots=2) is None
    success(full, 30.0).write()
    success(top, 10.0).write()
    estimate = Estimate(made.jobs)
    assert estimate.seconds(other_seed) == 30 and estimate.seconds(bottom) == 10  # same task and K
    assert estimate.seconds(made.jobs[-1]) == 20  # same model
    assert estimate.remaining([other_seed, bottom], slots=2) == 20 and estimate.remaining([bottom], slots=2) == 10
    running = {bottom.spec.id: (bottom, time.monotonic() - 4), top.spec.id: (top, time.monotonic() - 99)}
    assert estimate.remaining([other_seed], running, slots=3) == pytest.approx((30 + 6 + 0) / 3, abs=0.1)
    assert "12 runs: 2 done, 0 failed, 10 missing" in plan(made, 2) and "2 at once" in plan(made, 2)
    assert [duration(s) for s in (4, 120, 7200)] == ["4 s", "2 min", "2.0 h"]


def test_a_record_of_another_run_does_not_count(write):
    made = write(GRID)
    job, other = made.jobs[:2]
    record = success(other)
    record.folder = job.folder
    record.write()
    assert status(job) == "missing" and job.record() is None
