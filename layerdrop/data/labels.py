"""Convert class ids between the order of a task and the order of a checkpoint. No other module does this."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerdrop.checkpoints import Checkpoint
from layerdrop.data.kinds import Kind, kind_of
from layerdrop.data.tasks import DEMO_TASKS, TASKS, Task
from layerdrop.data.tokens import TokenizedDataset


class Labels:
    """The labels of a task in a checkpoint's order of classes.

    A checkpoint keeps its order if its configuration names the task's classes. Otherwise the task's order is used.
    """

    def __init__(self, task: Task, checkpoint: Checkpoint | None = None):
        """checkpoint: None to use the task's order."""
        self.task, self.kind, self.checkpoint = task, task.kind, checkpoint
        order = None if checkpoint is None else label_order(task, checkpoint.label_names)
        self.order = None if order is None else np.array(order)
        """(classes,) the task's class id for each class id of the model. None for the task's order."""

    @property
    def names(self) -> list[str]:
        """Class names in the model's order; empty for values."""
        names = self.task.labels
        return list(names) if self.order is None else [names[i] for i in self.order]

    @property
    def ids(self) -> np.ndarray:
        """(outputs,) the task's id for each output of the model."""
        return np.arange(self.kind.n_outputs) if self.order is None else self.order

    @property
    def head(self) -> dict[str, Any]:
        """Arguments of layerdrop.loading.load_classifier for a model of this task."""
        return self.kind.head(self.names)

    def to_model(self, labels: np.ndarray) -> np.ndarray:
        """Class ids in the task's order -> in the model's order; values are unchanged."""
        return labels if self.order is None else self.kind.renumbered(labels, np.argsort(self.order))

    def to_task(self, labels: np.ndarray) -> np.ndarray:
        """Class ids in the model's order -> in the task's order; values are unchanged."""
        return labels if self.order is None else self.kind.renumbered(labels, self.order)

    def decide(self, logits: np.ndarray, data: TokenizedDataset) -> np.ndarray:
        """(units, outputs) logits in the model's order -> a prediction in the task's order for each row of `data`."""
        return self.kind.by_row(self.to_task(self.kind.decide(logits)), data)

    def score(self, logits: np.ndarray, data: TokenizedDataset) -> dict[str, float]:
        """`loss` (mean over units) and the task's metrics. data: with labels in the model's order."""
        import torch

        loss = self.kind.loss(torch.from_numpy(logits), torch.from_numpy(self.kind.unit_labels(data)))
        measured = self.kind.measure(self.task.metrics, self.decide(logits, data), self.to_task(data.labels))
        return {"loss": float(loss), **measured}

    @property
    def fits(self) -> bool:
        """Whether the checkpoint has a trained head for this kind and number of labels."""
        head = self.checkpoint and head_kind(self.checkpoint)
        return head is not None and type(head) is type(self.kind) and head.n_outputs == self.kind.n_outputs

    @property
    def pairs(self) -> str | None:
        """Describe which class of the head counts as which class of the task. None if the names are equal."""
        return pairs_by_order(self.task, self.checkpoint.classes) if self.fits and self.names else None


def head_kind(checkpoint: Checkpoint) -> Kind | None:
    """The kind of labels that a checkpoint's trained head predicts; None without a head."""
    return kind_of(checkpoint.config) if checkpoint.has_classifier else None


def label_order(task: Task, checkpoint_labels: Sequence[str]) -> list[int] | None:
    """The task's class id for each class of a checkpoint; None if the order is the task's.

    checkpoint_labels: names of the checkpoint's classes in id order, compared ignoring case. If the names differ from
    the task's names, the task's order is used.
    """
    checkpoint_names = [name.lower() for name in checkpoint_labels]
    for spelling in (task.labels, task.words):
        known = [name.lower() for name in spelling]
        if checkpoint_names and sorted(checkpoint_names) == sorted(known):
            order = [known.index(name) for name in checkpoint_names]
            return order if order != sorted(order) else None
    return None


def pairs_by_order(task: Task, classes: Sequence[str]) -> str | None:
    """Describe which class of a checkpoint counts as which class of a task. None if the names are equal.

    classes: the checkpoint's names in id order, as many as the task's, compared ignoring case. In GLUE
    and demo tasks, LABEL_0, LABEL_1, ... count as the task's names.
    """
    numbers = [re.fullmatch(r"LABEL_(\d+)", name) for name in classes]
    if all(numbers) and task.name in TASKS | DEMO_TASKS:
        return None
    checkpoint_names = sorted(
        number[1] if number else name.lower() for name, number in zip(classes, numbers, strict=True)
    )
    if checkpoint_names in (sorted(name.lower() for name in spelling) for spelling in (task.labels, task.words)):
        return None
    return ", ".join(f"{name} counts as {task_class}" for name, task_class in zip(classes, task.labels, strict=True))
