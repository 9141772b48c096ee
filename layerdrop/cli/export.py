"""Export the model of a run as safetensors or ONNX.

  layerdrop export RUN [RUN ...] --format onnx --quantize int8

The exported model is evaluated on the validation set in its target runtime, and compared with the run's model. A model
that loses more than --max_loss points is not written. The output folder is RUN/export, or --output. It contains a card
with code that runs the model. A table shows score, size and latency of all exports, timed alternately.
"""

import argparse
import sys
from pathlib import Path

from layerdrop.errors import UserError
from layerdrop.system.files import LocalPath

DATA = ("data_dir", "validation_file", "train_file", "dataset_name")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop export`."""
    parser.add_argument("runs", type=LocalPath, nargs="+", help="folders of runs that kept their model")
    parser.add_argument("--format", choices=("safetensors", "onnx"), default="safetensors", help="output format")
    parser.add_argument("--quantize", choices=("int8",), help="onnx: store the weights of matrix products as int8")
    parser.add_argument("--max_loss", type=float, default=1.0, help="maximum loss in points of the task's metric")
    parser.add_argument("--force", action="store_true", help="write the model even if it loses more than --max_loss")
    parser.add_argument("--output", type=LocalPath, help="folder of the exported model (one run)")
    for name in DATA:
        parser.add_argument(f"--{name}", type=LocalPath, help=f"new --{name} of the runs, if you moved their data")
    parser.add_argument("--table_format", choices=("md", "latex", "csv"), default="md", help="format of the table")


def main(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Export every run, and print one table. Returns the exit code: 2 if a model loses too much."""
    args = parser.parse_args(words)
    from layerdrop.deploy.export import EXPORT_FILE, ExportedRun, time_in_turn
    from layerdrop.deploy.folder import check_output
    from layerdrop.report.table import render
    from layerdrop.report.tables.exports import exports_table
    from layerdrop.system.limits import check_numbers
    from layerdrop.system.process import busy_note, freeze_imports

    freeze_imports()
    check_numbers(vars(args))
    if args.quantize and args.format != "onnx":
        raise UserError(f"--quantize {args.quantize}: needs --format onnx, not {args.format}.")
    if args.output and len(args.runs) > 1:
        raise UserError("--output: takes one run. Leave it out to write each export to RUN/export.")
    outputs = [args.output or str(Path(folder) / "export") for folder in args.runs]
    data = {name: path for name in DATA if (path := getattr(args, name)) is not None}
    runs, exports = [ExportedRun(folder, data) for folder in args.runs], []
    for output in outputs:
        check_output("--output", output, EXPORT_FILE)
    for folder, run, output in zip(args.runs, runs, outputs, strict=True):
        export = run.export(args.format, output, int8=args.quantize == "int8", max_loss=args.max_loss, force=args.force)
        where = f"is in {output}" if export.written else "is not written"
        print(
            f"{folder}: {export.variants[-1].name} {where}. Compared with the run's model: logits differ by at most "
            f"{export.largest_difference:.1e}, and {export.changed} of {export.rows} predictions differ.",
            file=sys.stderr,
        )
        if export.warning:
            print(f"warning: {folder}: {export.variants[-1].name} {export.warning}.", file=sys.stderr)
        exports.append(export)
    busy = busy_note()
    time_in_turn(runs, exports)
    print(render([exports_table(exports, busy)], args.table_format), flush=True)
    if refused := [_refusal(export, args.max_loss) for export in exports if not export.written]:
        raise UserError.joined(map(UserError, refused))
    return 0


def _refusal(export, max_loss: float) -> str:
    first, last = export.variants[0], export.variants[-1]
    return (
        f"{export.run}: {last.name} scores {last.score:.1f}, {export.loss:.1f} points below the run's model "
        f"({first.score:.1f}). --max_loss is {max_loss:g}, so the export is not written. Add --force to write it."
    )
