"""Flags and helpers shared by the commands that execute many runs or take the flags of a run."""

import argparse
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from layerdrop.cli.command import CommandParser, flag_name, recipe, unknown_flags
from layerdrop.data.tasks import get_task
from layerdrop.errors import UserError

OWN_DATA = ("train_file", "validation_file", "test_file", "dataset_name")
"""Flags of a run that name the user's own data."""
SELECTION = (
    *("drop_strategy", "drop_k", "drop_threshold", "drop_layers", "remove_layers", "keep_layers", "drop_order_file"),
    *("drop_order", "score_on"),
)
"""Flags of a run that select the layers to drop."""


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select the execution engine."""
    group = parser.add_argument_group("parallel execution")
    group.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="local: this machine; ray: a Ray cluster"
    )
    group.add_argument("--workers", type=int, help="local: worker processes (default: one per GPU, or per core)")
    group.add_argument("--runs_per_gpu", type=int, default=1, help="number of runs that share a GPU")
    group.add_argument("--address", default="auto", help="ray: address of the cluster")
    group.add_argument("--cores_per_run", type=int, default=1, help="ray without GPUs: number of cores per run")


def parse_known(
    parser: CommandParser, words: list[str], refused: Collection[str] = ()
) -> tuple[argparse.Namespace, list[str]]:
    """The command's own flags, and the other words: flags of a run.

    Raises UserError for an unknown flag. refused: names of the flags of a run that the command does not take.
    """
    if flags := unknown_flags(parser, words):  # before a missing argument
        from layerdrop.cli.parsing import MISNOMERS, RENAMED, WITHOUT_EFFECT, run_parser

        of_run = run_parser()._option_string_actions
        names = {*map(flag_name, of_run), *RENAMED, *WITHOUT_EFFECT}
        if unknown := [word for word in flags if flag_name(word) not in names]:
            raise parser.no_such_flag(unknown[0], of_run, MISNOMERS, refused)
    return parser.parse_known_args(words)


def refuse_flags(words: Iterable[str], names: Iterable[str], reason: str) -> None:
    """Raise UserError for the flags of a run among `words` that a command does not take."""
    used = {flag_name(word) for word in words if word.startswith("--")}
    if given := ", ".join(f"--{name}" for name in names if name in used):
        raise UserError(f"{given}: {reason}. Leave {given} out.")


def own_data(words: list[str]) -> list[str]:
    """The flags among a run's words that name own data."""
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [flag for flag in flags if flag_name(flag) in OWN_DATA]


def tasks_of(given: list[str] | None, words: list[str]) -> list[str | None]:
    """The tasks of --tasks. Without the flag: one task, None for own data, else mrpc.

    words: flags of a run. Raises UserError for several tasks with own data.
    """
    own = own_data(words)
    if own and given and len(given) > 1:
        raise UserError(f"--tasks {' '.join(given)}: own data are one task. Give one name, or leave --tasks out.")
    for name in given or ():
        get_task(name, "--tasks", own_data=bool(own))
    return given or [None if own else "mrpc"]


def find_slots(args: argparse.Namespace) -> list:
    """The slots of local workers; empty for Ray. Raises UserError for a number out of its flag's range."""
    from layerdrop.sweeps.engines.slots import slots
    from layerdrop.system.limits import check_numbers

    check_numbers(vars(args))
    return [] if args.engine == "ray" else slots(args.workers, args.runs_per_gpu)


def make_engine(args: argparse.Namespace, slots: list, gives_precision: bool):
    """Create the selected engine. gives_precision: whether every run gives its precision. Raises UserError."""
    run = recipe().run

    if args.engine == "ray":
        from layerdrop.sweeps.engines.ray import RayEngine

        if not gives_precision:
            raise UserError("--engine ray: give --precision (fp32, bf16 or fp16): the nodes may have other hardware.")
        return RayEngine(run, args.address, args.runs_per_gpu, args.cores_per_run)
    from layerdrop.sweeps.engines.local import LocalEngine

    return LocalEngine(run, slots)


def data_notes(args: argparse.Namespace, jobs: Iterable) -> list[str]:
    """Read the data set that all jobs share. Returns notes on the data.

    Raises UserError for unusable data. With Ray, the error is a note, because the nodes may have other files.
    """
    from layerdrop.sweeps.execute import read_shared_data

    try:
        return read_shared_data(jobs)
    except UserError as error:
        if args.engine == "local":
            raise
        return [f"the data cannot be read on this machine. {error}"]


@contextmanager
def executing(args: argparse.Namespace, slots: list, gives_precision: bool) -> Iterator[tuple]:
    """Yield an engine, a progress display, and a function that returns whether the user asked to stop.

    The first Ctrl-C asks to stop after the running runs. The second raises KeyboardInterrupt.
    """
    from layerdrop.sweeps.progress import Display
    from layerdrop.system.process import freeze_imports

    engine = make_engine(args, slots, gives_precision)
    freeze_imports()
    display = Display(sys.stderr)
    try:
        with asking_to_stop(display.log) as stop:
            yield engine, display, stop
    finally:
        display.close()
        engine.close()


@contextmanager
def asking_to_stop(log: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C was pressed. A second Ctrl-C raises KeyboardInterrupt."""
    asked = []

    def ask(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        log("finishing the running runs and starting no new runs (press Ctrl-C again to stop at once) ...")

    old = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, old)
