#!/usr/bin/env python
"""The overhead of a run in a warm worker, beyond training and evaluation: imports, loading, tokenising, head, record.

    python benchmarks/engine.py --model_name_or_path CHECKPOINT --data_dir GLUE [--task_name rte] [--runs 6]

One worker with all cores does the same run with several seeds; of each, seconds from handing it out to its result, less
those of training and evaluation. The first run pays for the imports and is shown apart. Training stops after 5 steps.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    """Print a line for each run and the median of all but the first."""
    from layerdrop.sweeps.engines.local import (
        LocalEngine,  # a worker imports this file, and torch only after its preparation
    )
    from layerdrop.sweeps.engines.slots import places
    from layerdrop.sweeps.study import read_study
    from run_glue import run

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--task_name", default="rte")
    parser.add_argument("--runs", type=int, default=6)
    args = parser.parse_args()
    flags = ("--data_dir", args.data_dir, "--max_steps", "5")
    with tempfile.TemporaryDirectory() as folder:
        axes = {
            "models": [args.model_name_or_path],
            "tasks": [args.task_name],
            "k": [0],
            "seeds": list(range(args.runs)),
        }
        sweep = Path(__file__).resolve().parent.parent / "configs" / "studies" / "sweep.yaml"
        study = read_study(str(sweep), folder, axes, flags)
        engine = LocalEngine(run, places(1))
        overheads = [one(engine, job) for job in study.jobs]
        engine.close()
    print(f"median of the {len(overheads) - 1} after the first: {statistics.median(overheads[1:]):.2f} s")


def one(engine, job) -> float:
    """Seconds beyond training and evaluation."""
    start = time.perf_counter()
    engine.start(job)
    (result,) = engine.wait(600)
    took = time.perf_counter() - start
    if result.record is None or result.record.status != "success":
        sys.exit(f"{job.name}: {result.error or result.record.error}")
    seconds = result.record.seconds
    beyond = took - seconds["train"] - seconds["evaluate"]
    stages = "  ".join(f"{name} {value:.2f}" for name, value in seconds.items())
    print(f"beyond training and evaluation {beyond:.2f} s of {took:.2f} s  ({stages})")
    return beyond


if __name__ == "__main__":
    main()
