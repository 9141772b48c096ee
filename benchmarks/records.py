#!/usr/bin/env python
"""Time reports and plans over many records: seconds, seconds of the processor, and peak memory of each command.

    python benchmarks/records.py FOLDER [--runs 10000] [--repeats 3]

Writes two studies and the made-up records of their runs to FOLDER, unless they are there:

  seeds  five tasks, two learning rates, the full model and four strategies at ten K, many seeds
  sets   four tasks, every set of up to six of twelve layers: each run has a table row with only four runs
"""

import argparse
import itertools
import math
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.speed import ROOT, machine

SETTINGS = {"model_name_or_path": "demo", "precision": "fp32", "use_cpu": True}
COMMANDS = {
    "report": ["report", "store"],
    "report --html": ["report", "store", "--html", "report.html"],
    "report --runs": ["report", "store", "--runs", "runs.csv"],
    "sweep --plan, nothing done": ["sweep", "study.yaml", "--plan", "--store", "empty"],
    "sweep --plan, all done": ["sweep", "study.yaml", "--plan", "--store", "store"],
}


def studies(runs: int) -> dict[str, dict]:
    """The content of each study's file. runs: the least number of its cells."""
    tasks, rates = ["demo-sst2", "demo-rte", "demo-mrpc", "demo-stsb", "demo-cola"], [2e-5, 5e-5]
    strategies, ks = ["top", "bottom", "every-other", "contribution"], list(range(1, 11))
    each = len(tasks) * len(rates) * (1 + len(strategies) * len(ks))
    common = {"tasks": tasks, "learning_rate": rates, "seeds": list(range(math.ceil(runs / each)))}
    seeds = [common | {"k": 0}, common | {"strategies": strategies, "k": ks}]
    layers = [",".join(map(str, ids)) for k in range(1, 7) for ids in itertools.combinations(range(12), k)]
    layers = layers[: math.ceil(runs / 4)]
    sets = [{"tasks": tasks[:4], "k": 0}, {"tasks": tasks[:4], "drop_layers": layers}]
    return {"seeds": {"settings": SETTINGS, "grid": seeds}, "sets": {"settings": SETTINGS, "grid": sets}}


def make(folder: Path, study: dict) -> None:
    """Write a study and its records."""
    from layerdrop.cli.parsing import parse_settings
    from layerdrop.runs.environment import environment
    from layerdrop.runs.fingerprints import Fingerprints
    from layerdrop.sweeps.study import read_study

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    jobs = read_study(str(folder / "study.yaml"), str(folder / "store"), parse_settings).jobs
    chance, where, inputs = random.Random(1), environment(), Fingerprints()
    for job in jobs:
        if not Path(job.options.folder, "record.json").is_file():
            write_run(job, chance, where, inputs.of(job.spec, job.options))


def write_run(job, chance: random.Random, where: dict, inputs: dict) -> None:
    """Write the record, the results and empty predictions of a run, with made-up scores and seconds."""
    from layerdrop.runs.predictions import predictions_file
    from layerdrop.runs.record import RECORD_FILE, Cut, RunRecord
    from layerdrop.runs.results import result_files

    spec = job.spec
    dropped = list(spec.drop.layers) or list(range(12 - (spec.drop.k or 0), 12))
    record = RunRecord(spec, job.options.folder, "success", n_layers=12, environment=where, steps=300)
    record.cuts = [Cut(0, dropped, [i for i in range(12) if i not in dropped], "made up")] if dropped else []
    record.parameters_before, record.parameters_after = 2_515_458, 2_515_458 - 198_000 * len(dropped)
    record.metrics = {"loss": chance.random()} | {name: chance.random() for name in record.task.metrics}
    record.epochs = [{"step": 100 * i, "epoch": i, "train_loss": 0.5, "loss": 0.6} for i in (1.0, 2.0, 3.0)]
    record.seconds = {name: chance.uniform(1, 2) for name in ("load", "train", "evaluate", "inference", "total")}
    rows = {name: value for name, value in inputs.items() if isinstance(value, list)}
    record.data = {split: {"rows": n, "bad_rows": 0, "fingerprint": mark} for split, (n, mark) in rows.items()}
    record.fingerprints = {name: value for name, value in inputs.items() if name not in rows}
    record.distinct_predictions = {"validation": 500}
    files = {predictions_file(record.task, "validation"): "", **result_files(record)}
    Path(record.folder).mkdir(parents=True)
    for name, content in {**files, RECORD_FILE: record.to_json()}.items():
        Path(record.folder, name).write_text(content)


def measure(words: list[str], folder: Path) -> tuple[float, float, float]:
    """(seconds, seconds of the processor, peak memory in MB) of a command.

    The peak is at least the memory of this process, which therefore imports no torch before the measurement.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "layerdrop", *words], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"layerdrop {' '.join(words)}: failed in {folder}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def main() -> None:
    """Make the stores, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--make", action="store_true", help="only write the studies and records")
    args = parser.parse_args()
    if args.make:
        for name, study in studies(args.runs).items():
            make(args.folder / name, study)
        return
    subprocess.run([sys.executable, __file__, args.folder, "--runs", str(args.runs), "--make"], check=True)
    for name in studies(args.runs):
        n = sum(1 for _ in (args.folder / name / "store").iterdir())
        for command, words in COMMANDS.items():
            figures = [measure(words, args.folder / name) for _ in range(args.repeats)]
            seconds, of_processor, megabytes = map(statistics.median, zip(*figures, strict=True))
            line = f"{seconds:6.1f} s  {of_processor:6.1f} s of the processor  {megabytes:5.0f} MB"
            print(f"{name:<6} {n} runs  {command:<27} {line}", flush=True)
    print(machine())


if __name__ == "__main__":
    main()
