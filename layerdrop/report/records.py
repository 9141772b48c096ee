"""Read the records in some folders, and list the runs that are in no table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from layerdrop.errors import UserError
from layerdrop.runs.folder import SPEC_FILE
from layerdrop.runs.record import RECORD_FILE, RunRecord, read_record
from layerdrop.runs.status import changed_inputs
from layerdrop.runs.store import PRIOR_FOLDER
from layerdrop.system.text import one_line

SHOWN = 3
"""Maximum number of items in a note."""
WIDTH = 200
"""Maximum number of characters of an error in a note."""


@dataclass
class StoredRuns:
    """The records in some folders."""

    done: list[RunRecord]
    failed: list[RunRecord] = field(default_factory=list)
    """Runs that have failed and never succeeded."""
    unreadable: list[str] = field(default_factory=list)
    """One line for each unreadable record, with the reason."""
    unfinished: int = 0
    """Number of started runs without a record: running, or killed."""


def read_store(folders: Iterable[str], may_be_empty: bool = False, unreadable: Iterable[str] = ()) -> StoredRuns:
    """Read the records in some folders and their subfolders, each run once.

    Runs with the same id and different input contents are separate runs. Prerequisite runs, in
    subfolders named PRIOR_FOLDER, are left out. unreadable: lines about other unreadable files.
    Raises UserError without a successful run, unless may_be_empty.
    """
    done: dict[str, list[RunRecord]] = {}
    failed: dict[str, list[RunRecord]] = {}
    stored = StoredRuns([], unreadable=list(map(one_line, unreadable)))
    for folder in folders:
        if not Path(folder).exists():
            raise UserError(f"{folder}: no such folder. Give the folder of a study's runs.")
        for path, files in sorted(_below(folder)):
            if RECORD_FILE not in files:
                stored.unfinished += SPEC_FILE in files
                continue
            try:
                record = read_record(path)
            except ValueError as error:
                stored.unreadable.append(one_line(str(error)))
                continue
            if record.status == "failed" or (record.status == "success" and record.metrics):
                group = failed if record.status == "failed" else done
                if not _is_in(group, record):
                    group.setdefault(record.id, []).append(record)
    stored.done = [record for records in done.values() for record in records]
    stored.failed = [record for records in failed.values() for record in records if not _is_in(done, record)]
    if not done and not may_be_empty:
        reason = "".join(f"{note.rstrip('.')}. " for note in (failures(stored) or incomplete_notes(stored))[:1])
        advice = "Execute the runs of a study: layerdrop sweep STUDY.yaml."
        raise UserError(f"{', '.join(folders)}: no record of a successful run. {reason}{advice}")
    return stored


def _below(folder: str) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and each folder below, with the names of its files. Links are followed, to each folder once."""
    seen = {os.path.realpath(folder)}
    for place, inner, files in os.walk(folder, followlinks=True):
        yield Path(place), files
        below, inner[:] = sorted(inner), []
        for name in below if place == folder or Path(place).name != PRIOR_FOLDER else ():
            if (real := os.path.realpath(Path(place, name))) not in seen:
                seen.add(real)
                inner.append(name)


def differing_inputs(a: RunRecord, b: RunRecord) -> list[str]:
    """Names of the inputs that differ between two runs. Contents that are not recorded count as equal."""
    return changed_inputs(a.inputs, b.inputs, b.spec)


def _is_in(group: dict[str, list[RunRecord]], record: RunRecord) -> bool:
    """Whether a group (id -> runs) has a run with the same id and input contents."""
    return any(not differing_inputs(other, record) for other in group.get(record.id, ()))


# ---- notes -----------------------------------------------------------------------------------------------------------
def shorten(items: list[str], mark: str = "; ") -> str:
    """The first SHOWN items and the number of the others, joined by `mark`."""
    more = len(items) - SHOWN
    return mark.join(items[:SHOWN]) + (f"{mark}and {more} more" if more > 0 else "")


def failures(stored: StoredRuns) -> list[str]:
    """A note on failed runs, with the first error."""
    if not stored.failed:
        return []
    first, n = stored.failed[0], len(stored.failed)
    runs = "1 run has failed and is" if n == 1 else f"{n} runs have failed and are"
    return [f"{runs} in no table; {first.folder}: {one_line(first.error or 'no reason recorded', WIDTH)}"]


def incomplete_notes(stored: StoredRuns) -> list[str]:
    """Notes on unreadable records and on runs without a record."""
    notes = []
    if stored.unreadable:
        n = len(stored.unreadable)
        notes.append(f"{n} unreadable record{'s' * (n > 1)}, in no table: {shorten(stored.unreadable)}")
    if n := stored.unfinished:
        notes.append(f"{n} run{'s' * (n > 1)} without a record (running, or killed)")
    return notes
