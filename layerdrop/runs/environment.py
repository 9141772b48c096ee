"""The environment of a run: versions, hardware, the commit of the code, peak memory."""

import os
import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from layerdrop.runs.record import Environment

VERSION_OF = ("torch", "transformers", "accelerate", "datasets", "numpy", "scikit-learn", "scipy", "tokenizers")


def environment(use_cpu: bool = False) -> Environment:
    """Versions, hardware and the commit of the code, for the record. use_cpu: name the processor, not the GPU."""
    import torch

    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        **{name: version(name) for name in VERSION_OF},
    }
    cuda = torch.cuda.is_available() and not use_cpu
    return {
        "versions": versions,
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "device_count": torch.cuda.device_count() if cuda else 0,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        **_commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@cache
def _commit() -> Environment:
    """`commit`: the commit of this process's code; `dirty`: whether tracked files differed from it. None without git.

    The result of the first call is cached: a later checkout does not change the code of a running process.
    """
    root = Path(__file__).resolve().parent.parent.parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD") if (root / ".git").exists() else None
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "-uno")) if commit else None}


def peak_memory() -> dict[str, int]:
    """Peaks in bytes. `host`: resident size of the process. `cuda`: allocations on the GPU."""
    import torch

    peaks = {"host": _peak_resident()}
    if torch.cuda.is_available():
        peaks["cuda"] = torch.cuda.max_memory_allocated()
    return peaks


def reset_peak_memory() -> None:
    """Reset peak_memory, for another run in the same process."""
    import torch

    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_resident() -> int:
    try:  # Linux: getrusage would include the peak of the parent process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
