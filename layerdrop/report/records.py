"""The records in some folders, and notes on runs that are in no table."""

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
"""Cells, or files, that a note names before it says how many more there are."""
WIDTH = 200


@dataclass
class StoredRuns:
    """The records in some folders."""

    done: list[RunRecord]
    failed: list[RunRecord] = field(default_factory=list)
    """Runs that have failed and never succeeded."""
    unreadable: list[str] = field(default_factory=list)
    """Why a file is no record, one line each."""
    unfinished: int = 0
    """Runs that have started and have no record: in flight, or killed."""


def read_store(folders: Iterable[str], may_be_empty: bool = False, unreadable: Iterable[str] = ()) -> StoredRuns:
    """The records in some folders and below, each run once; equal settings on other contents are other runs. The
    candidates of searches, in folders PRIOR_FOLDER below, are left out. unreadable: of other files there.

    Raises UserError where there is no successful one, unless may_be_empty.
    """
    done: dict[str, list[RunRecord]] = {}
    failed: dict[str, list[RunRecord]] = {}
    found = StoredRuns([], unreadable=list(map(one_line, unreadable)))
    for folder in folders:
        if not Path(folder).exists():
            raise UserError(f"{folder}: no such folder. Give the folder of a study's runs.")
        for path, files in sorted(_below(folder)):
            if RECORD_FILE not in files:
                found.unfinished += SPEC_FILE in files
                continue
            try:
                record = read_record(path)
            except ValueError as error:
                found.unreadable.append(one_line(str(error)))
                continue
            record.folder = str(path)
            if record.status == "success" and record.metrics:
                _add(done, record)
            elif record.status == "failed":
                _add(failed, record)
    found.done = [record for records in done.values() for record in records]
    found.failed = [r for records in failed.values() for r in records if not _is_in(done, r)]
    if not done and not may_be_empty:
        advice = "".join((failures(found) or unfit(found))[:1]) or "Run a study first: layerdrop sweep STUDY.yaml."
        raise UserError(f"{', '.join(folders)}: no record of a successful run there. {advice}")
    return found


def _below(folder: str) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files) of a folder and of those below, without the candidates of searches. Links are
    followed, to each folder once."""
    seen = {os.path.realpath(folder)}
    for place, inner, files in os.walk(folder, followlinks=True):
        yield Path(place), files
        below, inner[:] = sorted(inner), []
        for name in below if place == folder or Path(place).name != PRIOR_FOLDER else ():
            if (real := os.path.realpath(Path(place, name))) not in seen:
                seen.add(real)
                inner.append(name)


# ---- the inputs of a run ---------------------------------------------------------------------------------------------
def inputs_of(record: RunRecord) -> dict[str, str]:
    """Input -> fingerprint of its contents, if recorded: `model`, `tokenizer`, `start`, `teacher`,
    `score_on`, and each split that has an effect on the run's results."""
    scored = record.spec.drop.score_split
    splits = {split: read.get("fingerprint") for split, read in record.data.items()}
    splits = {split: found for split, found in splits.items() if not split.startswith("test") or scored == "test"}
    return {name: found for name, found in (record.fingerprints | splits).items() if found}


def differing_inputs(a: RunRecord, b: RunRecord) -> list[str]:
    """Names of the inputs that differ between two runs, in words. Contents that are not recorded count as equal."""
    return changed_inputs(inputs_of(a), inputs_of(b), b.spec)


def _is_in(found: dict[str, list[RunRecord]], record: RunRecord) -> bool:
    """Whether a run is in `found` (id -> runs). Runs with equal ids but different input contents are different runs."""
    return any(not differing_inputs(other, record) for other in found.get(record.id, ()))


def _add(found: dict[str, list[RunRecord]], record: RunRecord) -> None:
    if not _is_in(found, record):
        found.setdefault(record.id, []).append(record)


# ---- notes -----------------------------------------------------------------------------------------------------------
def some(items: list[str], mark: str = "; ") -> str:
    """The first three items and the number of the others, joined by `mark`."""
    more = len(items) - SHOWN
    return mark.join(items[:SHOWN]) + (f"{mark}and {more} more" if more > 0 else "")


def failures(found: StoredRuns) -> list[str]:
    """What has failed, and why the first did."""
    if not found.failed:
        return []
    first, n = found.failed[0], len(found.failed)
    runs = "1 run has failed and is" if n == 1 else f"{n} runs have failed and are"
    return [f"{runs} in no table; {first.folder}: {one_line(first.error or 'no reason recorded', WIDTH)}"]


def unfit(found: StoredRuns) -> list[str]:
    """Files that are no records, and runs that have none."""
    notes = []
    if found.unreadable:
        n = len(found.unreadable)
        notes.append(f"{n} unreadable record{'s' * (n > 1)}, in no table: {some(found.unreadable)}")
    if n := found.unfinished:
        notes.append(f"{n} run{'s' * (n > 1)} without a record (in flight, or killed)")
    return notes
