"""Texts for the terminal: the plan of a study, the progress and the summary of its execution."""

import math
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from layerdrop.errors import UserError
from layerdrop.runs.folder import check_folder
from layerdrop.runs.record import RunRecord
from layerdrop.runs.status import Status
from layerdrop.sweeps.engines.base import Job, Result
from layerdrop.sweeps.execute import Estimate, Progress, statuses
from layerdrop.sweeps.study import Study
from layerdrop.system.text import one_line

ERROR_WIDTH = 200
"""Maximum number of characters of an error in a run's line. The summary repeats longer errors."""
SUMMARY_WIDTH = 1000
"""Maximum number of characters of an error in the summary and the plan."""


def plan(study: Study, slots: int) -> str:
    """Format every run with its status, the totals, and the estimated time left with `slots` parallel runs."""
    states = list(zip(study.jobs, statuses(study.jobs), strict=True))
    lines = []
    for job, state in states:
        lines.append(_line(state.word, job.name, _reason(job, state)))
    lines += [_line("impossible", name, why) for name, why in study.impossible.items()]
    counts = Counter(state.word for _, state in states)
    words = ["done", "failed", "missing", *(word for word in ("incomplete", "changed", "other") if counts[word])]
    sums = [f"{counts[word]} {word}" for word in words]
    sums += [f"{len(study.impossible)} impossible"] if study.impossible else []
    lines.append(f"{_runs(len(study.jobs))}: {', '.join(sums)}")
    if left := [job for job, state in states if state.word not in ("done", "changed")]:
        estimate = Estimate(state.record for _, state in states if state.word == "done" and state.record)
        seconds = estimate.remaining(left, slots=slots)
        duration_words = "unknown until a run is done" if seconds is None else f"{about(seconds)}, {slots} at once"
        lines.append(f"time left: {duration_words}")
    return "\n".join(lines)


def summary(study: Study, progress: Progress) -> str:
    """Format the totals of an execution, and the errors that were shortened in the lines of their runs."""
    cut = [(job, error) for job, error in progress.failed if one_line(error, ERROR_WIDTH) != one_line(error)]
    lines = [_line(_word(progress, job), job.name, error) for job, error in cut]
    lines += [_line("impossible", name, why) for name, why in study.impossible.items()]
    already, missing, changed = len(progress.already), progress.total - progress.n_ended, len(progress.changed)
    done, failed = already + len(progress.done), len(progress.failed) - changed
    sums = f"{_runs(progress.total)}: {done} done ({already} of them before), {failed} failed"
    sums += f", {changed} changed" if changed else ""
    return "\n".join([*lines, sums + (f", {missing} missing" if missing else "")])


def _reason(job: Job, state: Status) -> str | None:
    """Why a run is not done, or why the sweep will refuse it."""
    if state.word not in ("done", "incomplete", "changed"):
        try:
            check_folder(job.spec, job.options)
        except UserError as error:
            return str(error)
    if state.word == "failed" and state.record:
        return state.record.error
    lacks = f"lacks {', '.join(state.missing)}" if state.missing else None
    return "; ".join(filter(None, (lacks, state.note))) or None


def _line(word: str, name: str, reason: str | None) -> str:
    return f"{word:<11}{name}" + (f": {one_line(reason, SUMMARY_WIDTH)}" if reason else "")


def _word(progress: Progress, job: Job) -> str:
    return "changed" if job.spec.id in progress.changed else "failed"


def _runs(n: int) -> str:
    return f"{n} run{'s' * (n != 1)}"


def duration(seconds: float) -> str:
    """A duration in a suitable unit: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def about(seconds: float) -> str:
    """An estimated duration; never 0 s."""
    return f"about {duration(max(1.0, seconds))}"


def time_left(progress: Progress) -> str:
    """The time left: `about 12 min left`, `almost done`, `finishing 2 runs, about 40 s left`. Empty if unknown."""
    words = []
    if progress.stopped and progress.running:
        words.append(f"finishing {_runs(len(progress.running))}")
    if progress.remaining is not None:
        words.append(f"{about(progress.remaining)} left" if progress.remaining >= 1 else "almost done")
    return ", ".join(words)


def best_so_far(records: Iterable[RunRecord]) -> list[str]:
    """One line for each task, with its best run: `best rte: accuracy 0.7040  NAME`.

    The best run has the highest selection metric (MNLI: matched). The first run wins a tie.
    """
    best: dict[str, tuple[float, str]] = {}
    for record in records:
        name, task = record.task.selection_metric, record.spec.data.task
        name = name if name in record.metrics else record.task.recorded(name)  # held-out rows form a single split
        score = record.metrics.get(name, math.nan)
        if not math.isnan(score) and (task not in best or score > best[task][0]):
            best[task] = score, f"best {task}: {name} {score:.4f}  {Path(record.folder).name}"
    return [line for _, line in best.values()]


class Display:
    """Print one line for each completed run. On a terminal, also show running runs, best runs and totals."""

    def __init__(self, stream: TextIO | None = None):
        """stream: None for the current stderr."""
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.lines: list[tqdm] = []

    def log(self, text: str) -> None:
        """Print a permanent line above the live lines."""
        tqdm.write(text, file=self.stream)
        self.stream.flush()

    def update(self, progress: Progress, result: Result | None) -> None:
        """Show the state of an execution. result: the job that has just ended."""
        left = f", {words}" if (words := time_left(progress)) else ""
        if result is not None:
            self.log(f"[{progress.n_ended}/{progress.total}{left}] {self._ended(progress, result)}")
        if not self.live:
            return
        now = time.monotonic()
        texts = [f"  {job.name}  {duration(now - began)}" for job, began in progress.running.values()]
        texts += [f"  {line}" for line in best_so_far([*progress.already, *progress.done])]
        failed = f", {len(progress.failed)} failed" if progress.failed else ""
        texts.append(f"{progress.n_ended}/{progress.total} runs{failed}{left}")
        while len(self.lines) < len(texts):
            self.lines.append(tqdm(bar_format="{desc}", position=len(self.lines), leave=False, file=self.stream))
        for line, text in zip(self.lines, texts + [""] * (len(self.lines) - len(texts)), strict=True):
            line.set_description_str(text)

    @staticmethod
    def _ended(progress: Progress, result: Result) -> str:
        name, record = result.job.name, result.record
        if record is None or record.status != "success":
            error = one_line(result.error or (record and record.error) or "", ERROR_WIDTH)
            again = "" if any(job is result.job for job, _ in progress.failed) else " (will be retried once)"
            return f"{_word(progress, result.job):<8}{name}{again}: {error}"
        metrics = [f"{name} {value:.4f}" for name, value in record.metrics.items() if not name.endswith("loss")]
        return f"done    {name}  {'  '.join(metrics)}  {record.seconds.get('total', 0.0):.1f} s"

    def close(self) -> None:
        """Remove the live lines."""
        for line in reversed(self.lines):
            line.close()
        self.lines.clear()
