#!/usr/bin/env python
"""What models cost: python scripts/cost.py MODEL_OR_RUN [MODEL_OR_RUN ...] [--drop_strategy top --k 0 2 4 6]

Parameters, checkpoint size, operations, seconds of inference and fine-tuning. Models are timed in turn, round by round,
so that a noisy machine harms all alike; ratios are to the first one, beside what its operations would give. MODEL is a
folder or hub name, or random:TYPE for the library's default size of a model type (random:bert is BERT-base). Texts are
random ids: a single text of 128 tokens, and pairs with QQP's lengths in batches (Peer et al. 2022, Table 2; Sajjad et
al. 2023, Table 3). The result is kept in --store.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # before anything imports torch
    from layerdrop.process import prepare_process

    prepare_process()


def main(argv: list[str]) -> int:
    """The exit code: 0 done, 2 unusable input."""
    from layerdrop.errors import UserError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders of runs or checkpoints, hub names, random:TYPE")
    parser.add_argument("--drop_strategy", default="top", help="with --k: which layers (a strategy without scores)")
    parser.add_argument("--k", nargs="+", type=int, default=[0], help="numbers of layers to drop from each model")
    parser.add_argument("--texts", type=int, default=256, help="number of pairs with QQP's lengths")
    parser.add_argument("--length", type=int, default=128, help="tokens of the single text, and of counted operations")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--use_cpu", action="store_true")
    parser.add_argument("--compare", choices=("sajjad2023",), help="published figures beside one's own")
    parser.add_argument("--store", default="runs/cost", help="folder of the result")
    parser.add_argument("--format", choices=("md", "latex", "csv"), default="md", help="of the table")
    args = parser.parse_args(argv)
    try:
        for name in ("texts", "length", "batch_size", "repeats"):
            if getattr(args, name) < 1:
                raise UserError(f"--{name} {getattr(args, name)}: must be 1 or more.")
        print(measure(args))
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    return 0


def measure(args: argparse.Namespace) -> str:
    """The table; the result is in the store."""
    import torch

    from layerdrop.cost import Setting, describe, lengths_like_qqp, time_inference, time_training
    from layerdrop.process import busy_note
    from layerdrop.report.render import render
    from layerdrop.runs.environment import environment

    if note := busy_note():
        print(f"note: {note}", file=sys.stderr)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.use_cpu else "cpu")
    models = {name: model.to(device) for name, model in load(args).items()}
    if (longest := min(map(longest_input, models.values()))) < args.length:
        print(f"note: --length {args.length}: the models take {longest} tokens at most", file=sys.stderr)
        args.length = longest
    costs = {name: describe(model, args.length) for name, model in models.items()}
    single = Setting((args.length,) * 8, 1, args.precision)
    pairs = Setting(lengths_like_qqp(args.texts, longest), args.batch_size, args.precision)
    time_inference(models, costs, "single", single, args.repeats)
    time_inference(models, costs, "batch", pairs, args.repeats)
    time_training(models, costs, pairs, args.repeats)
    where = environment(args.use_cpu)
    settings = {name: getattr(args, name) for name in ("texts", "length", "batch_size", "precision", "repeats")}
    result = {
        "settings": settings,
        "environment": where,
        "models": {n: dataclasses.asdict(c) for n, c in costs.items()},
    }
    path = Path(args.store) / "cost.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"the figures are in {path}", file=sys.stderr)
    return render([table(args, models, costs, pairs, where)], args.format)


def longest_input(model) -> int:
    """Tokens that a model takes at most, 512 where its positions are relative."""
    from layerdrop.architectures import family_of

    positions = getattr(model.config, "max_position_embeddings", None) or -1
    if positions < 0:
        return 512
    after = model.config.model_type in family_of(model.config).positions_after_padding
    return positions - (model.config.pad_token_id + 1 if after else 0)


def load(args: argparse.Namespace) -> dict:
    """Name -> model, each with its layers dropped. Raises UserError."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from layerdrop.checkpoints import Checkpoint, is_local, work_offline_unless_reachable
    from layerdrop.errors import UserError, unknown
    from layerdrop.loading import load_classifier
    from layerdrop.strategies import get_strategy, select
    from layerdrop.surgery import drop_layers

    row, found = get_strategy(args.drop_strategy), {}
    if not row.positions:
        raise UserError(f"--drop_strategy {row.name}: chooses by more than the depth. Give folders of runs instead.")
    for given in args.models:
        name = Path(given.rstrip("/")).name
        for k in args.k:
            if given.startswith("random:"):
                kind = given.removeprefix("random:")
                if kind not in CONFIG_MAPPING:
                    raise unknown("random:", kind, CONFIG_MAPPING)
                model = _random(CONFIG_MAPPING[kind]())
                drop_layers(model, select(row.name, model.config.num_hidden_layers, k=k))
            else:
                if not is_local(given) and given != "demo":
                    work_offline_unless_reachable()
                checkpoint = Checkpoint.open(given)
                model, _ = load_classifier(checkpoint, select(row.name, checkpoint.n_layers, k=k))
            found[f"{name}, {row.name} K = {k}" if k or len(args.k) > 1 else name] = model
    return found


