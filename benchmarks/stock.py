#!/usr/bin/env python
"""The baseline of the speed benchmarks: a plain GLUE script on the library's Trainer with its own defaults.

    python benchmarks/stock.py --model_name_or_path CHECKPOINT --data_dir GLUE --task_name rte

Every sentence padded to 128 tokens, batch 32 in random order, 3 epochs, fp32, one evaluation at the end. `--padding
batch --group --bf16`: the best that its flags offer (batches padded to their longest example, grouped by length).
`--padding batch` alone: the recipe's own numbers up to rounding, in less time. Prints one line of JSON.
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
from layerdrop.data.tasks import get_task


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--task_name", required=True)
    parser.add_argument("--padding", choices=("max", "batch"), default="max")
    parser.add_argument("--group", action="store_true", help="batches of like length")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--max_train_samples", type=int)
    args = parser.parse_args()
    task = get_task(args.task_name)
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)

    def dataset(split: str, n: int | None) -> Dataset:
        rows = read_glue_split(args.data_dir, task, split).head(n)
        columns = {f"text{i}": texts for i, texts in enumerate(rows.texts)} | {"label": rows.labels.tolist()}
        padding = "max_length" if args.padding == "max" else False
        names = [name for name in columns if name != "label"]
        return Dataset.from_dict(columns).map(
            lambda batch: tokenizer(*(batch[n] for n in names), padding=padding, max_length=128, truncation=True),
            batched=True,
            remove_columns=names,
        )

    train = dataset("train", args.max_train_samples)
    dev = dataset(task.splits("validation")[0], None)
    model = AutoModelForSequenceClassification.from_pretrained(args.model_name_or_path, num_labels=task.num_labels)

    def measure(outcome) -> dict[str, float]:
        logits = outcome.predictions
        decided = logits.reshape(-1) if not task.labels else logits.argmax(-1)
        return metrics.compute(task.metrics, decided, outcome.label_ids, task.positive)

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
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
            train_dataset=train,
            eval_dataset=dev,
            compute_metrics=measure,
            processing_class=tokenizer,
            data_collator=default_data_collator if args.padding == "max" else DataCollatorWithPadding(tokenizer),
        )
        start = time.perf_counter()
        trainer.train()
        trained = time.perf_counter()
        found = trainer.evaluate()
        seconds = {"train": trained - start, "evaluate": time.perf_counter() - trained}
    scores = {name: found[f"eval_{name}"] for name in task.metrics}
    print(json.dumps({"metrics": scores, "seconds": seconds}))


if __name__ == "__main__":
    main()
