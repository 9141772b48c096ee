"""Objectives: losses that a training minimizes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from layerdrop.data.kinds import Kind
from layerdrop.errors import UserError

FROM_TEACHER = "teacher_"
"""Prefix of a teacher's outputs in a batch."""


class Objective(Protocol):
    """A scalar loss in fp32: a mean over the rows of a batch."""

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """batch: `labels` (batch,) and the model's inputs (batch, tokens), on the model's device."""


def model_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entries of a batch that the model takes as inputs."""
    return {name: value for name, value in batch.items() if name != "labels" and not name.startswith(FROM_TEACHER)}


def check_alike(loss: str, model: PreTrainedModel, other: PreTrainedModel, names: Iterable[str]) -> None:
    """Raise UserError if a field of the configurations differs. loss: the class for the message. names: the fields."""
    for name in names:
        if (ours := getattr(model.config, name)) != (theirs := getattr(other.config, name)):
            raise UserError(
                f"{loss}: {name} is {ours} in the one model and {theirs} in the other. It must be the same."
            )


@dataclass(frozen=True)
class TaskLoss:
    """The loss of the library's classifiers: `Kind.loss`."""

    kind: Kind
    label_smoothing: float = 0.0
    class_weights: torch.Tensor | None = None
    """(classes,) in the model's order, on the model's device; None: no weights."""

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch, as Objective."""
        return self.of(model(**model_inputs(batch)).logits, batch["labels"])

    def of(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """logits: (batch, ..., outputs); labels: of the kind."""
        return self.kind.loss(logits, labels, self.label_smoothing, self.class_weights)
