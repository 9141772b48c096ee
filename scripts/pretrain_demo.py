#!/usr/bin/env python
"""Pre-train the miniature encoder of layerdrop/demo/checkpoint: masked language modelling on the artificial English.

    python scripts/pretrain_demo.py [--output FOLDER] [--steps N]

BERT architecture, 12 layers. A GPU is used where there is one; two cores are enough. The settings, the loss and the
duration are written beside the weights, into pretraining.json, with the weights' hash.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    get_linear_schedule_with_warmup,
    set_seed,
)

from layerdrop.arguments import cpu_has_bf16
from layerdrop.demo import CHECKPOINT
from layerdrop.demo.language import text, vocabulary
from layerdrop.runs import environment

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word; special tokens and token types as BERT has them."""
    ids = {token: i for i, token in enumerate((*SPECIAL, *vocabulary()))}
    raw = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=64, model_input_names=inputs, **names)


def make_model(vocabulary_size: int) -> BertForMaskedLM:
    """12 layers of 128 hidden units, with random weights."""
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=128,
            num_hidden_layers=12,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=64,
        )
    )


def main() -> None:
    """Pre-train, and save the encoder in fp16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=CHECKPOINT)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--mask", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    started = time.perf_counter()
    set_seed(args.seed)
    random = Random(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_bf16()
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer)).to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    schedule = get_linear_schedule_with_warmup(optimizer, args.steps // 20, args.steps)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=args.mask)
    losses: list[torch.Tensor] = []
    curve: dict[int, float] = {}
    ready: list[list[dict]] = []
    for step in tqdm(range(1, args.steps + 1), mininterval=5):
        if not ready:  # texts of like length together, batches in random order
            texts = [text(random) for _ in range(100 * args.batch)]
            rows = [tokenizer(*(part for part in parts if part), return_special_tokens_mask=True) for parts in texts]
            rows.sort(key=lambda row: len(row["input_ids"]))
            ready = [rows[i : i + args.batch] for i in range(0, len(rows), args.batch)]
            random.shuffle(ready)
        batch = collator(ready.pop()).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if step % max(1, args.steps // 40) == 0:
            curve[step] = round(float(torch.stack(losses).mean()), 4)
            losses.clear()
            tqdm.write(f"step {step}: loss {curve[step]}")

    encoder = model.bert.half().cpu()
    encoder.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    weights = args.output / "model.safetensors"
    record = {
        "settings": {name: value for name, value in vars(args).items() if name != "output"},
        "loss": curve,
        "seconds": round(time.perf_counter() - started),
        "precision": "bf16" if bf16 else "fp32",
        "device": environment()["device"],
        "versions": environment()["versions"],
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    (args.output / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB, last loss {np.round(list(curve.values())[-1], 3)}")


if __name__ == "__main__":
    main()
