"""The project of a training in the library's logging integrations (--report_to, --project)."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import TrainingArguments

VARIABLES = ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "COMET_PROJECT_NAME", "CLEARML_PROJECT", "SWANLAB_PROJECT")
"""Environment variables from which the library reads the project. Only trackio reads `TrainingArguments.project`."""


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
