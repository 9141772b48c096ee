#!/usr/bin/env python
"""Do the runs of a study that are not done yet: python scripts/sweep.py configs/studies/demo.yaml

What is there already is not done again; what failed is tried again. --plan shows where the study stands. Flags of
run_glue.py (--data_dir, --learning_rate, ...) may follow; they hold for every run.
"""

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main(argv: list[str]) -> int:
    """The exit code: 0 all done, 1 some failed, 2 unusable input, 130 stopped by the user."""
    from layerdrop.errors import UserError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="YAML file of the study")
    parser.add_argument("--store", help="folder of its runs (default: runs/NAME of the study)")
    parser.add_argument("--plan", action="store_true", help="list the runs and what is done, and stop")
    parser.add_argument("--recipe", help="YAML file of flags instead of the study's recipe")
    parser.add_argument("--models", nargs="+", help="these models instead of the study's")
    parser.add_argument("--tasks", nargs="+", help="these tasks instead")
    parser.add_argument("--strategies", nargs="+", help="these strategies instead")
    parser.add_argument("--k", nargs="+", type=int, help="these numbers of layers to drop instead")
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds instead")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="where the runs execute")
    parser.add_argument("--workers", type=int, help="local: worker processes (default: one per GPU, or per core)")
    parser.add_argument("--runs_per_gpu", type=int, default=1, help="runs that share a GPU")
    parser.add_argument("--address", default="auto", help="ray: the cluster")
    parser.add_argument("--cores_per_run", type=int, default=1, help="ray without GPUs: cores of a run")
    args, flags = parser.parse_known_args(argv)
    try:
        return sweep_or_plan(args, tuple(flags))
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2


def sweep_or_plan(args: argparse.Namespace, flags: tuple[str, ...]) -> int:
    """Do what the flags say."""
    from layerdrop.engines.places import places
    from layerdrop.errors import UserError
    from layerdrop.execute import state_of
    from layerdrop.progress import plan
    from layerdrop.study import AXES, read_study

    for name in ("workers", "runs_per_gpu", "cores_per_run"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UserError(f"--{name} {value}: must be 1 or more.")
    args.store = args.store or str(Path("runs") / Path(args.study).stem)
    study = read_study(args.study, args.store, {name: getattr(args, name) for name in AXES}, flags, args.recipe)
    where = [] if args.engine == "ray" else places(args.workers, args.runs_per_gpu)
    states = [state_of(job) for job in study.jobs]
    unreadable = [] if args.plan else [state.note for state in states if state.note]  # the plan says it at the run
    for text in [*study.notes, *unreadable]:
        print(f"note: {text}", file=sys.stderr)
    if args.plan:
        print(plan(study, len(where) or 1))
        return 0
    return sweep(args, study, where, todo=sum(state.status != "done" for state in states))


def sweep(args: argparse.Namespace, study, where: list, todo: int) -> int:
    """Do the runs of a study that are not done."""
    from layerdrop.execute import execute
    from layerdrop.progress import Display, summary

    engine = make_engine(args, study, where[: max(1, todo)])
    display = Display(sys.stderr)
    if todo:
        display.say(f"{todo} of {len(study.jobs)} runs to do, {engine.slots} at once; records and logs in {args.store}")
    asked = []

    def ask(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        display.say("the runs in flight are finished, no more are started (again: stop at once) ...")

    old = signal.signal(signal.SIGINT, ask)
    try:
        progress = execute(study.jobs, engine, display.update, stop=lambda: bool(asked))
    except KeyboardInterrupt:
        display.close()
        print("stopped; the runs in flight are lost. The same command goes on.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGINT, old)
        display.close()
        engine.close()
    print(summary(study, progress))
    return 130 if progress.stopped else 1 if progress.failed else 0


def make_engine(args: argparse.Namespace, study, where: list):
    """The engine of the flags."""
    from layerdrop.errors import UserError
    from run_glue import run

    if args.engine == "ray":
        from layerdrop.engines.ray import RayEngine

        if not study.gives_precision:
            raise UserError("--engine ray: give --precision (fp32, bf16 or fp16): the nodes may have other hardware.")
        return RayEngine(run, args.address, args.runs_per_gpu, args.cores_per_run)
    from layerdrop.engines.local import LocalEngine

    return LocalEngine(run, where)


if __name__ == "__main__":
    if "--plan" in sys.argv and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `sweep.py ... --plan | head` ends quietly
    sys.exit(main(sys.argv[1:]))