def _random(config):
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(41)
    return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()


PUBLISHED = {0: ("1.00", "+0%"), 2: ("1.24", "-17%"), 4: ("1.48", "-33%"), 6: ("1.94", "-50%")}
"""Sajjad et al. (2023), Table 3, BERT: K -> fine-tuning speed-up, inference time."""


def table(args: argparse.Namespace, models: dict, costs: dict, pairs, where: dict):
    """A row for each model."""
    from layerdrop.cost import ratios
    from layerdrop.report.tables.base import Table

    first, rows, values = next(iter(costs.values())), [], []
    for (name, cost), model in zip(costs.items(), models.values(), strict=True):
        row = [name, f"{cost.parameters / 1e6:.1f}", f"{cost.encoder / 1e6:.1f}", f"{cost.megabytes:.0f}"]
        row += [f"{cost.flops / 1e9:.2f}", f"{cost.flops / first.flops:.2f}"]
        value = {"model": name, "layers": model.config.num_hidden_layers, "parameters": cost.parameters}
        value |= {"encoder": cost.encoder, "embeddings": cost.embeddings, "megabytes": cost.megabytes}
        value |= {"flops": cost.flops, "flops_ratio": cost.flops / first.flops}
        for kind, of in (("single", 8), ("batch", len(pairs.lengths))):
            seconds = cost.inference[kind]
            middle, low, high = ratios(seconds, first.inference[kind])
            row.append(f"{1000 * statistics.median(seconds) / of:.1f} ms ({middle:.2f} [{low:.2f}, {high:.2f}])")
            value |= {f"{kind}_seconds": statistics.median(seconds) / of, f"{kind}_ratio": middle}
        middle, low, high = ratios(first.training, cost.training)
        row.append(f"{statistics.median(cost.training):.1f} s ({middle:.2f} x [{low:.2f}, {high:.2f}])")
        value |= {"training_seconds_per_1000": statistics.median(cost.training), "training_speed_up": middle}
        if args.compare:
            k = first_layers(models) - model.config.num_hidden_layers
            row += PUBLISHED.get(k, ("", ""))
        rows.append(row)
        values.append(value)
    header = ["model", "parameters, M", "of the layers, M", "MB", f"GFLOPs at {args.length} tokens", "ratio"]
    header += ["one text (ratio)", f"text in batches of {args.batch_size} (ratio)", "training, 1,000 texts (speed-up)"]
    header += ["published speed-up", "published inference"] * bool(args.compare)
    notes = [
        f"Median of {args.repeats} rounds; ratios to the first row, round by round: median [lowest, highest]. Batches: "
        f"{len(pairs.lengths):,} random texts of {pairs.mean_length:.0f} tokens on average, padded by batch.",
        f"{where['device']}, {where['threads']} threads, {args.precision}, torch {where['versions']['torch']}, "
        f"transformers {where['versions']['transformers']}.",
    ]
    return Table("cost", "cost", header, rows, notes, values)


def first_layers(models: dict) -> int:
    """Depth of the first model."""
    return next(iter(models.values())).config.num_hidden_layers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
