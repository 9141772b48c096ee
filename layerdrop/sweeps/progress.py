"""An execution in words: the plan of a study, its progress, its summary."""

import math
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from layerdrop.runs.record import RunRecord
from layerdrop.runs.status import Status
from layerdrop.sweeps.engines.base import Job, Result
from layerdrop.sweeps.execute import Estimate, Progress, statuses
from layerdrop.sweeps.study import Study
from layerdrop.system.text import one_line

ERROR_WIDTH = 200
"""Characters of an error in the line of a run that fails; the summary repeats the longer ones."""
SUMMARY_WIDTH = 1000
"""Characters of an error in the summary and the plan."""


def plan(study: Study, slots: int) -> str:
    """Every run with its state, then the sums and an estimate of the time that is left with so many at once."""
    states = statuses(study.jobs)
    lines = [f"{state.word:<11}{job.name}{_reason(state)}" for job, state in zip(study.jobs, states, strict=True)]
    lines += _impossible(study)
    counts = Counter(state.word for state in states)
    words = ["done", "failed", "missing", *(word for word in ("incomplete", "changed", "other") if counts[word])]
    sums = ", ".join(f"{counts[word]} {word}" for word in words)
    sums += f", {len(study.impossible)} impossible" if study.impossible else ""
    lines.append(f"{_runs(len(study.jobs))}: {sums}")
    left = [job for job, state in zip(study.jobs, states, strict=True) if state.word not in ("done", "changed")]
    if left:
        estimate = Estimate(state.record for state in states if state.word == "done")
        seconds = estimate.remaining(left, slots=slots)
        words = "unknown until a run is done" if seconds is None else f"{about(seconds)}, {slots} at once"
        lines.append(f"time left: {words}")
    return "\n".join(lines)


def _reason(state: Status) -> str:
    missing = f"lacks {', '.join(state.missing)}" if state.missing else None
    error = state.note or missing or (state.record.error if state.word == "failed" else None)
    return f": {one_line(error, SUMMARY_WIDTH)}" if error else ""


def _impossible(study: Study) -> list[str]:
    return [f"impossible {name}: {one_line(why, SUMMARY_WIDTH)}" for name, why in study.impossible.items()]


def summary(study: Study, progress: Progress) -> str:
    """What an execution did, and the failures whose line was cut when they happened."""
    cut = [(job, error) for job, error in progress.failed if one_line(error, ERROR_WIDTH) != one_line(error)]
    lines = [f"{_word(progress, job):<11}{job.name}: {one_line(error, SUMMARY_WIDTH)}" for job, error in cut]
    lines += _impossible(study)
    already = len(progress.already)
    done = already + len(progress.done)
    missing, changed = progress.total - done - len(progress.failed), len(progress.changed)
    sums = f"{_runs(progress.total)}: {done} done ({already} of them before), {len(progress.failed) - changed} failed"
    sums += f", {changed} changed" if changed else ""
    return "\n".join([*lines, sums + (f", {missing} missing" if missing else "")])


def _word(progress: Progress, job: Job) -> str:
    return "changed" if job.spec.id in progress.changed else "failed"


def _runs(n: int) -> str:
    return f"{n} run{'s' * (n != 1)}"


def duration(seconds: float) -> str:
    """As a person would say it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def about(seconds: float) -> str:
    """An estimated duration; never 0 s."""
    return f"about {duration(max(1.0, seconds))}"


def time_left(progress: Progress) -> str:
    """Time left, in words: `about 12 min left`, `almost done`, `finishing 2 runs, about 40 s left`.

    Empty where nothing is left, or nothing is known.
    """
    words = []
    if progress.stopped and progress.running:
        words.append(f"finishing {_runs(len(progress.running))}")
    if progress.remaining is not None:
        words.append(f"{about(progress.remaining)} left" if progress.remaining >= 1 else "almost done")
    return ", ".join(words)


def _measured(record: RunRecord) -> str:
    shown = [f"{name} {value:.4f}" for name, value in record.metrics.items() if not name.endswith("loss")]
    return "  ".join(shown)


def best_so_far(records: Iterable[RunRecord]) -> list[str]:
    """For each task `best rte: accuracy 0.7040  NAME`: the run with the highest score in the metric that searches
    use (MNLI: matched). The first run wins a tie."""
    best: dict[str, tuple[float, str, RunRecord]] = {}
    for record in records:
        name, task = record.task.selection_metric, record.spec.data.task
        name = name if name in record.metrics else record.task.recorded(name)  # held-out rows are one split
        score = record.metrics.get(name, math.nan)
        if not math.isnan(score) and (task not in best or score > best[task][0]):
            best[task] = score, name, record
    return [
        f"best {task}: {name} {score:.4f}  {Path(record.folder).name}" for task, (score, name, record) in best.items()
    ]


class Display:
    """A line for each run that ended; on a terminal, below these, those in flight, the best of each task, the sums."""

    def __init__(self, stream: TextIO = sys.stderr):
        self.stream = stream
        self.live = stream.isatty()
        self.lines: list[tqdm] = []

    def say(self, text: str) -> None:
        """A line that stays."""
        tqdm.write(text, file=self.stream)
        self.stream.flush()

    def update(self, progress: Progress, result: Result | None) -> None:
        """Show the state of an execution. result: the job that has just ended."""
        over = len(progress.already) + len(progress.done) + len(progress.failed)
        words = time_left(progress)
        left = f", {words}" if words else ""
        if result is not None:
            self.say(f"[{over}/{progress.total}{left}] {self._ended(progress, result)}")
        if not self.live:
            return
        now = time.monotonic()
        texts = [f"  {job.name}  {duration(now - began)}" for job, began in progress.running.values()]
        texts += [f"  {line}" for line in best_so_far([*progress.already, *progress.done])]
        failed = f", {len(progress.failed)} failed" if progress.failed else ""
        texts.append(f"{over}/{progress.total} runs{failed}{left}")
        while len(self.lines) < len(texts):
            self.lines.append(tqdm(bar_format="{desc}", position=len(self.lines), leave=False, file=self.stream))
        for line, text in zip(self.lines, texts + [""] * (len(self.lines) - len(texts)), strict=True):
            line.set_description_str(text)

    @staticmethod
    def _ended(progress: Progress, result: Result) -> str:
        name, record = result.job.name, result.record
        if record is None or record.status != "success":
            error = one_line(result.error or record.error, ERROR_WIDTH)
            again = "" if any(job is result.job for job, _ in progress.failed) else " (is tried once more)"
            return f"{_word(progress, result.job):<8}{name}{again}: {error}"
        return f"done    {name}  {_measured(record)}  {record.seconds.get('total', 0.0):.1f} s"

    def close(self) -> None:
        """Remove the live lines."""
        for line in reversed(self.lines):
            line.close()
        self.lines.clear()
