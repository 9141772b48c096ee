"""A store: the runs of a study or a search, each in its own folder."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from layerdrop.runs.record import RECORD_FILE, RunRecord, read_record
from layerdrop.runs.spec import Options, RunSpec

PRIOR_FOLDER = "prior"
"""Subfolder of a run's or a study's folder: the store of prerequisite runs."""
SCORE_FOLDER = "scores"
"""Subfolder of an analysis folder or of PRIOR_FOLDER: cached layer scores."""


@dataclass(frozen=True)
class Store:
    """A folder of runs. The folder of a run is named after its spec."""

    root: str

    def folder(self, spec: RunSpec) -> str:
        """The folder of a run: ROOT/NAME_ID."""
        return str(Path(self.root) / f"{spec.name}_{spec.id[:8]}")

    def done(self) -> Iterator[RunRecord]:
        """The records of all successful runs. Unreadable records are skipped."""
        for path in sorted(Path(self.root).glob(f"*/{RECORD_FILE}")):
            record = readable_record(path.parent)
            if record and record.status == "success":
                yield record


def find_record(folder: str, spec: RunSpec) -> RunRecord | None:
    """The record of the run `spec` in a folder. None for a missing, unreadable or different record."""
    record = readable_record(folder)
    return record if record and record.id == spec.id else None


def readable_record(folder: str | Path) -> RunRecord | None:
    """The record in a folder. None for a missing or unreadable record."""
    with suppress(ValueError):
        return read_record(folder)
    return None


def prior_store(options: Options) -> Store:
    """The store of a run's prerequisite runs."""
    return Store(options.prior_store or str(Path(options.folder) / PRIOR_FOLDER))
