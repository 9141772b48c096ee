"""Runs that only pretend, and a sweep of them for tests that kill it.

A run notes in STORE/ledger.txt when it begins and ends. Seed 13 kills its own worker, 14 has unusable input, 15 a
defect. Workers import this module: it must not import torch.
"""

import os
import signal
import sys
import time
from pathlib import Path

from layerdrop.architectures import ModelSpec
from layerdrop.data.spec import DataSpec
from layerdrop.errors import UserError
from layerdrop.runs.record import RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.sweeps.engines.base import Job
from layerdrop.sweeps.engines.local import LocalEngine
from layerdrop.sweeps.engines.slots import WorkerSlot

GPU_AT_FIRST = os.environ.get("CUDA_VISIBLE_DEVICES")
"""At the import of this module: CUDA looks at it once, when something first asks for a GPU."""
TORCH_AT_FIRST = "torch" in sys.modules


def jobs(store: str, *seeds: int) -> list[Job]:
    """Jobs that differ in their seeds."""
    from layerdrop.runs.store import Store

    specs = [RunSpec(ModelSpec("demo"), DataSpec("rte", "nowhere"), seed=seed) for seed in seeds]
    return [
        Job(spec, Options(Store(store).folder(spec), resume="auto", use_cpu=True, save_model=False)) for spec in specs
    ]


def pretend(spec: RunSpec, options: Options) -> RunRecord:
    """A run of 50 ms, whose metric is its seed."""
    from layerdrop.runs.folder import lock_folder
    from layerdrop.runs.store import find_record
    from tests.made_up import write_run

    if spec.seed == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.seed == 14:
        raise UserError("unusable")
    if spec.seed == 15:
        raise ZeroDivisionError("a defect")
    store = Path(options.folder).parent
    with lock_folder(options.folder):
        done = find_record(options.folder, spec)
        if done and done.status == "success":
            return done
        note(store, "begin", spec)
        print(f"hello from the run on GPU {GPU_AT_FIRST}, torch {TORCH_AT_FIRST}, cores {os.sched_getaffinity(0)}")
        time.sleep(0.05)
        record = RunRecord(spec, options.folder, "success", seconds={"total": 0.05})
        record.metrics = {"accuracy": float(spec.seed)}
        record.notes = list(options.notes)
        write_run(record, options)
        note(store, "end", spec)
        return record


def pretend_slowly(spec: RunSpec, options: Options) -> RunRecord:
    """The same in a second."""
    (Path(options.folder) / "began").touch()
    time.sleep(1)
    return pretend(spec, options)


def note(store: Path, what: str, spec: RunSpec) -> None:
    """Add a line to the ledger."""
    with open(store / "ledger.txt", "a") as ledger:
        ledger.write(f"{what} {spec.id}\n")


def show_a_bar(spec: RunSpec, options: Options) -> RunRecord:
    """A run that shows a progress bar and does not end."""
    from tqdm.auto import tqdm

    with tqdm(total=1):
        (Path(options.folder) / "began").touch()
        time.sleep(60)
    raise AssertionError


def main(store: str, workers: str, *seeds: str) -> int:
    """Sweep in a store; prints how many runs were done, how many failed, and how many were done before."""
    from layerdrop.sweeps.execute import execute  # imports torch

    engine = LocalEngine(pretend, [WorkerSlot((min(os.sched_getaffinity(0)),))] * int(workers))
    try:
        progress = execute(jobs(store, *map(int, seeds)), engine)
    finally:
        engine.close()
    print(len(progress.done), len(progress.failed), len(progress.already))
    return 1 if progress.failed else 0
