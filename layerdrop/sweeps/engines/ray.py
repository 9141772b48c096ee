"""Jobs as tasks of an existing Ray cluster. The jobs of a lost node are executed again on another node."""

import os
import pickle
import socket
from pathlib import Path
from typing import Any

from layerdrop.errors import UserError
from layerdrop.runs.record import Run, RunRecord
from layerdrop.sweeps.engines.base import Job, Result
from layerdrop.system.text import one_line

ROOT = Path(__file__).resolve().parents[3]


class RayEngine:
    """Engine on a Ray cluster. All nodes must share the store, and have the code at the same path.

    Relative paths of the jobs count from this process's working directory.
    """

    def __init__(self, run: Run, address: str, runs_per_gpu: int = 1, cores_per_run: int = 1):
        try:
            import ray
        except ImportError:
            raise UserError("--engine ray: Ray is not installed. Do: pip install 'ray>=2.40'") from None
        self.ray = ray
        _check_address(address)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            ray.init(address=address, runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False)
        except ConnectionError as error:
            raise _no_cluster(address, error) from None
        resources = ray.cluster_resources()
        gpus, cores = resources.get("GPU", 0), resources.get("CPU", 0)
        self.slots = max(1, int(gpus * runs_per_gpu if gpus else cores // cores_per_run))
        self.task = ray.remote(_work_on_node).options(
            num_cpus=cores_per_run if not gpus else 0,
            num_gpus=1 / runs_per_gpu if gpus else 0,
            max_retries=3,
        )
        self.run, self.cores_per_run, self.directory = pickle.dumps(run), cores_per_run, os.getcwd()
        self.jobs: dict[Any, Job] = {}
        """Ray's reference of a task -> its job."""

    def start(self, job: Job) -> None:
        """See Engine."""
        self.jobs[self.task.remote(self.run, job, self.cores_per_run, self.directory)] = job

    def wait(self, seconds: float) -> list[Result]:
        """See Engine."""
        ended, _ = self.ray.wait(list(self.jobs), num_returns=1, timeout=seconds) if self.jobs else ([], [])
        results = []
        for reference in ended:
            job = self.jobs.pop(reference)
            try:
                results.append(Result(job, self.ray.get(reference)))
            except self.ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)  # what the task raised. `error` begins with its traceback
                results.append(Result(job, error=one_line(str(cause or error), 300)))
        return results

    def close(self) -> None:
        """See Engine."""
        for reference in self.jobs:
            self.ray.cancel(reference, force=True)
        self.ray.shutdown()


def _no_cluster(address: str, error: Exception | str) -> UserError:
    return UserError(f"--address {address}: no Ray cluster there ({error}). Start one: ray start --head")


def _check_address(address: str) -> None:
    """Raise UserError if nothing listens at the address. Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # `auto` or `local`, which have no port
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from None


def _work_on_node(run: bytes, job: Job, cores: int, directory: str) -> RunRecord | None:
    try:
        os.chdir(directory)  # a worker of Ray starts in the directory of `ray start`
    except OSError as error:
        if not Path(job.options.folder).is_absolute():
            raise UserError(
                f"{directory}: a node of the cluster cannot read the directory of the sweep ({error.strerror}). Give "
                "--store and the data as absolute paths."
            ) from None
    from layerdrop.sweeps.engines.worker import load_run, work

    function = load_run(run)
    import torch

    torch.set_num_threads(cores)
    return work(function, job)
