#!/usr/bin/env python
"""What models cost: python scripts/cost.py MODEL_OR_RUN [MODEL_OR_RUN ...] [--drop_strategy top --k 0 2 4 6]

Parameters, checkpoint size, operations, seconds of inference and fine-tuning, peak memory. Models are timed in turn,
round by round, so that a noisy machine harms all alike; ratios are to the first one, beside what its operations would
give. MODEL is a folder or hub name, or random:TYPE for the library's default size of a model type (random:bert is
BERT-base). Texts are random ids: a single text of 128 tokens, and pairs with QQP's lengths in batches (Peer et al.
2022, Table 2; Sajjad et al. 2023, Table 3). Each call leaves a record in --store; scripts/report.py STORE --table cost
shows them all.
"""

import argparse
import dataclasses
import json
import sys
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # before anything imports torch
    from layerdrop.system.process import prepare_process

    prepare_process()

SINGLES = 8
"""Single texts in a round."""


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 unusable input."""
    from layerdrop.cli.limits import check_numbers
    from layerdrop.errors import UserError
    from layerdrop.system.files import LocalPath

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", type=LocalPath, nargs="+", help="folders of runs or checkpoints, hub names, random:TYPE"
    )
    parser.add_argument("--drop_strategy", default="top", help="with --k: which layers (a strategy without scores)")
    parser.add_argument("--k", nargs="+", type=int, default=[0], help="numbers of layers to drop from each model")
    parser.add_argument("--texts", type=int, default=256, help="number of pairs with QQP's lengths")
    parser.add_argument("--length", type=int, default=128, help="tokens of the single text, and of counted operations")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--use_cpu", action="store_true")
    parser.add_argument("--compare", choices=("sajjad2023", "peer2022"), help="published figures beside one's own")
    parser.add_argument("--store", type=LocalPath, default="runs/cost", help="folder of the records")
    parser.add_argument("--format", choices=("md", "latex", "csv"), default="md", help="of the table")
    args = parser.parse_args(argv)
    try:
        check_numbers(vars(args))
        record = measure(args)
        from layerdrop.report.table import render
        from layerdrop.report.tables.model_cost import model_cost_table

        print(render([model_cost_table(record, args.compare)], args.format))
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    return 0


def measure(args: argparse.Namespace) -> dict:
    """The record, which is in the store too. Raises UserError."""
    from layerdrop.criteria.table import get_strategy
    from layerdrop.deploy.cost import (
        MeasuredModel,
        Setting,
        describe,
        lengths_like_qqp,
        longest_input,
        peaks,
        time_inference,
        time_training,
    )
    from layerdrop.errors import UserError
    from layerdrop.runs.environment import environment
    from layerdrop.system.files import make_folder, write_atomically
    from layerdrop.system.process import busy_note, collect_from_now_on

    collect_from_now_on()
    row = get_strategy(args.drop_strategy)
    if not row.positions:
        raise UserError(f"--drop_strategy {row.name}: chooses by more than the depth. Give folders of runs instead.")
    if note := busy_note():
        print(f"note: {note}", file=sys.stderr)
    reduced = {}
    for model in (MeasuredModel(given, row.name, k) for given in args.models for k in args.k):
        if model.name in reduced:
            raise UserError(f"{model.given}: a model named '{model.name}' is there already. Each name once.")
        reduced[model.name] = model
    make_folder("--store", args.store)
    models = {name: model.load(args.use_cpu) for name, model in reduced.items()}
    if (longest := min(map(longest_input, models.values()))) < args.length:
        print(f"note: --length {args.length}: the models take {longest} tokens at most", file=sys.stderr)
        args.length = longest
    costs = {name: describe(model, args.length) for name, model in models.items()}
    single = Setting((args.length,) * SINGLES, 1, args.precision)
    pairs = Setting(lengths_like_qqp(args.texts, longest), args.batch_size, args.precision)
    time_inference(models, costs, "single", single, args.repeats)
    time_inference(models, costs, "batch", pairs, args.repeats)
    time_training(models, costs, pairs, args.repeats)
    kinds = {name: (model.config.model_type, model.config.num_hidden_layers) for name, model in models.items()}
    models.clear()
    for name, cost in costs.items():
        cost.peak_inference, cost.peak_training = peaks(reduced[name], pairs, args.use_cpu)
    now = datetime.now()
    settings = {name: getattr(args, name) for name in ("texts", "length", "batch_size", "precision", "repeats")}
    settings |= {"singles": SINGLES, "mean_length": pairs.mean_length, "date": f"{now:%Y-%m-%d}"}
    rows = [
        {"name": name, "model_type": kinds[name][0], "layers": kinds[name][1], **dataclasses.asdict(cost)}
        for name, cost in costs.items()
    ]
    record = {"settings": settings, "environment": environment(args.use_cpu), "models": rows}
    path = Path(args.store) / f"cost_{now:%Y%m%d_%H%M%S_%f}.json"
    write_atomically(path, json.dumps(record, indent=1) + "\n")
    print(f"the record is {path}", file=sys.stderr)
    return record


if __name__ == "__main__":
    sys.exit(main())
