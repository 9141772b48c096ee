"""Processes of tests: copies of this process, so that none imports torch again."""

import math
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from accelerate.state import AcceleratorState, PartialState

from benchmarks.kill import fork_workers
from layerdrop.cli.command import run_command
from layerdrop.finetune import interrupt


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    out: str
    err: str


class Forked:
    """A copy of this process that executes a function and exits with its result. It starts at once.

    name: its output goes to the files out{name}.txt and err{name}.txt of the current folder.
    """

    def __init__(self, function: Callable[[], int | None], name: str = ""):
        self.files = [Path(f"{stream}{name}.txt").absolute() for stream in ("out", "err")]
        self.process = multiprocessing.get_context("fork").Process(target=self._execute, args=(function,))
        self.process.start()
        self.pid = self.process.pid

    def _execute(self, function: Callable[[], int | None]) -> None:
        for number, path in enumerate(self.files, 1):
            stream = open(path, "w")  # noqa: SIM115
            os.dup2(stream.fileno(), number)
            setattr(sys, ("stdout", "stderr")[number - 1], stream)
        try:
            sys.exit(function())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 100) -> Ended:
        """Wait for the end of the process. Fails if it does not end in time."""
        (ended,) = wait_for_all([self], seconds)
        return ended


def wait_for_all(processes: list[Forked], seconds: float = 100) -> list[Ended]:
    """Wait for the end of processes. Fails if one does not end in time."""
    for forked in processes:
        forked.process.join(seconds)
    hanging = [forked for forked in processes if forked.process.is_alive()]
    for forked in hanging:
        forked.process.kill()
        forked.process.join()
    ended = [Ended(each.process.exitcode, *(file.read_text() for file in each.files)) for each in processes]
    assert not hanging, ended
    return ended


def start_command(name: str, words: list[str]) -> Forked:
    """`layerdrop NAME WORDS` in the current folder, with workers that are copies of this process."""

    def command() -> int:
        fork_workers()
        return run_command(name, words)

    return Forked(command)


def kill_at_checkpoint(n: int, function: Callable[[], int | None]) -> None:
    """Call a function in a copy of this process, which writes a checkpoint at every step. Kill it after the nth one."""

    def call() -> int | None:
        interrupt.WITHIN_EPOCH_SECONDS, interrupt.CHECKPOINT_SECONDS, interrupt.CHECKPOINT_SHARE = 0.0, 0.0, math.inf
        usual, left = interrupt.Interrupt.on_save, iter(range(n - 1, -1, -1))

        def on_save(*args, **kwargs):
            usual(*args, **kwargs)
            if not next(left):
                os.kill(os.getpid(), signal.SIGKILL)

        interrupt.Interrupt.on_save = on_save
        return function()

    ended = Forked(call).wait()
    assert ended.code == -signal.SIGKILL, ended


def run_in_processes(n: int, words: list[str], prepare: Callable[[int], None] = lambda rank: None) -> list[Ended]:
    """`layerdrop run` in n processes of one group, as torchrun starts them, in the current folder.

    prepare: called in each process with its rank, before the run.
    """

    def run(rank: int) -> int:
        prepare(rank)
        return run_command("run", words)

    return group_of(n, run)


def group_of(n: int, function: Callable[[int], int | None]) -> list[Ended]:
    """Call function(rank) in n processes with the variables of torchrun. Files: out{rank}.txt, err{rank}.txt."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}

    def member(rank: int) -> int | None:
        os.environ.update(variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run of this process was alone
        PartialState._reset_state()
        return function(rank)

    return wait_for_all([Forked(lambda rank=rank: member(rank), str(rank)) for rank in range(n)])
