#!/usr/bin/env python
"""Speed of training, alone and beside a second copy of itself, for several ways in which OpenMP's threads wait.

    python benchmarks/threads.py [--seconds 5] [--repeats 3] [--batch_sizes 32 8] [--settings GOMP_SPINCOUNT=1000 ...]

Trains a BERT of MiniLM's shape with random weights on sentences of 14 tokens, in processes of their own. Prints the
median of tokens/s for each setting: of a process alone, and of each of two at once. Run it on a machine without other
work. A setting is a variable of the environment, several joined by commas, or `none`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from layerdrop.system.process import WAITING, busy_note, prepare_process

SPINS = (0, 100, 1000, 10_000, 100_000)
SETTINGS = ("none", "OMP_WAIT_POLICY=passive", "OMP_NUM_THREADS=1", *(f"GOMP_SPINCOUNT={n}" for n in SPINS))
TOKENS = 14


# ---- one process ----------------------------------------------------------------------------------------------------
def train(batch_size: int, seconds: float) -> None:
    """Print a line when ready, wait for one, train for so long, and print tokens/s."""
    unset = not any(name in os.environ for name in WAITING)
    prepare_process()
    if unset:
        del os.environ["GOMP_SPINCOUNT"]
    import torch
    from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

    from layerdrop.finetune.speedups import speedups
    from layerdrop.system.process import has_bf16

    config = BertConfig(
        vocab_size=10_000, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    model = BertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-5, weight_decay=0, fused=True)
    ids = torch.randint(5, config.vocab_size, (batch_size, TOKENS))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(use_cpu=True)):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    with speedups(model, TrainingArguments("unused", use_cpu=True, report_to=[]), train=True):
        for _ in range(5):
            step()
        print("ready", flush=True)
        input()
        start, steps = time.perf_counter(), 0
        while time.perf_counter() < start + seconds:
            step()
            steps += 1
        print(steps * ids.numel() / (time.perf_counter() - start), flush=True)
        input()


# ---- the table ------------------------------------------------------------------------------------------------------
def measure(setting: str, copies: int, batch_size: int, seconds: float) -> list[float]:
    """Tokens/s of each of some copies that train at the same time."""
    inherited = {name: value for name, value in os.environ.items() if name not in (*WAITING, "OMP_NUM_THREADS")}
    environment = inherited | dict(pair.split("=") for pair in setting.split(",") if setting != "none")
    words = [sys.executable, __file__, "--train", str(batch_size), str(seconds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    processes = [subprocess.Popen(words, env=environment, **pipes) for _ in range(copies)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    speeds = [float(process.stdout.readline()) for process in processes]
    for process in processes:
        process.communicate("\n")
    return speeds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[32, 8])
    parser.add_argument("--settings", nargs="+", default=SETTINGS)
    args = parser.parse_args()
    print(busy_note(1.0) or "no other process is busy", file=sys.stderr)
    columns = [(copies, size) for size in args.batch_sizes for copies in (1, 2)]
    speeds: dict[tuple, list[float]] = {}
    for _ in range(args.repeats):
        for setting in args.settings:
            for copies, size in columns:
                speeds.setdefault((setting, copies, size), []).extend(measure(setting, copies, size, args.seconds))
    names = [f"{'alone' if copies == 1 else 'each of 2'}, batch {size}" for copies, size in columns]
    print("tokens/s (median, range)".ljust(28), *(f"{name:>26}" for name in names))
    for setting in args.settings:
        cells = [speeds[(setting, *column)] for column in columns]
        texts = [f"{statistics.median(cell):.0f} ({min(cell):.0f} to {max(cell):.0f})" for cell in cells]
        print(setting.ljust(28), *(f"{text:>26}" for text in texts), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(int(sys.argv[2]), float(sys.argv[3]))
    else:
        main()
