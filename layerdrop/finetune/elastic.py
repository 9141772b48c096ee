"""Elastic depth: one training of a full model and of shallower models, which are its first layers.

Related: elastic depth of Once-for-All (Cai et al. 2020) and DynaBERT (Hou et al. 2020), and AdaptiveLayerLoss of
sentence-transformers. The shallower models cost little, because the full model's pass computes their layers.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from layerdrop.data.kinds import kind_of
from layerdrop.data.tokens import IGNORED
from layerdrop.errors import UserError
from layerdrop.finetune.objectives import TaskLoss, model_inputs
from layerdrop.finetune.training_batch import TrainingBatch
from layerdrop.states import record_outputs, replay
from layerdrop.surgery import layer_list
from layerdrop.system.limits import PROBABILITY, RANGES, Range


class ElasticDepth(TrainerCallback):
    """An Objective: the mean of the losses of a full model and of shallower models.

    A shallower model has the first layers and the head of the full model. Its loss is
    (1 - distill_weight) * task loss + distill_weight * distillation loss. The full model's detached logits are the
    teacher.

    As a callback, it trains the full model alone until `begin`. Then the shallower models join one by one, deepest
    first. All have joined at `end`. Without the callback, all models are trained from the first step.
    """

    def __init__(
        self,
        task: TaskLoss,
        model: PreTrainedModel,
        depths: Sequence[int],
        distill_weight: float = 0.5,
        begin: float = 0.25,
        end: float = 0.5,
    ):
        """model: the full model, unwrapped. depths: numbers of layers of the shallower models. begin, end: fractions
        of all steps."""
        self.task, self.model, self.depths = task, model, sorted(set(depths), reverse=True)
        self.distill_weight, self.begin, self.end = distill_weight, begin, end
        self.weights = torch.ones(1 + len(self.depths))
        """Weights of the full model and of each depth in the mean. A CUDA graph reads this tensor at each step."""

    def joined(self, progress: float) -> list[bool]:
        """Whether each of `depths` is trained. progress: finished fraction of all steps."""
        gap = (self.end - self.begin) / max(1, len(self.depths) - 1)
        return [progress >= self.begin + i * gap for i in range(len(self.depths))]

    def on_step_begin(self, args, state, control, **kwargs):
        """Set the weights of the step."""
        joined = self.joined(state.global_step / state.max_steps)
        self.weights = self.weights.to(self.model.device)
        self.weights.copy_(torch.tensor([True, *joined]))

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch, as Objective."""
        inputs = model_inputs(batch)
        with record_outputs(self.model) as outputs:
            logits = model(**inputs).logits
        return self.of(logits, outputs, inputs, batch["labels"])

    def of(
        self, full: torch.Tensor, outputs: Sequence, inputs: Mapping[str, torch.Tensor], labels: torch.Tensor
    ) -> torch.Tensor:
        """The loss from the full model's logits and the outputs of its layers."""
        losses = [self.task.of(full, labels)]
        for depth in self.depths:
            with replay(self.model, outputs[:depth]):
                logits = self.model(**inputs).logits
            loss = self.task.of(logits, labels)
            if self.distill_weight:
                teacher = self.task.kind.distillation_loss(logits, full.detach(), 1.0, labels)
                loss = (1 - self.distill_weight) * loss + self.distill_weight * teacher
            losses.append(loss)
        weights = self.weights.to(full.device)
        return (torch.stack(losses) * weights).sum() / weights.sum()


class ElasticDepthLoss(ElasticDepth):
    """Elastic depth for any Trainer: a `compute_loss_func` and a callback.

        loss = ElasticDepthLoss(model, [2, 4, 6])
        Trainer(model, args, train_dataset=data, compute_loss_func=loss, callbacks=[loss])

    Hooks on the model store the inputs of each training batch and the outputs of the layers. Without gradients, as in
    evaluations, the loss is the task loss of the full model. After the training, call `remove`.
    Then `drop_layers` or `without` gives the model of each K. Without the callback, set begin=0 and end=0: then, all
    models are trained from the first step.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ks: Sequence[int],
        *,
        distill_weight: float = 0.5,
        begin: float = 0.25,
        end: float = 0.5,
    ):
        """model: a classifier of the library, unwrapped. ks: numbers of layers to drop from the top.

        Raises UserError for values out of range.
        """
        n_layers = len(layer_list(model))
        possible = Range(1, n_layers - 1, whole=True)
        if not isinstance(ks, Sequence) or not ks or not all(k in possible for k in ks):
            raise UserError(f"ElasticDepthLoss: ks {ks!r} must be a list of numbers of layers to drop, {possible}.")
        RANGES["distill_weight"].check("ElasticDepthLoss: distill_weight", distill_weight)
        if begin not in PROBABILITY or end not in PROBABILITY or begin > end:
            raise UserError(f"ElasticDepthLoss: begin {begin} and end {end} must be fractions with begin <= end < 1.")
        depths = [n_layers - k for k in ks]
        task = TaskLoss(kind_of(model.config, type(model).__name__))
        super().__init__(task, model, depths, distill_weight, begin, end)
        self.batch = TrainingBatch("ElasticDepthLoss", model, lambda inputs: record_outputs(model))
        self.scheduled = all(self.joined(0.0))
        """Whether `weights` are those of the step: a Trainer sets them, or all models are trained from the start."""

    def on_step_begin(self, args, state, control, **kwargs):
        """Set the weights of the step."""
        super().on_step_begin(args, state, control, **kwargs)
        self.scheduled = True

    def on_train_end(self, args, state, control, **kwargs):
        """Require the callback again in the next training."""
        self.scheduled = all(self.joined(0.0))

    def remove(self) -> None:
        """Remove the hooks from the model after the training."""
        self.batch.remove()

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of the model's last batch. num_items_in_batch: labels of all batches that a step accumulates.

        Raises UserError if the loss is not also a callback, for a batch of another model, and in a training after
        `remove`.
        """
        if not outputs.logits.requires_grad:  # an evaluation
            return self.task.of(outputs.logits, labels)
        if not self.scheduled:
            raise UserError(
                f"ElasticDepthLoss: begin {self.begin} and end {self.end} need a callback. Add callbacks=[loss] to the "
                "Trainer, or set begin=0 and end=0."
            )
        with self.batch.taken() as (inputs, layers):
            loss = self.of(outputs.logits, layers, inputs, labels)
        return loss if num_items_in_batch is None else loss * labels.ne(IGNORED).sum() / num_items_in_batch
