"""Execute the missing, failed and incomplete runs of a study.

  layerdrop sweep configs/studies/demo.yaml --plan    status of every run
  layerdrop sweep configs/studies/demo.yaml           execute missing, failed and incomplete runs

Status of a run: done, failed, missing, or
  incomplete   done, but without a requested output
  changed      done, but the files of the model or the data have changed since. Not repeated: choose another --store, or
               delete its folder
  other        the folder has a run with other settings. Choose another --store, or delete the folder
  impossible   settings that are refused, such as a K that is too large for the model

You can add flags of `layerdrop run` (--data_dir, --learning_rate, ...). They apply to every run.
"""

import argparse
import sys
from pathlib import Path

from layerdrop.cli.engines import add_engine_flags, data_notes, executing, find_slots, parse_known
from layerdrop.system.files import LocalPath


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `layerdrop sweep`."""
    parser.add_argument("study", type=LocalPath, help="YAML file of the study")
    parser.add_argument("--store", type=LocalPath, help="folder of the runs (default: runs/NAME of the study)")
    parser.add_argument("--plan", action="store_true", help="list the runs and their status without executing them")
    parser.add_argument(
        "--recipe", type=LocalPath, help="YAML file of flags, instead of the file that the study names as its recipe"
    )
    parser.add_argument("--models", type=LocalPath, nargs="+", help="models instead of the study's")
    parser.add_argument("--tasks", nargs="+", help="tasks instead of the study's")
    parser.add_argument("--strategies", nargs="+", help="strategies instead of the study's")
    parser.add_argument("--k", nargs="+", type=int, help="numbers of layers to drop instead of the study's")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds instead of the study's")
    add_engine_flags(parser)


def main(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Print the plan, or execute the runs. Returns the exit code."""
    args, flags = parse_known(parser, words)
    from layerdrop.cli.parsing import parse_settings
    from layerdrop.runs.fingerprints import Fingerprints
    from layerdrop.sweeps.execute import execute, statuses
    from layerdrop.sweeps.progress import plan, summary
    from layerdrop.sweeps.study import AXES, read_study
    from layerdrop.system.files import make_folder

    slots, inputs = find_slots(args), Fingerprints()
    args.store = args.store or str(Path("runs") / Path(args.study).stem)
    axes = {name: getattr(args, name) for name in AXES}
    study = read_study(args.study, args.store, parse_settings, axes, flags, args.recipe)
    states = [] if args.plan else statuses(study.jobs, inputs)  # `plan` computes the statuses
    todo = sum(state.word not in ("done", "changed") for state in states)
    notes = data_notes(args, study.jobs) if todo else []  # an error replaces the study's notes on missing files
    for text in [*study.notes, *notes]:
        print(f"note: {text}", file=sys.stderr)
    if args.plan:
        print(plan(study, len(slots) or 1))
        return 0
    make_folder("--store", args.store)
    with executing(args, slots[: max(1, todo)], study.gives_precision) as (engine, display, stop):
        if todo:
            at_once = f"{engine.slots} at once; records and logs in {args.store}"
            display.log(f"{todo} of {len(study.jobs)} runs to do, {at_once}")
        progress = execute(study.jobs, engine, display.update, stop, inputs)
    print(summary(study, progress))
    return 130 if progress.stopped else 1 if progress.failed else 0
