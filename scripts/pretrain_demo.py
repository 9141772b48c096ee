#!/usr/bin/env python
"""Pre-train the demo encoder (layerdrop/demo/checkpoint) by masked language modeling on the demo language.

    python scripts/pretrain_demo.py [--output FOLDER] [--steps N N N]

BERT architecture. Training starts with 3 layers, and doubles the depth twice by stacking a copy of the layers on top
(progressive stacking, Gong et al. 2019). A deep narrow model learns slowly from random weights. Uses a GPU if
available. Two cores are enough. `pretraining.json` beside the weights has the settings, the loss, the duration and the
hash of the weights.
"""

import argparse
import copy
import hashlib
import json
import sys
import time
from collections.abc import Iterator
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

from layerdrop.data.read import DEMO_FOLDER
from layerdrop.runs.environment import environment
from layerdrop.system.files import umask
from layerdrop.system.process import has_bf16
from scripts.demo_language import text, vocabulary

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word, and BERT's special tokens and token types."""
    ids = {token: i for i, token in enumerate((*SPECIAL, *vocabulary()))}
    raw = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=64, model_input_names=inputs, **names)


def make_model(vocabulary_size: int, n_layers: int) -> BertForMaskedLM:
    """A BERT with 128 hidden units and random weights."""
    return BertForMaskedLM(
        BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=128,
            num_hidden_layers=n_layers,
            num_attention_heads=4,
            intermediate_size=512,
            max_position_embeddings=64,
        )
    )


def stack(model: BertForMaskedLM) -> BertForMaskedLM:
    """Double the depth: stack a copy of the layers on top."""
    layers = model.bert.encoder.layer
    deeper = make_model(model.config.vocab_size, 2 * len(layers)).to(model.device).train()
    deeper.load_state_dict(model.state_dict(), strict=False)
    for below, above in zip(layers, deeper.bert.encoder.layer[len(layers) :], strict=True):
        above.load_state_dict(below.state_dict())
    return deeper


def make_optimizer(model: BertForMaskedLM, learning_rate: float, steps: int, done: int = 0):
    """(AdamW, linear schedule with warm-up) over all steps. done: the number of finished steps."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    for group in optimizer.param_groups:
        group["initial_lr"] = learning_rate
    return optimizer, get_linear_schedule_with_warmup(optimizer, steps // 20, steps, last_epoch=done - 1)


def batches(tokenizer: PreTrainedTokenizerFast, random: Random, size: int) -> Iterator[list[dict]]:
    """Yield batches of texts of similar length, in random order."""
    while True:
        texts = [text(random) for _ in range(100 * size)]
        rows = [tokenizer(*(part for part in parts if part), return_special_tokens_mask=True) for parts in texts]
        rows.sort(key=lambda row: len(row["input_ids"]))
        of_length = [rows[i : i + size] for i in range(0, len(rows), size)]
        random.shuffle(of_length)
        while of_length:
            yield of_length.pop()


def pretrain(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast, device: torch.device, bf16: bool):
    """Train the model. Returns (model, step -> mean loss since the previous entry)."""
    model = make_model(len(tokenizer), 3).to(device).train()
    steps, deeper_after = sum(args.steps), (args.steps[0], sum(args.steps[:2]))
    optimizer, schedule = make_optimizer(model, args.learning_rate, steps)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=args.mask)
    texts = batches(tokenizer, Random(args.seed), args.batch)
    losses: list[torch.Tensor] = []
    curve: dict[int, float] = {}
    for step in tqdm(range(1, steps + 1), mininterval=5):
        batch = collator(next(texts)).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if step in deeper_after:
            model = stack(model)
            optimizer, schedule = make_optimizer(model, args.learning_rate, steps, done=step)
        if step % max(1, steps // 40) == 0:
            curve[step] = round(float(torch.stack(losses).mean()), 4)
            losses.clear()
            tqdm.write(f"step {step}: loss {curve[step]}")
            if args.snapshots:
                save(model, tokenizer, args.snapshots / f"step-{step}", {})
    return model, curve


def main() -> None:
    """Pre-train, and save the encoder in fp16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DEMO_FOLDER / "checkpoint")
    parser.add_argument("--snapshots", type=Path, help="folder for forty snapshots of the encoder during training")
    parser.add_argument(
        "--steps", type=int, nargs=3, default=(4000, 2000, 4000), help="training steps with 3, 6 and 12 layers"
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--mask", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.output.exists() and any(args.output.iterdir()) and not (args.output / "pretraining.json").exists():
        parser.error(
            f"--output {args.output}: holds files other than an encoder of this script. Choose another folder."
        )
    started = time.perf_counter()
    set_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bf16, tokenizer = has_bf16(use_cpu=device.type == "cpu"), make_tokenizer()
    model, curve = pretrain(args, tokenizer, device, bf16)
    record = {
        "settings": {name: value for name, value in vars(args).items() if name not in ("output", "snapshots")},
        "loss": curve,
        "seconds": round(time.perf_counter() - started),
        "precision": "bf16" if bf16 else "fp32",
        "device": environment()["device"],
        "versions": environment()["versions"],
    }
    save(model, tokenizer, args.output, record)
    print(f"{args.output}: last loss {np.round(list(curve.values())[-1], 3)}")


def save(model: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, folder: Path, record: dict) -> None:
    """Save the encoder in fp16, its tokenizer, and the record with the hash of the weights."""
    encoder = copy.deepcopy(model.bert).half().cpu()
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = folder / "model.safetensors"
    weights.chmod(0o666 & ~umask())
    record = record | {"sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    (folder / "pretraining.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    from layerdrop.system.process import tolerate_broken_output

    tolerate_broken_output()
    main()
