"""What a person reads: the plan, the line of each run, the time that is left, the summary."""

import io
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from layerdrop.architectures import ModelSpec
from layerdrop.data.spec import DataSpec
from layerdrop.errors import UserError
from layerdrop.runs.folder import open_folder
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.sweeps.engines.base import Job, Result
from layerdrop.sweeps.execute import Progress
from layerdrop.sweeps.progress import ERROR_WIDTH, Display, best_so_far, duration, plan, summary, time_left
from layerdrop.sweeps.study import Study
from tests.made_up import write_run

LONG = "ValueError: " + "a long and winding explanation " * 20


@pytest.fixture
def jobs(tmp_path):
    """Four jobs that differ in their seeds."""
    specs = [RunSpec(ModelSpec("m"), DataSpec("rte"), seed=seed) for seed in range(4)]
    return [Job(spec, Options(str(tmp_path / f"run{spec.seed}"))) for spec in specs]


def record(job, status="success", **values):
    return RunRecord(job.spec, job.options.folder, status, metrics={"accuracy": 0.5}, seconds={"total": 30.0}, **values)


def test_durations():
    assert [duration(s) for s in (4, 89, 120, 5399, 7200)] == ["4 s", "89 s", "2 min", "90 min", "2.0 h"]


@pytest.mark.parametrize(
    ("running", "remaining", "stopped", "words"),
    [
        (1, 120.0, False, "about 2 min left"),
        (1, 1.2, False, "about 1 s left"),
        (1, 0.4, False, "almost done"),
        (1, 0.0, False, "almost done"),  # beyond its estimate
        (1, None, False, ""),
        (0, None, False, ""),
        (2, 40.0, True, "finishing 2 runs, about 40 s left"),
        (1, 0.0, True, "finishing 1 run, almost done"),
        (1, None, True, "finishing 1 run"),
        (0, None, True, ""),
    ],
)
def test_time_left(jobs, running, remaining, stopped, words):
    flight = {job.spec.id: (job, time.monotonic()) for job in jobs[:running]}
    assert time_left(Progress(4, running=flight, remaining=remaining, stopped=stopped)) == words


def test_plan(jobs):
    study = Study("s", jobs, {"m_rte_symmetric_k3": "--drop_k 3: not\nthis"})
    assert plan(study, 2).splitlines()[-2:] == [
        "4 runs: 0 done, 0 failed, 4 missing, 1 impossible",
        "time left: unknown until a run is done",
    ]
    write_run(record(jobs[0]), jobs[0].options)
    record(jobs[1], "failed", error="training diverged").write()
    (Path(jobs[2].options.folder)).mkdir()
    (Path(jobs[2].options.folder) / "record.json").write_text("[]")
    lines = plan(study, 2).splitlines()
    assert lines[:2] == ["done       run0", "failed     run1: training diverged"]
    assert re.match(r"missing    run2: .*run2/record.json: cannot be read .*Move the file away, or choose", lines[2])
    assert lines[3:5] == ["missing    run3", "impossible m_rte_symmetric_k3: --drop_k 3: not this"]
    assert lines[5:] == ["4 runs: 1 done, 1 failed, 2 missing, 1 impossible", "time left: about 45 s, 2 at once"]
    (Path(jobs[2].options.folder) / "record.json").unlink()
    for job in jobs:
        write_run(record(job), job.options)
    assert plan(Study("s", jobs), 2).splitlines()[-1] == "4 runs: 4 done, 0 failed, 0 missing"


@pytest.mark.parametrize(
    ("damage", "word", "expected"),
    [
        (("record.json", "{"), "missing", "record.json: cannot be read (.*). Move the file away, or choose another f"),
        (("spec.json", None), "done", "list of files .spec.json. is missing or damaged, so no file can be added"),
        (("spec.json", "{"), "done", "list of files .spec.json. is missing or damaged, so no file can be added"),
    ],
)
def test_the_plan_says_what_the_run_will_say(jobs, damage, word, expected):
    """A damaged file is not this run's own any more, so a run does not replace it."""
    (job, *_), (name, content) = jobs, damage
    path = Path(write_run(record(job), job.options).folder) / name
    path.write_text(content) if content else path.unlink()
    line = plan(Study("s", [job]), 1).splitlines()[0]
    assert line.startswith(f"{word:11}run0: ") and re.search(expected, line)
    predict = replace(job, options=replace(job.options, predict=True))
    line = plan(Study("s", [predict]), 1).splitlines()[0]
    with pytest.raises(UserError) as error:
        open_folder(RunRecord(job.spec, job.options.folder), predict.options)
    said = str(error.value).partition(", or choose")[0]
    assert said in line and re.search(expected.partition(", or")[0], said)
    if word == "done":
        assert line.startswith("incomplete run0: lacks RTE.tsv; ")


