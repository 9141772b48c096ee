#!/usr/bin/env python
"""Show finished runs of one task side by side: python scripts/compare.py runs/FULL runs/REDUCED ..."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from layerdrop.report.compare import compare
from layerdrop.runs import RunRecord, read_record


def main(folders: list[str]) -> int:
    """The exit code: 0, or 2 where a folder has no finished run or the tasks differ."""
    found = {folder: read_record(folder) for folder in folders}
    missing = [folder for folder, record in found.items() if record is None or record["status"] != "success"]
    if missing or not folders:
        which = f"no finished run in {', '.join(missing)}" if missing else "no folder given"
        print(f"error: {which}. Usage: scripts/compare.py FOLDER [FOLDER ...]", file=sys.stderr)
        return 2
    records = [RunRecord.from_dict(record) for record in found.values()]
    if len(tasks := {record.spec.task for record in records}) > 1:
        print(f"error: the runs are of several tasks ({', '.join(sorted(tasks))}). Give runs of one.", file=sys.stderr)
        return 2
    print(compare(records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
