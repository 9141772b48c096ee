"""Communication between the processes of a run (`torchrun`). A failure of one process ends all processes."""

import errno
import pickle
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from layerdrop.system.process import is_first
from layerdrop.system.text import cut_middle, one_line, printable

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")

LOST = re.compile(
    "connection.*(closed|reset)|broken pipe|timed? ?out|remote process|aborted", re.IGNORECASE | re.DOTALL
)
"""Messages of the libraries `gloo` and `nccl` about a process that has left the group or died."""
_active = 0
"""Number of functions of `leaves_group` that are executed now, each called by the one before."""
_logged: set[str] = set()
"""Notes that the outermost of these functions has logged."""


def _joined() -> ModuleType | None:
    """torch.distributed if this process has joined a group, else None.

    Does not import torch, which takes a report longer than its tables. A process without torch has joined no group.
    """
    torch = sys.modules.get("torch")
    if torch is None or not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return None
    distributed: ModuleType = torch.distributed
    return distributed


def rank() -> int:
    """Index of this process, from 0."""
    group = _joined()
    return group.get_rank() if group else 0


def world_size() -> int:
    """Number of processes of this run."""
    group = _joined()
    return group.get_world_size() if group else 1


def gather(value: Any) -> list[Any]:
    """Return the values of all processes, in the order of their ranks. The values must be picklable."""
    group = _joined()
    if group is None:
        return [value]
    values: list[Any] = [None] * world_size()
    with _collective():
        group.all_gather_object(values, value)
    return values


@contextmanager
def _collective() -> Iterator[None]:
    """Raise ConnectionResetError, a fault of the environment, if another process has left the group or died.

    Other errors are unchanged.
    """
    try:
        yield
    except RuntimeError as error:
        if not LOST.search(str(error)):
            raise
        reason = f"another process of this run has ended, see its error above ({one_line(str(error), 200)})"
        raise ConnectionResetError(errno.ECONNRESET, reason) from error


def finish() -> None:
    """After a success, wait for every process, then leave the group. Leaving earlier could abort other processes.

    Inside several functions of `leaves_group`, do not leave. Raises ConnectionResetError if another process has called
    `leave` or died.
    """
    if group := _joined():
        with _collective():
            group.barrier()
        if _active < 2:
            group.destroy_process_group()


def leave() -> None:
    """After a failure, leave the group at once. Collective operations of other processes then fail and do not hang."""
    if group := _joined():
        group.destroy_process_group()


def from_first_process(function: Callable[[], Value]) -> Value:
    """Call `function` in the first process. Return its value, or raise its exception, in every process.

    Without torch.distributed, this is a plain call. The value must be picklable. In the other processes, an exception
    that is not picklable becomes a RuntimeError with its text. Raises ConnectionResetError if another process has
    ended.
    """
    group = _joined()
    if group is None:
        return function()
    error: BaseException | None = None
    message = [b"", b""]  # the pickled value, the pickled exception
    if rank() == 0:
        try:
            value = function()
            message[0] = pickle.dumps(value)
        except BaseException as caught:  # also KeyboardInterrupt: the other processes wait for a message
            error, message[1] = caught, _pickled_error(caught)
    later = () if error is None else (ConnectionResetError, RuntimeError)  # the first error is the reason
    with suppress(*later), _collective():
        group.broadcast_object_list(message, src=0)
    if error is not None:
        raise error
    if message[1]:
        raise pickle.loads(message[1])
    return value if rank() == 0 else pickle.loads(message[0])


def _pickled_error(error: BaseException) -> bytes:
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)  # some exceptions pickle but do not unpickle
        return pickled
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def leaves_group(function: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """Decorate a function to call `leave` at its end, also after an error.

    If decorated functions call each other, only the outermost leaves the group: a group is joined once in a process.
    """

    @wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        global _active
        _active += 1
        try:
            return function(*args, **kwargs)
        finally:
            _active -= 1
            if not _active:
                _logged.clear()
                leave()

    return run


def log(text: str) -> None:
    """Print a line to stderr, only in the first process."""
    if is_first():
        print(printable(cut_middle(text)), file=sys.stderr, flush=True)


def log_notes(notes: Iterable[str]) -> None:
    """Print notes to stderr, one on each line. Runs of one command that share a note print it once."""
    for note in notes:
        if note not in _logged:
            log(f"note: {note}")
        if _active:
            _logged.add(note)