def test_the_plan_names_files_that_a_failed_run_would_replace(jobs):
    record(jobs[0], "failed", error="training diverged").write()
    (Path(jobs[0].options.folder) / "spec.json").unlink()
    line = plan(Study("s", jobs[:1]), 1).splitlines()[0]
    assert line.startswith("failed     run0: --output_dir ") and "holds record.json. This run did not write it" in line


def said(progress, *results):
    stream = io.StringIO()
    display = Display(stream)
    for result in results:
        display.update(progress, result)
    display.close()
    return stream.getvalue().splitlines()


def test_the_line_of_a_run(jobs):
    progress = Progress(4, done=[record(jobs[0])], remaining=60.0)
    assert said(progress, Result(jobs[0], record(jobs[0])), None) == [
        "[1/4, about 60 s left] done    run0  accuracy 0.5000  30.0 s"
    ]
    retried = said(progress, Result(jobs[1], error="the worker process died"))
    assert retried == ["[1/4, about 60 s left] failed  run1 (will be retried once): the worker process died"]
    progress = replace(progress, failed=[(jobs[1], "x")], remaining=None)
    assert said(progress, Result(jobs[1], record(jobs[1], "failed", error="x"))) == ["[2/4] failed  run1: x"]


def test_a_failure_is_printed_once_in_full(jobs):
    """Short: in its line. Long: cut there between two words, and in full in the summary."""
    short, long = (jobs[0], "--drop_k 3:\nnot possible"), (jobs[1], LONG)
    progress = Progress(4, failed=[short, long], done=[record(jobs[2])])
    lines = said(progress, *(Result(job, record(job, "failed", error=error)) for job, error in (short, long)))
    assert lines[0].endswith("failed  run0: --drop_k 3: not possible")
    cut = lines[1].partition("run1: ")[2]
    assert cut.endswith("…") and len(cut) <= ERROR_WIDTH and LONG.startswith(cut[:-1] + " ")
    assert summary(Study("s", jobs), progress).splitlines() == [
        f"failed     run1: {LONG.strip()}",
        "4 runs: 1 done (0 of them before), 2 failed, 1 missing",
    ]


def test_summary_of_what_was_done_before(jobs):
    progress = Progress(4, already=[record(jobs[0])], done=[record(job) for job in jobs[1:]])
    assert summary(Study("s", jobs), progress) == "4 runs: 4 done (1 of them before), 0 failed"


def test_best_so_far(jobs):
    """By the metric that searches choose by, F1 for MRPC; a run without it does not count."""
    scored = [(0, "rte", {"accuracy": 0.5}), (1, "rte", {"accuracy": 0.6}), (2, "rte", {"accuracy": 0.6})]
    scored += [(3, "rte", {"accuracy": float("nan")}), (4, "mrpc", {"accuracy": 0.9, "f1": 0.7})]
    scored += [(5, "mrpc", {"accuracy": 0.8, "f1": 0.8}), (6, "stsb", {"loss": 0.1})]
    records = [
        RunRecord(RunSpec(ModelSpec("m"), DataSpec(task), seed=seed), f"runs/run{seed}", "success", metrics=metrics)
        for seed, task, metrics in scored
    ]
    assert best_so_far(records) == ["best rte: accuracy 0.6000  run1", "best mrpc: f1 0.8000  run5"]
    spec = RunSpec(ModelSpec("m"), DataSpec("mnli"))
    matched = RunRecord(spec, "a", metrics={"matched_accuracy": 0.6, "mismatched_accuracy": 0.9})
    assert best_so_far([matched]) == ["best mnli: matched_accuracy 0.6000  a"]
    held_out = RunRecord(spec, "b", metrics={"accuracy": 0.7})
    assert best_so_far([matched, held_out]) == ["best mnli: accuracy 0.7000  b"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_live_lines(jobs):
    """Runs in flight, the best, the sums; they are taken away at the end."""
    progress = Progress(4, done=[record(jobs[0])], failed=[(jobs[1], "x")], remaining=60.0)
    progress.running[jobs[2].spec.id] = (jobs[2], time.monotonic())
    terminal = Terminal()
    display = Display(terminal)
    display.update(progress, None)
    shown = [line.desc for line in display.lines]
    assert shown == ["  run2  0 s", "  best rte: accuracy 0.5000  run0", "2/4 runs, 1 failed, about 60 s left"]
    assert all(text in terminal.getvalue() for text in shown)
    display.close()
    assert not display.lines
