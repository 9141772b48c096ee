#!/usr/bin/env python
"""Show finished runs of one task side by side: python scripts/compare.py runs/FULL runs/REDUCED ..."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from layerdrop.errors import UserError
from layerdrop.report.compare import compare
from layerdrop.runs.record import RunRecord, read_record
from layerdrop.system.files import LocalPath


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, or 2 where a folder has no finished run or the tasks differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folders",
        type=LocalPath,
        nargs="+",
        metavar="FOLDER",
        help="folder of a run; the others are compared with the first",
    )
    try:
        print(compare(read(parser.parse_args(argv).folders)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def read(folders: list[str]) -> list[RunRecord]:
    """The records in these folders. Raises UserError."""
    records = []
    for folder in folders:
        try:
            record = read_record(folder)
        except ValueError as error:
            raise UserError(f"{error}. Give folders of finished runs.") from None
        if record is None or record.status != "success":
            raise UserError(f"no finished run in {folder}. Give folders of runs.")
        record.folder = folder
        records.append(record)
    if len(tasks := {record.spec.data.task for record in records}) > 1:
        raise UserError(f"the runs are of several tasks ({', '.join(sorted(tasks))}). Give runs of one.")
    return records


if __name__ == "__main__":
    from layerdrop.system.process import tolerate_broken_output

    tolerate_broken_output()
    sys.exit(main())
