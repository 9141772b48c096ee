#!/usr/bin/env python
"""Speed on a GPU: python benchmarks/gpu.py (minutes on one H100, needs only this repository)

Trains BERT-base's shape with random weights in bf16, batch 32, on random pairs with MNLI's lengths. Compares the stock
recipe in bf16, with torch.compile and with its best flags, and run_glue.py with K = 0 and 6, in alternating processes.
Prints training and evaluation examples/s, model FLOPs utilization, a profile of ten steps with the number of waits, and
the runs per hour of a small study, one run at a time and packed. --tiny tests the command with a small model on a CPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import speed

TASK, SEED = "rte", 41
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}
"""Part of a GPU's name -> dense bf16 operations a second, from its data sheet."""
STUDY = """\
settings: {{model_name_or_path: {model}, data_dir: {data}, eval_strategy: "no", max_train_samples: {rows}}}
grid: {{tasks: rte, strategies: top, k: [0, {half}], seeds: 1}}
"""


def write_checkpoint(folder: Path, tiny: bool) -> int:
    """Write BERT-base with random weights and a tokenizer of its vocabulary size. Returns its number of layers."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

    set_seed(SEED)
    small = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(**small, vocab_size=500) if tiny else BertConfig()
    BertForSequenceClassification(config).to(torch.float32).save_pretrained(folder)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(5, config.vocab_size))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(folder)
    return config.num_hidden_layers


def write_task(folder: Path, rows: int, vocabulary: int) -> float:
    """Write a task in RTE's layout with MNLI's lengths (log-normal with a mean of 39 tokens; the standard
    deviation of 18 is our choice). Returns the mean number of tokens."""
    import numpy as np

    from layerdrop.deploy.cost import lengths_like

    draw, lengths = np.random.default_rng(SEED), lengths_like(rows, 39.0, 18.0, 128)
    (folder / "RTE").mkdir(parents=True)
    for name, part in (("train", lengths), ("dev", lengths[: rows // 4])):
        lines = ["index\tsentence1\tsentence2\tlabel"]
        for i, length in enumerate(part):
            words = [f"w{j}" for j in draw.integers(5, vocabulary, length - 3)]
            first = len(words) * 2 // 3
            label = ("entailment", "not_entailment")[i % 2]
            lines.append(f"{i}\t{' '.join(words[:first])}\t{' '.join(words[first:])}\t{label}")
        (folder / "RTE" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return sum(lengths) / rows


def runs_per_hour(folder: Path, study: Path, seeds: int, at_once: int, gpu: bool) -> float:
    """Runs per hour of a study with `at_once` runs at a time, excluding the start of the processes."""
    store = folder / f"packed{at_once}"
    how = ["--runs_per_gpu" if gpu else "--workers", str(at_once), "--seeds", *map(str, range(1, seeds + 1))]
    words = [sys.executable, "-m", "layerdrop", "sweep", str(study), "--store", str(store), *how]
    subprocess.run(words, check=True, capture_output=True)
    seconds = (json.loads(path.read_text())["seconds"]["total"] for path in store.rglob("record.json"))
    return at_once * 3600 / statistics.mean(seconds)


def print_table(runs: dict[str, list[dict]], half: int, rows: int, tokens: float, gpu: bool) -> None:
    """Print a row of Markdown for each side. half: half of the model's depth."""
    print("| | examples/s | against the first | utilization | evaluation, examples/s | peak GB | first step, s |")
    print("|---" * 7 + "|")
    first = None
    for side, results in runs.items():
        step, evaluation, peak, start = (
            statistics.median(result[key] for result in results) for key in ("step", "evaluate", "peak", "first_step")
        )
        first, k = first or step, half if side == "once K" else 0
        share = utilization(speed.BATCH / step, tokens, 2 * half - k) if gpu else None
        name = f"layerdrop, K = {k}" if side.startswith("once") else side
        print(
            f"| {name} | {speed.BATCH / step:,.0f} | {first / step:.2f} x | {f'{share:.0%}' if share else ''} "
            f"| {rows // 4 / evaluation:,.0f} | {peak / 1e9:.1f} | {start:.1f} |",
            flush=True,
        )


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small model and few rows")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--without_compile", action="store_true", help="skip torch.compile, which takes a minute")
    args = parser.parse_args(argv)
    import torch

    gpu = torch.cuda.is_available()
    if gpu:
        speed.WARM_UP, speed.STEPS = 100, 200  # every length is captured after the warm-up
    with tempfile.TemporaryDirectory() as data:
        folder = Path(data)
        args.model_name_or_path, args.data_dir, args.full, args.profile = str(folder / "model"), data, False, False
        half, rows = write_checkpoint(folder / "model", args.tiny) // 2, 256 if args.tiny else 4096
        tokens = write_task(folder, rows, 500 if args.tiny else 30522)
        sides = [*(side for side in speed.GPU if not (args.without_compile and side == "compiled"))]
        sides += ["best", "once", "once K"]
        runs: dict[str, list[dict]] = {side: [] for side in sides}
        for _ in range(args.repeats):
            for side in sides:
                runs[side].append(speed.run(side.split()[0], TASK, args, half if side == "once K" else 0))
        print_table(runs, half, rows, tokens, gpu)
        study, at_once = folder / "small.yaml", 2 if args.tiny else 8
        study.write_text(STUDY.format(model=args.model_name_or_path, data=data, rows=rows // 2, half=half))
        alone, packed = (runs_per_hour(folder, study, *how, gpu) for how in ((2, 1), (at_once, at_once)))
        print(
            f"\nruns per hour: {alone:,.0f} one after the other, {packed:,.0f} with {at_once} at once "
            f"({packed / alone:.2f} x)",
            flush=True,
        )
        args.profile = True
        speed.run("once", TASK, args)
    print(speed.machine())
    return 0


def utilization(examples: float, tokens: float, layers: int) -> float | None:
    """Model FLOPs utilization in training BERT-base's layers: 6 operations for each parameter and token, without
    padding, as a share of the GPU's peak. None for a GPU that is not in PEAK."""
    import torch

    name = torch.cuda.get_device_name()
    peak = next((peak for part, peak in PEAK.items() if part in name), None)
    return 6 * 7_087_872 * layers * tokens * examples / peak if peak else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
