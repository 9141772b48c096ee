"""Elastic depth: one training of a full model and of its first layers alone, which share all weights.

Related: elastic depth of Once-for-All (Cai et al. 2020) and DynaBERT (Hou et al. 2020), and AdaptiveLayerLoss of
sentence-transformers. The shallower models cost little: their layers are computed in the full model's pass.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from layerdrop.finetune.objectives import TaskLoss, model_inputs
from layerdrop.states import record_outputs, replay


class _Exit(torch.autograd.Function):
    """The state after a layer, for the next layer and for a head. Backward: enlarge the head's gradient.

    The gradient of the head's loss gets at least the norm of the gradient from the next layer. Otherwise it has almost
    no share in Adam's steps while the full model learns.
    """

    @staticmethod
    def forward(ctx, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """state: (batch, tokens, hidden)."""
        return state.view_as(state), state.view_as(state)

    @staticmethod
    def backward(ctx, upward: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        """Gradients of both uses -> gradient of the state."""
        ratio = upward.norm() / head.norm().clamp(min=torch.finfo(head.dtype).tiny)
        return upward + ratio.clamp(min=1.0) * head


def _exit(output) -> tuple:
    """A layer's output -> (output for the next layer, output for the head)."""
    if not isinstance(output, tuple):
        return _Exit.apply(output)
    upward, head = _Exit.apply(output[0])
    return (upward, *output[1:]), (head, *output[1:])


class ElasticDepth:
    """An Objective: the weighted mean of the losses of a full model and of its first n layers for several n.

    The loss of a shallower model is the task loss, of which `distill_weight` is replaced by distillation from the full
    model's logits. All models share the head. The head reads the state after the last kept layer exactly as in the
    reduced model.
    """

    def __init__(
        self,
        task: TaskLoss,
        model: PreTrainedModel,
        depths: Sequence[int],
        distill_weight: float = 0.5,
        full_weight: float = 1.0,
    ):
        """model: the full model, unwrapped. depths: numbers of kept layers of the shallower models.

        full_weight: weight of the full model's loss relative to the loss of a shallower model.
        """
        self.task, self.model, self.depths = task, model, sorted(set(depths))
        self.distill_weight, self.full_weight = distill_weight, full_weight

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch, as Objective."""
        if not self.depths:
            return self.task(model, batch)
        inputs, labels = model_inputs(batch), batch["labels"]

        def change(layer: int, output) -> tuple:
            return _exit(output) if layer + 1 in self.depths else (output, output)

        with record_outputs(self.model, change) as outputs:
            full = model(**inputs).logits
        loss = self.full_weight * self.task.of(full, labels)
        for depth in self.depths:
            with replay(self.model, outputs[:depth]):
                logits = self.model(**inputs).logits
            loss = loss + (1 - self.distill_weight) * self.task.of(logits, labels)
            if self.distill_weight:
                loss = loss + self.distill_weight * self.task.kind.distillation_loss(logits, full.detach(), 1.0)
        return loss / (self.full_weight + len(self.depths))
