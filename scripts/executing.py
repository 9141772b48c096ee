"""Shared by the scripts that execute many runs or take their flags: the engine's flags, the engine, the tasks, a first
Ctrl-C that waits."""

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

OWN_FILES = ("train_file", "validation_file", "test_file")
"""Flags of run_glue.py that name the user's own files."""


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Where the runs execute."""
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="where the runs execute")
    parser.add_argument("--workers", type=int, help="local: worker processes (default: one per GPU, or per core)")
    parser.add_argument("--runs_per_gpu", type=int, default=1, help="runs that share a GPU")
    parser.add_argument("--address", default="auto", help="ray: the cluster")
    parser.add_argument("--cores_per_run", type=int, default=1, help="ray without GPUs: cores of a run")


def own_files(words: list[str]) -> list[str]:
    """The flags that name own files. words: flags of run_glue.py."""
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [flag for flag in flags if flag[2:].replace("-", "_") in OWN_FILES]


def tasks_of(given: list[str] | None, words: list[str]) -> list[str | None]:
    """The tasks of --tasks. Without the flag: None for own files, which count as one task, else mrpc. Raises UserError
    for several tasks with own files. words: flags of run_glue.py."""
    from layerdrop.errors import UserError

    files = own_files(words)
    if files and given and len(given) > 1:
        raise UserError(f"--tasks {' '.join(given)}: {files[0]} is one task. Name one, or leave --tasks out.")
    return given or [None if files else "mrpc"]


def refuse_misspelt(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Raise UserError for a word that is no flag of run_glue.py and nearly one of this parser's."""
    from layerdrop.cli import flag_names
    from layerdrop.errors import UserError

    own, known = [option for action in parser._actions for option in action.option_strings], flag_names()
    for word in words:
        flag = word.partition("=")[0]
        near = get_close_matches(flag, own, n=1, cutoff=0.8)
        if flag.startswith("--") and near and flag[2:].replace("-", "_") not in known:
            raise UserError(f"{flag}: no such flag. Did you mean {near[0]}?")


def find_slots(args: argparse.Namespace) -> list:
    """Places of local workers. Empty for Ray. Raises UserError for a number out of its flag's range."""
    from layerdrop.cli.limits import check_numbers
    from layerdrop.sweeps.engines.slots import slots

    check_numbers(vars(args))
    return [] if args.engine == "ray" else slots(args.workers, args.runs_per_gpu)


def make_engine(args: argparse.Namespace, where: list, gives_precision: bool):
    """The engine of the flags. gives_precision: whether every run's precision was given. Raises UserError."""
    from layerdrop.errors import UserError
    from run_glue import run

    if args.engine == "ray":
        from layerdrop.sweeps.engines.ray import RayEngine

        if not gives_precision:
            raise UserError("--engine ray: give --precision (fp32, bf16 or fp16): the nodes may have other hardware.")
        return RayEngine(run, args.address, args.runs_per_gpu, args.cores_per_run)
    from layerdrop.sweeps.engines.local import LocalEngine

    return LocalEngine(run, where)


@contextmanager
def asking_to_stop(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yields whether the user asked to stop, with Ctrl-C; a second Ctrl-C raises KeyboardInterrupt."""
    asked = []

    def ask(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        say("the runs in flight are finished, no more are started (again: stop at once) ...")

    old = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, old)
