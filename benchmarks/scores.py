#!/usr/bin/env python
"""Compare the scores of run_glue.py and of the stock recipe (benchmarks/stock.py) over the same seeds.

    python benchmarks/scores.py --model_name_or_path CHECKPOINT --data_dir GLUE [--tasks mrpc rte] [--seeds 1 2 3 4 5]

The stock side is fp32 in random order, padded by batch (the same numbers up to rounding); `ours` is run_glue.py as it
comes. Prints each score, both means with their standard deviations over seeds, and Welch's test with the interval of
the difference. Seeds are those of the head, the order and the dropout, which the two sides draw differently: they are
not pairs. --store keeps what was measured and goes on from there, for one model, data folder and state of the code.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sides import add_arguments, command, output

from layerdrop.runs.environment import environment


def scores(side: str, task: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Metric -> value on the development set, of one run in a process of its own."""
    kept = Path(args.store) / f"{task}_{side}_seed{seed}.json" if args.store else None
    of = {"model": args.model_name_or_path, "data": args.data_dir, "commit": environment()["commit"]}
    if kept and kept.is_file():
        there = json.loads(kept.read_text())
        if there["of"] != of:
            raise SystemExit(f"--store {args.store}: {kept.name} is of {there['of']}, not of {of}. Choose another.")
        return there["scores"]
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--save_model", "no"] if side == "ours" else ["--padding", "batch"]
        printed = output(command(side, task, args, folder, *flags, "--seed", str(seed)))
        record = Path(folder) / "record.json"
        found = json.loads(record.read_text() if side == "ours" else printed.strip().splitlines()[-1])["metrics"]
    found = {name: value for name, value in found.items() if name != "loss"}
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({"of": of, "scores": found}))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
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
                test = stats.ttest_ind(points["ours"], points["stock"], equal_var=False)
                low, high = test.confidence_interval()
                difference = f"ours - stock in [{low:.1f}, {high:.1f}] (95%), p = {test.pvalue:.2f}"
                print(f"{task} {metric:<9} {difference}", flush=True)


if __name__ == "__main__":
    main()
