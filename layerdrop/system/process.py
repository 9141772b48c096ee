"""Settings of a process: memory allocation, garbage collection, waiting threads, output.

Only commands and workers apply these settings, at their start. This module imports neither torch nor numpy,
because both read some settings when they are imported.
"""

import ctypes
import errno
import gc
import io
import os
import re
import signal
import stat
import sys
import time
from types import FrameType, TracebackType

from layerdrop.errors import UserError

SPIN_COUNT = "1000"
"""Spin count of an OpenMP thread before it sleeps. See docs/speed.md for other values."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables for waiting threads. If the user has set one of them, all are left unchanged."""
OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that `torchrun` sets in each of its processes."""
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Environment variables with a number of processes, of torchrun and of MPI. The library joins a group for each."""
BUSY = "other processes occupy"
"""Start of the note of `busy_note`."""
IMPORTED_FIRST = ("filelock", "numpy", "torch")
"""Packages that commands import first. If one of them is missing, no environment is active."""
STOPPED = "stopped. Repeat the command to continue."
"""The message of a command that the user has stopped."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def prepare_process() -> None:
    """Apply the settings of a command or worker to this process. Call it before torch is imported.

    Garbage collection is off until `freeze_imports` is called.
    """
    tolerate_broken_output()
    sys.excepthook = _uncaught
    gc.disable()
    give_own_address()
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    # PyTorch caches up to 1,024 oneDNN primitives of 0.25 MB each, in addition to oneDNN's own cache.
    os.environ.setdefault("LRU_CACHE_CAPACITY", "1")
    _keep_freed_memory()


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an error, or one line if no environment is active."""
    if isinstance(error, ModuleNotFoundError) and error.name in IMPORTED_FIRST:
        advice = "Activate the environment (. .venv/bin/activate), or install layerdrop with pip install ."
        print(f"error: package {error.name} is not installed for {sys.executable}. {advice}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def handle_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, but end the process at once during an import. Call it at the start.

    An import turns KeyboardInterrupt into an ImportError, or ignores it, in some libraries.
    """
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            if is_first():
                os.write(2, f"{STOPPED}\n".encode())
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def is_first() -> bool:
    """Whether this process writes files and prints: the first process of `torchrun`, or a single process.

    Also valid before the process group is initialized. RANK is ignored for a single process: a scheduler may set it.
    """
    alone = os.environ.get("WORLD_SIZE", "1") == "1" or not all(map(os.environ.get, OF_TORCHRUN))
    return alone or os.environ["RANK"] == "0"


def check_launcher() -> None:
    """Raise UserError for unusable variables of a launcher, and for only some of them.

    The library would wait for processes that nobody has started.
    """
    for name in (*OF_TORCHRUN[:2], *SIZES):
        if (value := os.environ.get(name)) is not None and not re.fullmatch("-1|[0-9]+", value):
            raise UserError(f"{name}={value}: must be a whole number. Unset this variable, or start with torchrun.")
    several = _joining()
    if several and (missing := [name for name in OF_TORCHRUN if not os.environ.get(name)]):
        given = f"{several[0]}={os.environ[several[0]]}: is set without {', '.join(missing)}"
        raise UserError(f"{given}. Unset this variable, or start with torchrun, which sets all of them.")
    if several and not re.fullmatch("[0-9]{1,5}", port := os.environ["MASTER_PORT"]):
        raise UserError(f"MASTER_PORT={port}: must be the number of a port. Correct it, or start with torchrun.")


def _joining() -> list[str]:
    """The variables that let the library join a group of processes: sizes of several, else LOCAL_RANK."""
    sizes = [name for name in SIZES if os.environ.get(name) not in (None, "1")]
    return sizes or [name for name in ("LOCAL_RANK",) if os.environ.get(name, "-1") != "-1"]


def give_own_address() -> None:
    """Give a single process that torchrun has not started an address of its own.

    The library would wait for the address in variables that are left over.
    """
    complete = all(map(os.environ.get, OF_TORCHRUN))
    if complete and _joining() == ["LOCAL_RANK"] and "TORCHELASTIC_RUN_ID" not in os.environ:
        os.environ |= {"RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}  # 0: any free port


class _TolerantFile(io.FileIO):
    """A file descriptor whose writes never fail. Unwritable output is discarded."""

    error: OSError | None = None
    """The first error of a write."""

    def write(self, data) -> int | None:
        """Write, or discard the output after an error of the operating system."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            return len(data)


def tolerate_broken_output() -> None:
    """Make printing safe against closed pipes (`| head -1`), full disks and characters that the terminal cannot encode.

    A closed stdin (`<&-`) is an empty one. Call it at the start of a command, and `lost_output` at its end.
    """
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell (`2>&-`)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream is getattr(sys, f"__{name}__") and isinstance(stream.buffer, (io.BufferedWriter, io.FileIO)):
            stream.flush()
            raw = _TolerantFile(stream.fileno(), "w", closefd=False)
            at_once = stream.line_buffering or stream.write_through
            tolerant = io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "backslashreplace", None, at_once)
            setattr(sys, name, tolerant)


def lost_output() -> OSError | None:
    """The first error of writing to stdout, such as a full disk. None if its reader or its terminal has left."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = raw.error if isinstance(raw, _TolerantFile) else None
    if isinstance(error, ConnectionError):  # a closed pipe
        return None
    closed_terminal = error and error.errno == errno.EIO and not stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
    return None if closed_terminal else error


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensors. Otherwise the kernel clears every page again."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # the maximum of older glibc versions
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def freeze_imports() -> None:
    """Turn garbage collection on again, and exclude all existing objects from it. Call it after the imports.

    Checking the objects of the imported modules takes at least 0.3 s. No effect if garbage collection is on.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def free_memory() -> None:
    """Free the memory of a run before the next run loads a model."""
    gc.collect()
    freeze_imports()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def busy_note(seconds: float = 0.1) -> str | None:
    """Measure the CPU load of other processes. Returns a warning if they occupy half a core or more, else None."""
    cores = _cores()
    before, own = _busy_seconds(cores), time.process_time()
    time.sleep(seconds)
    others = (_busy_seconds(cores) - before - (time.process_time() - own)) / seconds
    if others < 0.5:
        return None
    others = f"{min(others, len(cores)):.1f} of {len(cores)} cores"
    return f"{BUSY} {others}, so the measured times are not comparable"


def _cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _busy_seconds(cores: list[int]) -> float:
    """Total seconds that these cores have spent on processes since the machine started."""
    import psutil

    times = psutil.cpu_times(percpu=True)
    return sum(times[core].user + times[core].system + getattr(times[core], "nice", 0.0) for core in cores)


def has_bf16(use_cpu: bool = False) -> bool:
    """Whether the GPU computes in bf16. Without a GPU or with `use_cpu`: the CPU (AVX-512 BF16 or AMX)."""
    import torch

    if torch.cuda.is_available() and not use_cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
