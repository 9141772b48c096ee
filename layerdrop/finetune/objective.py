"""What training minimises."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import nn

from layerdrop.finetune.evaluate import task_loss

FROM_TEACHER = "teacher_"
"""Prefix of a teacher's outputs in a batch."""


class Objective(Protocol):
    """A scalar loss, a mean over the rows of a batch, in fp32. One that is a TrainerCallback too is registered with the
    Trainer."""

    same_every_step: bool
    """Whether it computes the same operations at every step, on batches of one shape."""

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """batch: `labels` (batch,) and the model's inputs (batch, tokens), on the model's device."""


def model_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries of a batch that are inputs of the model."""
    return {name: value for name, value in batch.items() if name != "labels" and not name.startswith(FROM_TEACHER)}


@dataclass(frozen=True)
class TaskLoss:
    """Cross-entropy for classes, squared error for values: the loss of the library's classifiers."""

    same_every_step: ClassVar[bool] = True
    regression: bool
    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See Objective."""
        return self.of(model(**model_inputs(batch)).logits, batch["labels"])

    def of(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """logits: (batch, classes), or (batch, 1) for regression; labels: (batch,)."""
        return task_loss(logits, labels, self.regression, self.label_smoothing)
