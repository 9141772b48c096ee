#!/usr/bin/env python
"""Speed on a GPU: python benchmarks/gpu.py (minutes on one H100; needs nothing but this repository)

BERT-base's shape with random weights, bf16, batch 32, pairs with MNLI's lengths (random words): training examples/s of
the stock recipe in bf16, of the same with torch.compile, of its best flags, and of run_glue.py with K = 0 and 6, in
alternating processes; examples/s of an evaluation; model FLOPs utilisation; a profile of ten steps with the number of
waits; and how many runs per hour a study of small tasks does, one after the other and packed. --tiny: a small model, to
try the command on a CPU.
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
from sides import GPU

TASK, SEED = "rte", 41
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}
"""Part of a GPU's name -> dense bf16 operations a second, from its data sheet."""
STUDY = """\
settings: {{model_name_or_path: {model}, data_dir: {data}, eval_strategy: "no", max_train_samples: {rows}}}
grid: {{tasks: rte, strategies: top, k: [0, {half}], seeds: 1}}
"""


def write_checkpoint(folder: Path, tiny: bool) -> int:
    """BERT-base with random weights, and a tokenizer of as many words; returns its number of layers."""
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
    """A task in RTE's layout, with pairs as long as MNLI's (log-normal, mean 39 tokens, standard deviation 18: ours);
    returns the mean number of tokens."""
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
    """Of a study with so many runs at once, once the processes have started; of its first seeds."""
    how = ["--runs_per_gpu", str(at_once)] if gpu else ["--workers", str(at_once)]
    words = [sys.executable, "-m", "layerdrop", "sweep", str(study), "--store", str(folder / f"packed{at_once}")]
    how += ["--seeds", *map(str, range(1, seeds + 1))]
    subprocess.run([*words, *how], check=True, capture_output=True)
    records = (folder / f"packed{at_once}").rglob("record.json")
    return at_once * 3600 / statistics.mean(json.loads(path.read_text())["seconds"]["total"] for path in records)


def main(argv: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a small model and few rows")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--without_compile", action="store_true", help="torch.compile takes a minute")
    args = parser.parse_args(argv)
    import torch

    gpu = torch.cuda.is_available()
    if gpu:
        speed.WARM_UP, speed.STEPS = 100, 200  # every length has been recorded by then
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        args.model_name_or_path, args.data_dir, args.full, args.profile = str(folder / "model"), made, False, False
        n = write_checkpoint(folder / "model", args.tiny)
        rows = 256 if args.tiny else 4096
        tokens = write_task(folder, rows, 500 if args.tiny else 30522)
        sides = [*(side for side in GPU if not (args.without_compile and side == "compiled")), "best", "once", "once K"]
        seen: dict[str, list[dict]] = {side: [] for side in sides}
        for _ in range(args.repeats):
            for side in sides:
                seen[side].append(speed.run(side.split()[0], TASK, args, n // 2 if side == "once K" else 0))
        print("| | examples/s | against the first | utilisation | evaluation, examples/s | peak GB | first step, s |")
        print("|---" * 7 + "|")
        first = None
        for side, found in seen.items():
            step = statistics.median(one["step"] for one in found)
            first = first or step
            name = f"layerdrop, K = {n // 2 if side == 'once K' else 0}" if side.startswith("once") else side
            peak, start = (statistics.median(one[key] for one in found) for key in ("peak", "first_step"))
            share = utilisation(speed.BATCH / step, tokens, n // 2 if side == "once K" else n) if gpu else None
            cells = [f"{speed.BATCH / step:,.0f}", f"{first / step:.2f} x", f"{share:.0%}" if share else ""]
            cells.append(f"{rows // 4 / statistics.median(one['evaluate'] for one in found):,.0f}")
            print(f"| {name} | " + " | ".join([*cells, f"{peak / 1e9:.1f}", f"{start:.1f}"]) + " |", flush=True)
        study = folder / "small.yaml"
        at_once = 2 if args.tiny else 8
        study.write_text(STUDY.format(model=args.model_name_or_path, data=made, rows=rows // 2, half=n // 2))
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


def utilisation(examples: float, tokens: float, layers: int) -> float | None:
    """Share of the GPU's peak that a training of BERT-base's layers uses: 6 operations for each parameter and token,
    padding left out. None for a GPU that is not in the table."""
    import torch

    name = torch.cuda.get_device_name()
    peak = next((peak for part, peak in PEAK.items() if part in name), None)
    return 6 * 7_087_872 * layers * tokens * examples / peak if peak else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
