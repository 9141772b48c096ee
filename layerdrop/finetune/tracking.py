"""The library's logging integrations (--report_to, --project): their packages, and the project of a training."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

from transformers import TrainerCallback, TrainingArguments
from transformers.integrations import integration_utils
from transformers.integrations.integration_utils import TensorBoardCallback

from layerdrop.system.own_files import EVENTS_SUFFIX

VARIABLES = ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "COMET_PROJECT_NAME", "CLEARML_PROJECT", "SWANLAB_PROJECT")
"""Environment variables from which the library reads the project. Only trackio reads `TrainingArguments.project`."""
MODULES = {"azure_ml": "azureml", "flyte": "flytekit"}
"""Tracker -> module of its package, if the names differ."""
PACKAGES = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "flyte": "flytekit"}
"""Tracker -> package to install, if the names differ."""


def missing_package(tracker: str) -> str | None:
    """The package to install for a tracker of the library; None if it is installed, or if no package is needed."""
    module = MODULES.get(tracker, tracker)
    spec = find_spec(module)
    installed = spec is not None and spec.origin is not None  # a folder, such as the logs in ./wandb, has no origin
    if tracker == "kubeflow" or installed:  # Kubeflow only needs an environment variable
        return None
    available = getattr(integration_utils, f"is_{module.removesuffix('_ml')}_available")
    return None if available() else PACKAGES.get(tracker, tracker)


def log_to(folder: str, callbacks: Iterable[TrainerCallback], resumed_at_step: int | None) -> None:
    """Let TensorBoard write its event files directly into a folder, so that its run has the folder's name.

    By default, the library adds `runs/TIME_HOST`, and each training of the folder adds a run. The names of the files
    end in EVENTS_SUFFIX. The user's variable TENSORBOARD_LOGGING_DIR overrides the folder. resumed_at_step: TensorBoard
    hides what a killed training has logged after this step, because the resumed training logs it again.
    """
    purge_step = None if resumed_at_step is None else resumed_at_step + 1
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = folder
            writer = partial(callback._SummaryWriter, filename_suffix=EVENTS_SUFFIX, purge_step=purge_step)
            callback._SummaryWriter = writer


@contextmanager
def tracking(args: TrainingArguments) -> Iterator[None]:
    """Report a training to the project `args.project`, as a separate run of W&B, MLflow and trackio.

    A variable of VARIABLES in the user's environment overrides `args.project`. A run that the caller opened stays open.
    The library does not end W&B's run, nor any run of a failed training: the next training of this process would
    continue it.
    """
    variables = {} if args.project == TrainingArguments.project else {name: args.project for name in VARIABLES}
    added = variables.keys() - os.environ.keys()
    earlier = _open_runs()
    os.environ.update({name: variables[name] for name in added})
    failed = True
    try:
        yield
        failed = False
    finally:
        for name in added:
            del os.environ[name]
        for name in _open_runs() - earlier:
            _end(name, failed)


def _open_runs() -> set[str]:
    """The trackers that have an open run. Imports none of them."""
    wandb, mlflow, trackio = (sys.modules.get(name) for name in ("wandb", "mlflow", "trackio"))
    runs = {
        "wandb": getattr(wandb, "run", None),
        "mlflow": mlflow and mlflow.active_run(),
        "trackio": trackio and trackio.context_vars.current_run.get(),
    }
    return {name for name, run in runs.items() if run is not None}


def _end(name: str, failed: bool) -> None:
    tracker = sys.modules[name]
    if name == "wandb":
        tracker.finish(exit_code=int(failed))
    elif name == "mlflow":
        tracker.end_run("FAILED" if failed else "FINISHED")
    else:
        tracker.finish()
