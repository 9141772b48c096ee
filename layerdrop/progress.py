"""A study in words for a person: what it holds, how it goes, what came of it."""

import sys
import time
from collections import Counter
from typing import TextIO

from tqdm import tqdm

from layerdrop.engines import Result
from layerdrop.runs import RunRecord
from layerdrop.study import Estimate, Progress, Study, status


def plan(study: Study, slots: int) -> str:
    """Every run with its state, then the sums and an estimate of the time that is left with so many at once."""
    states = {job.name: status(job) for job in study.jobs}
    lines = [f"{states[job.name]:<11}{job.name}" + _reason(job, states) for job in study.jobs]
    lines += [f"impossible {name}: {why}" for name, why in study.impossible.items()]
    left = [job for job in study.jobs if states[job.name] != "done"]
    counts = Counter(states.values())
    sums = ", ".join(f"{counts[state]} {state}" for state in ("done", "failed", "missing"))
    sums += f", {len(study.impossible)} impossible" if study.impossible else ""
    remaining = Estimate(study.jobs).remaining(left, slots=slots) if left else 0.0
    time_left = "unknown until a run is done" if remaining is None else f"about {duration(remaining)}, {slots} at once"
    return "\n".join([*lines, f"{_runs(len(study.jobs))}: {sums}", f"time left: {time_left}"])


def _reason(job, states: dict[str, str]) -> str:
    return f": {_one_line(job.record().error)}" if states[job.name] == "failed" else ""


def summary(study: Study, progress: Progress) -> str:
    """What a sweep did, and what failed."""
    lines = [f"failed     {job.name}: {_one_line(error)} (see {job.folder})" for job, error in progress.failed]
    lines += [f"impossible {name}: {why}" for name, why in study.impossible.items()]
    done = progress.already + len(progress.done)
    missing = progress.total - done - len(progress.failed)
    sums = f"{_runs(progress.total)}: {done} done ({progress.already} of them before), {len(progress.failed)} failed"
    return "\n".join([*lines, sums + (f", {missing} missing" if missing else "")])


def _runs(n: int) -> str:
    return f"{n} run{'s' * (n != 1)}"


def duration(seconds: float) -> str:
    """As a person would say it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())[:200]


def _measured(record: RunRecord) -> str:
    shown = [f"{name} {value:.4f}" for name, value in record.metrics.items() if not name.endswith("loss")]
    return "  ".join(shown)


class Display:
    """A line for each run in flight on a terminal; elsewhere, and above these, a line for each run that ended."""

    def __init__(self, stream: TextIO = sys.stderr):
        self.stream = stream
        self.live = stream.isatty()
        self.lines: list[tqdm] = []

    def say(self, text: str) -> None:
        """A line that stays."""
        tqdm.write(text, file=self.stream)
        self.stream.flush()

    def update(self, progress: Progress, result: Result | None) -> None:
        """Show where a sweep stands; `result` has just come in."""
        over = progress.already + len(progress.done) + len(progress.failed)
        unknown = progress.remaining is None or over == progress.total
        left = "" if unknown else f", about {duration(progress.remaining)} left"
        if result is not None:
            self.say(f"[{over}/{progress.total}{left}] {self._ended(progress, result)}")
        if not self.live:
            return
        now = time.monotonic()
        texts = [f"  {job.name}  {duration(now - began)}" for job, began in progress.running.values()]
        texts.append(f"{over}/{progress.total} runs{left}")
        while len(self.lines) < len(texts):
            self.lines.append(tqdm(bar_format="{desc}", position=len(self.lines), leave=False, file=self.stream))
        for line, text in zip(self.lines, texts + [""] * (len(self.lines) - len(texts)), strict=True):
            line.set_description_str(text)

    @staticmethod
    def _ended(progress: Progress, result: Result) -> str:
        name, record = result.job.name, result.record
        if record is None or record.status != "success":
            again = "" if any(job is result.job for job, _ in progress.failed) else " (is tried once more)"
            return f"failed  {name}{again}: {_one_line(result.error or record.error)}"
        return f"done    {name}  {_measured(record)}  {record.seconds['total']:.1f} s"

    def close(self) -> None:
        """Take the live lines away."""
        for line in reversed(self.lines):
            line.close()
        self.lines.clear()
