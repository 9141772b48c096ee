"""Measure parameters, checkpoint size, FLOPs, seconds of inference and fine-tuning, peak memory.

  layerdrop cost MODEL [MODEL ...] --k 0 2 4 6

MODEL is the folder of a run or checkpoint, a hub name, or random:TYPE for the library's default size of a model type
(random:bert is BERT-base). Models are timed alternately, in several rounds, so that load on the machine slows down all
models alike. The table compares the FLOPs and the seconds of each model with the first model. Texts are random token
ids: a single text of 128 tokens, and pairs with QQP's lengths in batches (Peer et al. 2022, Table 2; Sajjad et al.
2023, Table 3). Each call writes a record to --store. To show all records, use layerdrop report STORE --table cost.
"""

import argparse
import sys

from layerdrop.strategies import BY_POSITION
from layerdrop.system.files import LocalPath


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop cost`."""
    add = parser.add_argument
    add("models", type=LocalPath, nargs="+", help="folders of runs or checkpoints, hub names, random:TYPE")
    add(
        "--drop_strategy", default="top", help=f"strategy that selects the layers by position: {', '.join(BY_POSITION)}"
    )
    add("--k", nargs="+", type=int, default=[0], help="numbers of layers to drop from each model")
    add("--texts", type=int, default=256, help="number of texts in the measurements in batches")
    add("--length", type=int, default=128, help="tokens of the single text, for which FLOPs are counted")
    add("--batch_size", type=int, default=32, help="number of texts in a batch")
    add("--repeats", type=int, default=5, help="number of timing rounds")
    add("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="precision of all models")
    add("--use_cpu", action="store_true", help="run on the CPU, without a GPU")
    add("--compare", choices=("sajjad2023", "peer2022"), help="also show the values that this paper reports")
    add("--store", type=LocalPath, default="runs/cost", help="folder of the records")
    add("--format", choices=("md", "latex", "csv"), default="md", help="format of the table")


def main(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Measure, write the record, and print its table. Returns the exit code."""
    args = parser.parse_args(words)
    from layerdrop.deploy.measure import measure, write_record
    from layerdrop.report.table import render
    from layerdrop.report.tables.model_cost import model_cost_table
    from layerdrop.system.files import check_folder
    from layerdrop.system.limits import check_numbers
    from layerdrop.system.process import freeze_imports

    freeze_imports()
    check_numbers(vars(args))
    check_folder("--store", args.store)
    record = measure(
        args.models, args.drop_strategy, args.k, texts=args.texts, length=args.length, batch_size=args.batch_size,
        repeats=args.repeats, precision=args.precision, use_cpu=args.use_cpu,
        log=lambda note: print(f"note: {note}", file=sys.stderr),
    )  # fmt: skip
    print(f"record: {write_record(record, args.store)}", file=sys.stderr)
    print(render([model_cost_table(record, args.compare)], args.format))
    return 0
