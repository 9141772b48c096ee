#!/usr/bin/env python
"""A run's model to deploy: python scripts/export.py RUN [RUN ...] --format safetensors|onnx [--quantize int8]

The exported model is checked against the run's, and evaluated on the development set with the runtime that it is for.
A model that loses more than --max_loss points is not written. The output folder is RUN/export, or --output. It has a
card with code that runs the model. Several runs give one table: score, size, latency. Their models are timed in turn.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PLACES = ("data_dir", "validation_file", "train_file")


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 done, 2 unusable input, a model that loses too much among it."""
    from layerdrop.cli.limits import check_numbers
    from layerdrop.errors import UserError
    from layerdrop.system.files import LocalPath

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=LocalPath, nargs="+", help="folders of runs that kept their model")
    parser.add_argument("--format", choices=("safetensors", "onnx"), default="safetensors", help="what is written")
    parser.add_argument("--quantize", choices=("int8",), help="onnx: weights of matrix products in int8")
    parser.add_argument("--max_loss", type=float, default=1.0, help="points of the task's metric that may be lost")
    parser.add_argument("--force", action="store_true", help="write a model that loses more, too")
    parser.add_argument("--output", type=LocalPath, help="folder of the exported model (one run)")
    for name in PLACES:
        parser.add_argument(f"--{name}", type=LocalPath, help="new place of the runs' data, if it has moved")
    parser.add_argument("--table_format", choices=("md", "latex", "csv"), default="md", help="of the table")
    args = parser.parse_args(argv)
    try:
        check_numbers(vars(args))
        if args.quantize and args.format != "onnx":
            raise UserError(f"--quantize {args.quantize}: goes with --format onnx, not {args.format}.")
        if args.output and len(args.runs) > 1:
            raise UserError("--output: takes one run. Leave it out: each goes to RUN/export.")
        return export(args)
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2


def export(args: argparse.Namespace) -> int:
    """Export every run, and print one table. The exit code."""
    from layerdrop.deploy.export import ExportedRun, check_output, time_in_turn
    from layerdrop.report.table import render

    outputs = [args.output or str(Path(folder) / "export") for folder in args.runs]
    places = {name: path for name in PLACES if (path := getattr(args, name)) is not None}
    runs, found = [ExportedRun(folder, places) for folder in args.runs], []
    for output in outputs:
        check_output(output)
    for folder, run, output in zip(args.runs, runs, outputs, strict=True):
        one = run.export(args.format, output, int8=args.quantize == "int8", max_loss=args.max_loss, force=args.force)
        where = f"is in {output}" if one.written else "is not written"
        print(
            f"{folder}: {one.forms[-1].name} {where}. Logits differ by at most {one.largest_difference:.1e}; "
            f"{one.changed} of {one.rows} predictions differ.",
            file=sys.stderr,
        )
        found.append(one)
    time_in_turn(runs, found)
    print(render([table(found)], args.table_format), flush=True)
    refused = [one for one in found if not one.written]
    for one in refused:
        best, last = one.forms[0], one.forms[-1]
        print(
            f"error: {one.run}: as {last.name} it scores {last.score:.1f}, {one.loss:.1f} points below the "
            f"{best.score:.1f} of the run's model: more than --max_loss {args.max_loss:g}. It is not written; --force "
            "writes it all the same.",
            file=sys.stderr,
        )
    return 2 if refused else 0


def table(found: list):
    """A row for each form of each run; ratios are to the first one."""
    from layerdrop.deploy.export import BATCH, SINGLE
    from layerdrop.report.table import Table

    rows, values, first = [], [], found[0].forms[0]
    for one in found:
        for form in one.forms:
            row = [one.run, form.name, f"{form.score:.1f}", f"{form.megabytes:.1f}"]
            value = {"run": one.run, "form": form.name, "metric": one.metric, "score": form.score}
            value["megabytes"] = form.megabytes
            for size in (SINGLE, BATCH):
                if form.latency:
                    ms = statistics.median(form.latency[size])
                    times = statistics.median(first.latency[size]) / ms
                    row.append(f"{ms:.1f} ms ({times:.2f} x)")
                    value |= {f"ms_batch_{size}": ms, f"speed_up_batch_{size}": times}
                else:
                    row.append("")
            rows.append(row)
            values.append(value)
    header = ["run", "form", found[0].metric, "MB", f"a text, batch {SINGLE}", f"a text, batch {BATCH}"]
    note = "Points on the development set; milliseconds for a text of it on the CPU, median of 3 rounds in turn."
    return Table("export", "exported models", header, rows, [note], values)


if __name__ == "__main__":
    from layerdrop.system.process import tolerate_broken_output

    tolerate_broken_output()
    sys.exit(main())
