"""Placement of workers on this machine: cores, GPUs, and how many workers the memory allows."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MEMORY_PER_WORKER = 4 * 2**30
"""Bytes that a worker on a CPU needs at most, for a base-size model."""
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class WorkerSlot:
    """What a worker may use: some cores, and perhaps a GPU (as CUDA_VISIBLE_DEVICES names it)."""

    cores: tuple[int, ...]
    gpu: str | None = None


def slots(workers: int | None = None, runs_per_gpu: int = 1) -> list[WorkerSlot]:
    """At least one place: `runs_per_gpu` on each GPU, or without a GPU one on each core, as far as memory allows.

    workers: so many instead. The cores are shared out evenly. CUDA is not initialised in this process.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    gpus: list[str | None] = [gpu for gpu in visible_gpus() for _ in range(runs_per_gpu)]
    if not gpus:
        gpus = [None] * (workers or max(1, min(len(cores), available_memory() // MEMORY_PER_WORKER)))
    elif workers:
        gpus = [gpus[i % len(gpus)] for i in range(workers)]
    n = len(gpus)
    shares = [tuple(cores[i::n]) or (cores[i % len(cores)],) for i in range(n)]
    return [WorkerSlot(share, gpu) for share, gpu in zip(shares, gpus, strict=True)]


def visible_gpus() -> list[str]:
    """Names of the GPUs for CUDA_VISIBLE_DEVICES. They are counted through NVML, without a context on any."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    n = torch.cuda.device_count()
    return [name.strip() for name in named.split(",")][:n] if named else [str(i) for i in range(n)]


def available_memory() -> int:
    """Bytes that new processes can have without swapping: the machine's, or what the container's limit leaves."""
    import psutil

    return max(0, min([psutil.virtual_memory().available, *_left_in_cgroups()]))


def _left_in_cgroups() -> Iterator[int]:
    """Bytes left below the memory limit of this process's cgroup and of each one around it (version 2 and 1)."""
    with suppress(OSError):
        for line in OWN_CGROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _left_below(CGROUPS, path, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
                yield from _left_below(CGROUPS / "memory", path, *names)


def _left_below(root: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    """limit - (usage - cache) for a folder below `root` and its parents; `cache`, in memory.stat, can be given up.

    In a container the folder may be missing, as its own files lie in `root`. A file without a number is no limit.
    """
    folder = root / path.lstrip("/")
    for level in (folder, *folder.parents):
        with suppress(OSError, ValueError):
            yield int((level / limit).read_text()) - int((level / usage).read_text()) + _stat(level, cache)
        if level == root:
            return


def _stat(folder: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            key, value = line.split()
            if key == name:
                return int(value)
    return 0
