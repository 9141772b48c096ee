"""Distillation losses: logits (Hinton et al. 2015), states of the sentence token (Sun et al. 2019, "Patient Knowledge
Distillation"), states of every kept layer (as in DeepSpeed's XTC, Wu et al. 2022)."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import get_args

import torch
from torch import nn
from torch.nn.functional import mse_loss, normalize
from transformers import PreTrainedModel

from layerdrop.data.kinds import kind_of
from layerdrop.data.tokens import IGNORED
from layerdrop.errors import UserError, unknown
from layerdrop.finetune.objectives import TaskLoss, check_alike, model_inputs
from layerdrop.finetune.spec import Distill, DistilSpec
from layerdrop.finetune.training_batch import TrainingBatch
from layerdrop.states import States, record_states, sentence_tokens
from layerdrop.system.limits import RANGES, Range


def patient_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error over all dimensions of states (batch, pairs, hidden). Each state is scaled to length 1."""
    return mse_loss(normalize(student.float(), dim=-1), normalize(teacher.float(), dim=-1))


def layers_loss(student: Sequence[torch.Tensor], teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error over real tokens and hidden dimensions, summed over the pairs of layers.

    student: a tensor (batch, tokens, hidden) for each pair; teacher: (batch, pairs, tokens, hidden); mask: (batch,
    tokens), 1 for real tokens.
    """
    return _real_error(student, teacher, mask.unsqueeze(-1)) / (mask.sum() * teacher.shape[-1])


def attention_loss(student: Sequence[torch.Tensor], teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error of attention weights over heads and pairs of real tokens, summed over the pairs of layers.

    student: a tensor (batch, heads, tokens, tokens) for each pair; teacher: (batch, pairs, heads, tokens, tokens).
    """
    real = mask[:, None, :, None] * mask[:, None, None, :]
    return _real_error(student, teacher, real) / (real.sum() * teacher.shape[2])


def _real_error(student: Sequence[torch.Tensor], teacher: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Squared error, summed over the entries where `real` is 1 and over the pairs of layers."""
    return sum(
        ((states_of_layer.float() - teacher[:, i].float()) ** 2 * real).sum()
        for i, states_of_layer in enumerate(student)
    )


def check_depth(distil: DistilSpec | None, n_kept: int) -> None:
    """Raise UserError if too few layers are kept to form pairs with layers of the teacher."""
    if distil and distil.distill == "patient" and distil.distill_states_weight and n_kept < 2:
        raise UserError(
            "--distill patient: pairs all layers but the last, and the model keeps only one layer. Use --distill "
            "layers or logits, or drop fewer layers."
        )


class Distillation:
    """An Objective: (1 - weight) x task loss + weight x logits loss + states weight x loss of states (and attention).

    Batches contain the teacher's outputs (layerdrop.finetune.teacher). A term of weight 0 is not computed.
    """

    def __init__(self, task: TaskLoss, model: PreTrainedModel, spec: DistilSpec, layers: Sequence[int] = ()):
        """model: the student, unwrapped. layers: ids of its layers that are paired with the teacher's."""
        self.task, self.model, self.spec, self.layers = task, model, spec, layers

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch, as Objective."""
        inputs, states = model_inputs(batch), self.spec.distill_states_weight
        options = {"output_hidden_states": True} if states and self.spec.distill == "layers" else {}
        with record_states(self.model, inputs["input_ids"].shape[1]) if states else nullcontext() as recorded:
            output = model(**inputs, **options)
        return self.of(output.logits, recorded.outputs if recorded else [], batch)

    def of(self, logits: torch.Tensor, states: list[torch.Tensor], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a batch from the student's logits and its states after every layer."""
        spec = self.spec
        terms = [
            (1 - spec.distill_weight, lambda: self.task.of(logits, batch["labels"])),
            (spec.distill_weight, lambda: self._logits(logits, batch)),
            (spec.distill_states_weight, lambda: self._states(states, batch)),
        ]
        return sum(weight * loss() for weight, loss in terms if weight)

    def _logits(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        temperature = self.spec.distill_temperature
        return self.task.kind.distillation_loss(logits, batch["teacher_logits"], temperature, batch["labels"])

    def _states(self, outputs: list[torch.Tensor], batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        mask, teacher = batch["attention_mask"], batch["teacher_states"]
        states = [outputs[i] for i in self.layers]
        if self.spec.distill == "patient":
            rows = torch.arange(len(mask), device=mask.device)
            token = sentence_tokens(self.model, mask)
            return patient_loss(torch.stack([layer[rows, token] for layer in states], dim=1), teacher)
        loss = layers_loss(states, teacher, mask)
        if self.spec.distill_attention:
            attentions = self._attentions(model_inputs(batch))
            loss = loss + attention_loss([attentions[i] for i in self.layers], batch["teacher_attention"], mask)
        return loss

    def _attentions(self, inputs: Mapping[str, torch.Tensor]) -> Sequence[torch.Tensor]:
        """The model's attention weights, with gradients, from a second forward pass without dropout.

        In training mode, the library returns the weights after dropout, which sets a tenth of them to zero.
        """
        training = self.model.training
        self.model.eval()
        try:
            return self.model(**inputs, output_attentions=True).attentions
        finally:
            self.model.train(training)


def _check_pairs(
    distill: Distill, pairs: Sequence[tuple[int, int]], states_weight: float | None, n_student: int, n_teacher: int
) -> None:
    """Raise UserError for an unknown kind of distillation, and for pairs or a weight that do not fit it."""
    if distill not in get_args(Distill):
        raise unknown("distill", str(distill), get_args(Distill))
    given = {bool(pairs), bool(states_weight)}
    if given != {distill != "logits"}:
        needs = "no pairs and no distill_states_weight" if distill == "logits" else "pairs and distill_states_weight"
        raise UserError(f"distill '{distill}': needs {needs}.")
    ours, theirs = Range(0, n_student - 1, whole=True), Range(0, n_teacher - 1, whole=True)
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2 or pair[0] not in ours or pair[1] not in theirs:
            raise UserError(
                f"pairs: {pair} is no pair of layers. The student has layers 0 to {n_student - 1}, the teacher "
                f"has layers 0 to {n_teacher - 1}."
            )


class DistillationLoss:
    """A `compute_loss_func` for any Trainer: distillation from a teacher, which runs on each batch of the student.

        loss = DistillationLoss(student, teacher, distill_temperature=2.0)
        Trainer(student, args, train_dataset=data, compute_loss_func=loss)

    Both models are classifiers of the library that take the same batches. With `patient` and `layers`, `pairs` names
    the paired layers. A hook on the student stores the inputs of each training batch. Call `remove` to remove the hook.
    Without gradients, as in evaluations, the loss is the task loss of the student.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        distill: Distill = "logits",
        *,
        pairs: Sequence[tuple[int, int]] = (),
        distill_temperature: float = 1.0,
        distill_weight: float = 0.5,
        distill_states_weight: float | None = None,
    ):
        """pairs: (student's layer, teacher's layer), ids in each model's own numbering. Other arguments: DistilSpec.

        Raises UserError for an unknown kind, for pairs or a weight that do not fit it, for values out of range, and for
        models that do not fit each other.
        """
        depths = student.config.num_hidden_layers, teacher.config.num_hidden_layers
        _check_pairs(distill, pairs, distill_states_weight, *depths)
        check_alike("DistillationLoss", student, teacher, ("num_labels", *(["hidden_size"] if pairs else [])))
        weights = {"distill_temperature": distill_temperature, "distill_weight": distill_weight}
        for name, value in (weights | {"distill_states_weight": distill_states_weight or 0}).items():
            RANGES[name].check(f"DistillationLoss: {name}", value)
        spec = DistilSpec(distill, None, distill_temperature, distill_weight, distill_states_weight)
        self.teacher_layers = [teacher_layer for _, teacher_layer in pairs]
        student_layers = [student_layer for student_layer, _ in pairs]
        self.distillation = Distillation(
            TaskLoss(kind_of(student.config, type(student).__name__)), student, spec, student_layers
        )
        self.student, self.teacher = student, teacher.requires_grad_(False).eval()

        def record(inputs):
            return record_states(student, inputs["input_ids"].shape[1]) if pairs else nullcontext(States())

        self.batch = TrainingBatch("DistillationLoss", student, record)

    def remove(self) -> None:
        """Remove the hooks from the student after the training."""
        self.batch.remove()

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of the student's last batch. num_items_in_batch: labels of all batches that a step accumulates.

        Raises UserError for a batch of another model, and in a training after `remove`.
        """
        if not outputs.logits.requires_grad:  # an evaluation
            return self.distillation.task.of(outputs.logits, labels)
        with self.batch.taken() as (inputs, student_states):
            mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
            rows = torch.arange(len(labels), device=labels.device)
            self.teacher.to(labels.device)
            with torch.no_grad(), record_states(self.teacher, mask.shape[1]) as recorded:
                batch = {"labels": labels, "attention_mask": mask, "teacher_logits": self.teacher(**inputs).logits}
            if self.teacher_layers:
                states = torch.stack([recorded.outputs[i] for i in self.teacher_layers], dim=1)
                patient = self.distillation.spec.distill == "patient"
                batch["teacher_states"] = states[rows, :, sentence_tokens(self.teacher, mask)] if patient else states
            loss = self.distillation.of(outputs.logits, student_states.outputs, batch)
        return loss if num_items_in_batch is None else loss * labels.ne(IGNORED).sum() / num_items_in_batch
