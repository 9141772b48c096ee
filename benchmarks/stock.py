#!/usr/bin/env python
"""Baseline of the speed benchmarks: a plain GLUE script on the library's Trainer with the Trainer's defaults.

    python benchmarks/stock.py --model_name_or_path CHECKPOINT --data_dir GLUE --task_name rte

Pads every text to 128 tokens, trains 3 epochs in fp32 with batches of 32 in random order, and evaluates at the end. The
best flags are `--padding batch --group --bf16`: batches are padded to their longest text and grouped by length.
`--padding batch` alone changes the results only by rounding. Prints one line of JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from layerdrop.data import metrics
from layerdrop.data.glue import read_glue_split
from layerdrop.data.tasks import Task, get_task


def tokenized(args: argparse.Namespace, task: Task, tokenizer, split: str, n: int | None) -> Dataset:
    """The first n rows of a split."""
    rows = read_glue_split(args.data_dir, task, split).head(n)
    texts = {f"text{i}": texts for i, texts in enumerate(rows.texts)}
    padding = "max_length" if args.padding == "max" else False
    return Dataset.from_dict(texts | {"label": rows.labels.tolist()}).map(
        lambda batch: tokenizer(*(batch[name] for name in texts), padding=padding, max_length=128, truncation=True),
        batched=True,
        remove_columns=list(texts),
    )


def make_trainer(args: argparse.Namespace, task: Task, folder: str) -> Trainer:
    """The library's Trainer on a GLUE task."""
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)

    def measure(outcome) -> dict[str, float]:
        logits = outcome.predictions
        predictions = logits.argmax(-1) if task.labels else logits.reshape(-1)
        return metrics.compute(task.metrics, predictions, outcome.label_ids, task.positive)

    return Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(
            args.model_name_or_path, num_labels=max(1, len(task.labels))
        ),
        args=TrainingArguments(
            folder,
            num_train_epochs=3,
            learning_rate=2e-5,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=8 if args.padding == "max" else 32,
            seed=args.seed,
            bf16=args.bf16,
            torch_compile=args.compile,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.accelerator.is_available(),
            train_sampling_strategy="group_by_length" if args.group else "random",
        ),
        train_dataset=tokenized(args, task, tokenizer, "train", args.max_train_samples),
        eval_dataset=tokenized(args, task, tokenizer, task.splits("validation")[0], None),
        compute_metrics=measure,
        processing_class=tokenizer,
        data_collator=default_data_collator if args.padding == "max" else DataCollatorWithPadding(tokenizer),
    )


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--model_name_or_path", "--data_dir", "--task_name"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--padding", choices=("max", "batch"), default="max")
    parser.add_argument("--group", action="store_true", help="group batches by length")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--max_train_samples", type=int)
    args = parser.parse_args()
    task = get_task(args.task_name)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(args, task, folder)
        start = time.perf_counter()
        trainer.train()
        trained = time.perf_counter()
        scores = trainer.evaluate()
        seconds = {"train": trained - start, "evaluate": time.perf_counter() - trained}
    print(json.dumps({"metrics": {name: scores[f"eval_{name}"] for name in task.metrics}, "seconds": seconds}))


if __name__ == "__main__":
    main()
