"""The training batch that a `compute_loss_func` of transformers' Trainer needs besides its outputs and labels."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from layerdrop.errors import UserError

Inputs = Mapping[str, torch.Tensor]


class TrainingBatch:
    """A model's inputs in its last forward pass, if the pass computes gradients, and a record of this pass.

    A hook on the model stores both. Passes inside `taken` are not stored.
    """

    def __init__(self, loss: str, model: PreTrainedModel, record: Callable[[Inputs], AbstractContextManager[Any]]):
        """loss: class of the loss, for the message. record: a context that records a forward pass on these inputs."""
        self.loss, self.record = loss, record
        self.recording, self.stored, self.in_use = ExitStack(), None, False
        self.hook = model.register_forward_pre_hook(self._before_forward, with_kwargs=True)

    def _before_forward(self, model: nn.Module, args: tuple, inputs: dict) -> None:
        if self.in_use:
            return
        self.recording.close()
        self.stored = None
        if torch.is_grad_enabled():
            tensors = {name: value for name, value in inputs.items() if torch.is_tensor(value) and name != "labels"}
            self.stored = tensors, self.recording.enter_context(self.record(tensors))

    @contextmanager
    def taken(self) -> Iterator[tuple[Inputs, Any]]:
        """Inputs and record of the last batch. Raises UserError if nothing is stored."""
        self.recording.close()
        if self.stored is None:
            raise UserError(
                f"{self.loss}: its model has not computed this batch. Create a new loss for the model that is trained. "
                "After `remove`, a loss cannot be used again."
            )
        self.in_use = True
        try:
            yield self.stored
        finally:
            self.in_use = False

    def remove(self) -> None:
        """Remove the hooks from the model."""
        self.recording.close()
        self.hook.remove()
        self.stored = None
