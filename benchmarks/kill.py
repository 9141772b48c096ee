"""Execute commands in child processes, and kill a process at a chosen event. Used by benchmarks/faults.py.

Events: a file is opened for writing, renamed or deleted, a folder is made or exchanged, a lock is acquired or released,
a permission is set, a training step or an evaluation starts. Events are counted in all processes of the commands
together. The processes are forks of this process, also the workers of a sweep, so no process imports torch again."""

import multiprocessing
import os
import resource
import selectors
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkContext
from multiprocessing.util import register_after_fork
from pathlib import Path

from tqdm.std import tqdm

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {
    **{"os.rename": b"r", "os.remove": b"d", "os.rmdir": b"d", "shutil.rmtree": b"d", "os.mkdir": b"m"},
    **{"os.chmod": b"c", "os.link": b"r", "os.symlink": b"r", "os.truncate": b"o"},
}
"""Audit event of Python -> letter in the list of events. All have a path as the first argument."""
NAMES = {
    **{"o": "open a file for writing", "r": "rename", "d": "delete", "m": "make a folder", "c": "set permissions"},
    **{"l": "lock", "x": "exchange two folders", "s": "training step", "e": "evaluation"},
}
GRACE = 3
"""Number of events until a process dies that is to be cut in the middle of a write."""


@dataclass(frozen=True)
class Kill:
    """Where and how a process is killed."""

    event: int
    """The process dies before this event. The first event is 1."""
    command: bool = False
    """Kill also the command, if the process of the event is a worker. The other workers then end by themselves."""
    cut: int | None = None
    """Let the process die in the middle of a later write, when its file has this number of bytes."""
    way: str = "kill"
    """`kill`; `raise`: an exception in the process; `stop`: Ctrl-C, a signal to all processes."""


@dataclass
class Attempt:
    """The result of executing commands."""

    codes: list[int]
    """Exit code of each command; negative: the number of the signal that killed it."""
    events: str
    """One letter for each event: see NAMES."""
    ledger: list[list[str]] = field(default_factory=list)
    """Lines of `note`, in their order in time, as words."""
    output: str = ""
    """stdout and stderr of all processes."""
    hung: bool = False

    @property
    def killed(self) -> bool:
        """Whether a process was killed as planned."""
        return any(line[0] == "killed" for line in self.ledger)


class Process:
    """The counter of events of this process. A forked worker has a copy of it."""

    def __init__(self, work: Path, events: Path, ledger: int, kill: Kill | None):
        self.work, self.events, self.ledger, self.kill = f"{work}{os.sep}", events, ledger, kill
        self.command, self.pid, self.file, self.left, self.busy = os.getpid(), 0, -1, None, False

    def note(self, *words: str) -> None:
        """Add a line to the ledger. A pipe has no limit that a cut write could reach."""
        os.write(self.ledger, (" ".join(words) + "\n").encode())

    def audit(self, name: str, args: tuple) -> None:
        """The audit hook: count an event of Python that changes the work folder."""
        if name == "open":
            if isinstance(args[2], int) and args[2] & WRITING and self._is_inside(args[0]):
                self.event(b"o")
        elif name in CHANGES:
            if self._is_inside(args[0]):
                self.event(CHANGES[name])
        elif name == "fcntl.flock":
            self.event(b"l")
        elif name == "ctypes.dlsym" and args[1] == "renameat2":
            self.event(b"x")

    def _is_inside(self, path) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.work)

    def event(self, letter: bytes) -> None:
        """Count an event. Die if it is the event of the kill."""
        if self.busy:
            return
        self.busy = True
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            if self.pid != os.getpid():  # the position in an open file is shared with the parent
                self.pid, self.file = os.getpid(), os.open(self.events, os.O_WRONLY | os.O_APPEND)
            os.write(self.file, letter)
            if self.kill and os.lseek(self.file, 0, os.SEEK_CUR) == self.kill.event:
                self._die()
        self.busy = False

    def _die(self) -> None:
        self.note("killed", str(os.getpid()))
        if self.kill.way == "stop":
            os.killpg(0, signal.SIGINT)
            return
        if self.kill.way == "raise":
            self.busy = False
            raise RuntimeError("raised on purpose")
        if self.kill.cut is None:
            if self.kill.command:
                os.kill(self.command, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        self.left = GRACE
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the system kills the process that writes beyond the limit
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.kill.cut, self.kill.cut))


class _Fork(ForkContext):
    """Fork the workers of a sweep instead of spawning them. A worker closes the ends of pipes that are not its own."""

    def Pipe(self, duplex: bool = True):
        ends = super().Pipe(duplex)
        register_after_fork(ends[0], type(ends[0]).close)
        return ends


def fork_workers() -> None:
    """Fork the workers of a sweep from this process instead of spawning them."""
    multiprocessing.get_context = lambda method=None: _Fork()


def _own_lock_of_progress_bars() -> None:
    """Replace tqdm's lock in a forked process. All processes share it, and a killed process never releases it."""
    lock, classes = threading.RLock(), [tqdm]
    for progress_bar in classes:
        progress_bar.set_lock(lock)
        classes += progress_bar.__subclasses__()


os.register_at_fork(after_in_child=_own_lock_of_progress_bars)


def execute(
    commands: Sequence[Callable[[], int]],
    work: Path,
    prepare: Callable[[Process], None],
    kill: Kill | None = None,
    timeout: float = 120,
) -> Attempt:
    """Execute commands at the same time, each in a child process in the folder `work`. Wait for all their processes.

    commands: return an exit code. prepare: called in each child before its command.
    """
    events = work.with_name(f"{work.name}.events")
    events.write_bytes(b"")
    (ledger_end, ledger), (output_end, output) = os.pipe(), os.pipe()
    children: list[int] = []
    for command in commands:
        child = _fork(command, work, events, ledger, output, prepare, kill)
        children.append(child)
        os.setpgid(child, children[0])  # Ctrl-C reaches all of them, and not this process
    os.close(ledger)
    os.close(output)
    attempt = Attempt([], "")
    texts = _read_all([ledger_end, output_end], time.monotonic() + timeout)
    if texts is None:
        attempt.hung, texts = True, ["", "no end"]
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    attempt.ledger, attempt.output = [line.split(" ") for line in texts[0].splitlines()], texts[1]
    attempt.codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    attempt.events = events.read_text()
    events.unlink()
    return attempt


def _fork(command, work, events, ledger, output, prepare, kill) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        os.chdir(work)
        fork_workers()
        process = Process(work, events, ledger, kill)
        prepare(process)
        sys.addaudithook(process.audit)
        code = command()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)


def _read_all(pipes: Sequence[int], end: float) -> list[str] | None:
    """Read pipes until all their writers have ended. None if they have not ended in time."""
    texts, open_pipes = {pipe: b"" for pipe in pipes}, set(pipes)
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while open_pipes and time.monotonic() < end:
            for key, _ in selector.select(1.0):
                piece = os.read(key.fd, 2**16)
                texts[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
                    open_pipes.discard(key.fd)
    for pipe in pipes:
        os.close(pipe)
    return None if open_pipes else [texts[pipe].decode(errors="replace") for pipe in pipes]
