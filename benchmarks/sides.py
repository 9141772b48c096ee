"""The two recipes that are compared: the commands that run them, in processes of their own."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from layerdrop.system.process import has_bf16

ROOT = Path(__file__).resolve().parent.parent
STOCK = ("stock", "best")
OURS = ("once", "ours")
GPU = ("stock_bf16", "compiled")
"""What benchmarks/gpu.py compares with."""
FLAGS = {
    "stock": [],
    "best": ["--padding", "batch", "--group"],  # and --bf16
    "stock_bf16": ["--bf16"],
    "compiled": ["--bf16", "--compile"],
    "once": ["--eval_strategy", "no"],
    "ours": [],
}
EXPLAINED = """\
stock  the stock recipe as it comes (benchmarks/stock.py); evaluates at the end alone and saves nothing
best   the same with the best flags it has: bf16 where the hardware has it
once   run_glue.py, evaluating at the end alone; saves the model
ours   run_glue.py as it comes, evaluating after each epoch too
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of every comparison."""
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--data_dir", required=True)


def command(side: str, task: str, args: argparse.Namespace, folder: str, *flags: str) -> list[str]:
    """The script and its words; folder: for what run_glue.py writes."""
    script = "run_glue.py" if side in OURS else "benchmarks/stock.py"
    where = ["--output_dir", folder] if side in OURS else []
    words = ["--model_name_or_path", args.model_name_or_path, "--data_dir", args.data_dir, "--task_name", task]
    precision = ["--bf16"] if side == "best" and has_bf16() else []
    return [str(ROOT / script), *words, *where, *FLAGS[side], *precision, *flags]


def output(words: list[str], **environment: str) -> str:
    """The output of a Python command; its failure ends the benchmark with a message."""
    words = [sys.executable, *words]
    done = subprocess.run(words, env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr[-3000:]}")
    return done.stdout
