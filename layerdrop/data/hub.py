"""Splits of the hub's `nyu-mll/glue`, or of its local cache."""

import numpy as np

from layerdrop.checkpoints import WAYS_WITHOUT_HUB
from layerdrop.data.examples import Examples
from layerdrop.data.tasks import Task
from layerdrop.errors import UserError

HUB_DATASET = "nyu-mll/glue"
DIAGNOSTIC_CONFIG = "ax"
"""GLUE's diagnostic set: one split, `test`, with MNLI's columns."""


def read_hub_split(
    task: Task, split: str, cache_dir: str | None = None, token: str | None = None, config: str | None = None
) -> Examples:
    """One split of a GLUE task. config: a part of the dataset under another name than the task's, with its columns.

    Raises UserError where neither the hub nor the cache has it.
    """
    import datasets

    config = config or task.name
    try:
        rows = datasets.load_dataset(HUB_DATASET, config, split=split, cache_dir=cache_dir, token=token)
    except Exception as error:  # the library raises OSError, ValueError, ConnectionError and its own
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"--task_name {task.name}: cannot get {HUB_DATASET} ({config}, {split}) from the hub or the local cache "
            f"({reason}). {WAYS_WITHOUT_HUB}."
        ) from error
    labels = np.array(rows["label"], dtype=task.kind.dtype)
    texts = tuple(list(rows[column]) for column in task.hub_texts)
    return Examples(texts, None if split.startswith("test") else labels, [str(i) for i in rows["idx"]])
