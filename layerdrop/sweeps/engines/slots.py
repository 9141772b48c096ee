"""Worker slots of this machine: cores, GPUs, and the number of workers that fits into memory."""

import os
from dataclasses import dataclass

import psutil

MEMORY_PER_WORKER = 4 * 2**30
"""Maximum memory of a worker on a CPU, in bytes, for a base-size model."""


@dataclass(frozen=True)
class WorkerSlot:
    """Resources of a worker: CPU cores, and optionally a GPU, named as in CUDA_VISIBLE_DEVICES."""

    cores: tuple[int, ...]
    gpu: str | None = None


def slots(workers: int | None = None, runs_per_gpu: int = 1) -> list[WorkerSlot]:
    """Return `runs_per_gpu` slots for each GPU. Without a GPU, return one slot for each core, if memory allows.

    workers: number of slots; None: choose it as above, at least one. The cores are divided evenly among the slots.
    Does not initialize CUDA.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    gpus: list[str | None] = [gpu for gpu in visible_gpus() for _ in range(runs_per_gpu)]
    if not gpus:
        fit = psutil.virtual_memory().available // MEMORY_PER_WORKER
        gpus = [None] * (workers or max(1, min(len(cores), fit)))
    elif workers:
        gpus = [gpus[i % len(gpus)] for i in range(workers)]
    n = len(gpus)
    shares = [tuple(cores[i::n]) or (cores[i % len(cores)],) for i in range(n)]
    return [WorkerSlot(share, gpu) for share, gpu in zip(shares, gpus, strict=True)]


def visible_gpus() -> list[str]:
    """Names of the usable GPUs, as in CUDA_VISIBLE_DEVICES. Counting them creates no CUDA context."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    n = torch.cuda.device_count()
    return [name.strip() for name in visible.split(",")][:n] if visible else [str(i) for i in range(n)]
