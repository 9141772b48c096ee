"""What training minimises."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from layerdrop.evaluate import task_loss


class Objective(Protocol):
    """A scalar loss, a mean over the rows of a batch, in fp32. One that is a TrainerCallback too hears of the steps."""

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """batch: `labels` (batch,) and the model's inputs (batch, tokens), on the model's device."""


@dataclass(frozen=True)
class TaskLoss:
    """Cross-entropy for classes, squared error for values: the loss of the library's classifiers."""

    regression: bool
    label_smoothing: float = 0.0

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See Objective."""
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        return task_loss(model(**inputs).logits, batch["labels"], self.regression, self.label_smoothing)
