"""Several processes of one run, as torchrun starts them. They are copies of this process: none imports torch again."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from accelerate.state import AcceleratorState, PartialState

from layerdrop.cli.command import run_command


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    out: str
    err: str


def run_in_processes(n: int, words: list[str], prepare: Callable[[int], None] = lambda rank: None) -> list[Ended]:
    """`layerdrop run` in n processes of one group, in the current folder.

    prepare: called in each process with its rank, before the run.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_run, args=(rank, variables, words, prepare)) for rank in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
        process.join()
    texts = [[Path(f"{stream}{rank}.txt").read_text() for stream in ("out", "err")] for rank in range(n)]
    assert not hanging, texts
    return [Ended(process.exitcode, *text) for process, text in zip(processes, texts, strict=True)]


def _run(rank: int, variables: dict[str, str], words: list[str], prepare: Callable[[int], None]) -> None:
    os.environ.update(variables | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run of this process was alone
    PartialState._reset_state()
    for name in ("out", "err"):
        stream = open(f"{name}{rank}.txt", "w")  # noqa: SIM115
        os.dup2(stream.fileno(), {"out": 1, "err": 2}[name])
        setattr(sys, f"std{name}", stream)
    prepare(rank)
    code = run_command("run", words)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
