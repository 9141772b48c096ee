#!/usr/bin/env python
"""Do the runs of a study that are not done yet: python scripts/sweep.py configs/studies/demo.yaml

What is there already is not done again; what failed is tried again. --plan shows where the study stands. Flags of
run_glue.py (--data_dir, --learning_rate, ...) may follow; they hold for every run.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.executing import add_engine_flags, asking_to_stop, find_slots, make_engine, refuse_misspelt


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 all done, 1 some failed, 2 unusable input, 130 stopped by the user."""
    from layerdrop.errors import UserError
    from layerdrop.system.files import LocalPath

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=LocalPath, help="YAML file of the study")
    parser.add_argument("--store", type=LocalPath, help="folder of its runs (default: runs/NAME of the study)")
    parser.add_argument("--plan", action="store_true", help="list the runs and what is done, and stop")
    parser.add_argument("--recipe", type=LocalPath, help="YAML file of flags instead of the study's recipe")
    parser.add_argument("--models", type=LocalPath, nargs="+", help="these models instead of the study's")
    parser.add_argument("--tasks", nargs="+", help="these tasks instead")
    parser.add_argument("--strategies", nargs="+", help="these strategies instead")
    parser.add_argument("--k", nargs="+", type=int, help="these numbers of layers to drop instead")
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds instead")
    add_engine_flags(parser)
    args, flags = parser.parse_known_args(argv)
    try:
        refuse_misspelt(parser, flags)
        return sweep_or_plan(args, tuple(flags))
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2


def sweep_or_plan(args: argparse.Namespace, flags: tuple[str, ...]) -> int:
    """Execute the flags."""
    from layerdrop.runs.fingerprints import Fingerprints
    from layerdrop.sweeps.execute import statuses
    from layerdrop.sweeps.progress import plan
    from layerdrop.sweeps.study import AXES, read_study

    where = find_slots(args)
    args.store = args.store or str(Path("runs") / Path(args.study).stem)
    study = read_study(args.study, args.store, {name: getattr(args, name) for name in AXES}, flags, args.recipe)
    inputs = Fingerprints()
    states = [] if args.plan else statuses(study.jobs, inputs)  # the plan computes them itself
    unreadable = [state.note for state in states if state.note and state.word == "missing"]
    for text in [*study.notes, *unreadable]:
        print(f"note: {text}", file=sys.stderr)
    if args.plan:
        print(plan(study, len(where) or 1))
        return 0
    return sweep(args, study, where, inputs, todo=sum(state.word not in ("done", "changed") for state in states))


def sweep(args: argparse.Namespace, study, where: list, inputs, todo: int) -> int:
    """Do the runs of a study that are not done."""
    from layerdrop.sweeps.execute import execute
    from layerdrop.sweeps.progress import Display, summary
    from layerdrop.system.files import make_folder

    make_folder("--store", args.store)
    engine = make_engine(args, where[: max(1, todo)], study.gives_precision)
    display = Display(sys.stderr)
    if todo:
        display.say(f"{todo} of {len(study.jobs)} runs to do, {engine.slots} at once; records and logs in {args.store}")
    try:
        with asking_to_stop(display.say) as stop:
            progress = execute(study.jobs, engine, display.update, stop, inputs)
    except KeyboardInterrupt:
        display.close()
        print("stopped; the runs in flight are lost. The same command goes on.", file=sys.stderr)
        return 130
    finally:
        display.close()
        engine.close()
    print(summary(study, progress))
    return 130 if progress.stopped else 1 if progress.failed else 0


if __name__ == "__main__":
    from layerdrop.system.process import tolerate_broken_output

    tolerate_broken_output()
    sys.exit(main())
