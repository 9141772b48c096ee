#!/usr/bin/env python
"""Show finished runs of one task side by side: python scripts/compare.py runs/FULL runs/REDUCED ..."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from layerdrop.report.compare import compare
from layerdrop.runs import RunRecord, read_record


def main(argv: list[str]) -> int:
    """The exit code: 0, or 2 where a folder has no finished run or the tasks differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="a run's folder; the first is compared with")
    folders = parser.parse_args(argv).folders
    found = {folder: read_record(folder) for folder in folders}
    missing = [folder for folder, record in found.items() if record is None or record["status"] != "success"]
    if missing:
        print(f"error: no finished run in {', '.join(missing)}. Give folders of runs.", file=sys.stderr)
        return 2
    records = [RunRecord.from_dict(record) for record in found.values()]
    if len(tasks := {record.spec.task for record in records}) > 1:
        print(f"error: the runs are of several tasks ({', '.join(sorted(tasks))}). Give runs of one.", file=sys.stderr)
        return 2
    print(compare(records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
