#!/usr/bin/env python
"""Whether run_glue.py scores what the stock recipe (benchmarks/stock.py) scores: both over the same seeds.

    python benchmarks/scores.py --model_name_or_path CHECKPOINT --data_dir GLUE [--tasks mrpc rte] [--seeds 1 2 3 4 5]

The stock side is fp32 in random order, padded by batch (the same numbers up to rounding); `ours` is run_glue.py as it
comes. Prints each score, both means with their standard deviations over seeds, and Welch's t-test. Seeds are those of
the head, the order and the dropout, which the two sides draw differently: they are not pairs. --store keeps what was
measured and goes on from there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy import stats

ROOT = Path(__file__).resolve().parent.parent


def scores(side: str, task: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Metric -> value on the development set, of one run in a process of its own."""
    kept = Path(args.store) / f"{task}_{side}_seed{seed}.json" if args.store else None
    if kept and kept.is_file():
        return json.loads(kept.read_text())
    words = ["--model_name_or_path", args.model_name_or_path, "--data_dir", args.data_dir, "--task_name", task]
    with tempfile.TemporaryDirectory() as folder:
        if side == "ours":
            words = [str(ROOT / "run_glue.py"), *words, "--output_dir", folder, "--save_model", "no"]
        else:
            words = [str(ROOT / "benchmarks" / "stock.py"), *words, "--padding", "batch"]
        words = [sys.executable, *words, "--seed", str(seed)]
        done = subprocess.run(words, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(words)}\n{done.stderr[-3000:]}")
        if side == "ours":
            found = json.loads((Path(folder) / "record.json").read_text())["metrics"]
        else:
            found = json.loads(done.stdout.strip().splitlines()[-1])["metrics"]
    found = {name: value for name, value in found.items() if name != "loss"}
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--tasks", nargs="+", default=["mrpc", "rte"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--store", help="folder for what was measured")
    args = parser.parse_args()
    for task in args.tasks:
        seen: dict[str, list[dict[str, float]]] = {"stock": [], "ours": []}
        for seed in args.seeds:
            for side, found in seen.items():
                found.append(scores(side, task, seed, args))
        for metric in seen["ours"][0]:
            points = {side: [100 * one[metric] for one in found] for side, found in seen.items()}
            for side, values in points.items():
                each = "  ".join(f"{value:.1f}" for value in values)
                spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                print(f"{task} {metric:<9} {side:<6} {statistics.mean(values):.2f}{spread}   ({each})")
            if len(args.seeds) > 1:
                p = stats.ttest_ind(points["stock"], points["ours"], equal_var=False).pvalue
                print(f"{task} {metric:<9} p = {p:.2f}", flush=True)


if __name__ == "__main__":
    main()
