"""A sweep of runs that only pretend, for tests that kill it: python -m tests.sweeping STUDY.yaml STORE WORKERS

A run notes in STORE/ledger.txt when it begins and ends. `--seed 13` kills its own worker, 14 has unusable input, 15 a
defect.
"""

import os
import signal
import sys
import time
from pathlib import Path

from layerdrop.engines import LocalEngine, Place
from layerdrop.errors import UserError
from layerdrop.runs import RunRecord
from layerdrop.study import read_study, sweep

GPU_AT_FIRST = os.environ.get("CUDA_VISIBLE_DEVICES")
"""When this is imported: CUDA looks at it once, when something first asks whether there is a GPU."""


def pretend(arguments) -> RunRecord:
    """A run of 50 ms, whose metric is its seed."""
    folder = Path(arguments.train.output_dir)
    record = RunRecord(arguments.spec(arguments.data.task.name), str(folder), "success", seconds={"total": 0.05})
    seed = arguments.train.seed
    if seed == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 14:
        raise UserError("unusable")
    if seed == 15:
        raise ZeroDivisionError("a defect")
    note(folder.parent, "begin", record)
    print(f"hello from the run on GPU {GPU_AT_FIRST}")
    time.sleep(0.05)
    record.metrics = {"accuracy": float(seed)}
    record.write()
    note(folder.parent, "end", record)
    return record


def note(store: Path, what: str, record: RunRecord) -> None:
    """Add a line to the ledger."""
    with open(store / "ledger.txt", "a") as ledger:
        ledger.write(f"{what} {record.spec.id}\n")


def main(study: str, store: str, workers: str) -> int:
    """Sweep; prints how many runs were done and how many failed."""
    engine = LocalEngine(pretend, [Place((min(os.sched_getaffinity(0)),))] * int(workers))
    try:
        progress = sweep(read_study(study, store, flags=("--use_cpu",)), engine, lambda *_: None)
    finally:
        engine.close()
    print(len(progress.done), len(progress.failed), progress.already)
    return 1 if progress.failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
