"""Worker slots of this machine: cores, GPUs, and the number of workers that fits into memory."""

import os
from dataclasses import dataclass

import psutil

MEMORY_PER_WORKER = 4 * 2**30
"""Maximum memory of a worker on a CPU, in bytes, for a base-size model."""


@dataclass(frozen=True)
class WorkerSlot:
    """Resources of a worker: some cores, and possibly a GPU as named by CUDA_VISIBLE_DEVICES."""

    cores: tuple[int, ...]
    gpu: str | None = None


def slots(workers: int | None = None, runs_per_gpu: int = 1) -> list[WorkerSlot]:
    """`runs_per_gpu` slots on each GPU. Without a GPU, one slot for each core, limited by the free memory.

    workers: number of slots; None: as above, at least one. Cores are distributed evenly. CUDA is not initialized here.
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
    """Names of the GPUs for CUDA_VISIBLE_DEVICES. NVML counts them without a CUDA context."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    n = torch.cuda.device_count()
    return [name.strip() for name in named.split(",")][:n] if named else [str(i) for i in range(n)]
