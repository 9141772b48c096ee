"""Distillation of a teacher's logits (Hinton et al. 2015), of the states of its sentence token (Sun et al. 2019,
"Patient Knowledge Distillation"), of the states of every kept layer (as in DeepSpeed's XTC, Wu et al. 2022)."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn.functional import kl_div, log_softmax, mse_loss, normalize
from transformers import PreTrainedModel

from layerdrop.errors import UserError
from layerdrop.finetune.objective import TaskLoss, model_inputs
from layerdrop.finetune.spec import DistilSpec
from layerdrop.states import sentence_tokens, watching


def logits_loss(student: torch.Tensor, teacher: torch.Tensor, regression: bool, temperature: float) -> torch.Tensor:
    """Of logits (batch, classes): T^2 times the divergence of the softened distributions, a mean over rows. Of values
    (batch, 1): the mean squared error.

    (Sun et al.'s code has the mean over rows and classes: with two classes half of this.)
    """
    if regression:
        return mse_loss(student.float(), teacher.float())
    ours, theirs = (log_softmax(logits.float() / temperature, dim=-1) for logits in (student, teacher))
    return kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def patient_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared error of states (batch, pairs, hidden), each scaled to length 1: over rows, pairs and hidden."""
    return mse_loss(normalize(student.float(), dim=-1), normalize(teacher.float(), dim=-1))


def layers_loss(student: Sequence[torch.Tensor], teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error over real tokens and hidden, summed over the pairs of layers.

    student: a tensor (batch, tokens, hidden) for each pair; teacher: (batch, pairs, tokens, hidden); mask: (batch,
    tokens), 1 for real tokens.
    """
    real = mask.unsqueeze(-1)
    errors = [((ours.float() - teacher[:, i].float()) ** 2 * real).sum() for i, ours in enumerate(student)]
    return sum(errors) / (mask.sum() * teacher.shape[-1])


def attention_loss(student: Sequence[torch.Tensor], teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error of attention weights over heads and pairs of real tokens, summed over the pairs of layers.

    student: a tensor (batch, heads, tokens, tokens) for each pair; teacher: (batch, pairs, heads, tokens, tokens).
    """
    real = mask[:, None, :, None] * mask[:, None, None, :]
    errors = [((ours.float() - teacher[:, i].float()) ** 2 * real).sum() for i, ours in enumerate(student)]
    return sum(errors) / (real.sum() * teacher.shape[2])


def check_depth(distil: DistilSpec | None, n_kept: int) -> None:
    """Raise UserError if too few layers are kept to pair one with a layer of the teacher."""
    if distil and distil.distill == "patient" and distil.distill_states_weight and n_kept < 2:
        raise UserError(
            "--distill patient: pairs all layers but the last, and the model keeps one alone. Use --distill layers or "
            "logits, or drop fewer."
        )


class Distillation:
    """An Objective: (1 - weight) task loss + weight logits loss + states weight x loss of states (and attention).

    Batches hold the teacher's outputs (layerdrop.finetune.teacher). A term of weight 0 is not computed.
    """

    same_every_step = True

    def __init__(self, task: TaskLoss, model: PreTrainedModel, spec: DistilSpec, layers: Sequence[int] = ()):
        """model: the trained one, unwrapped. layers: ids of its layers that are paired with the teacher's."""
        self.task, self.model, self.spec, self.layers = task, model, spec, layers

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See Objective."""
        spec, inputs = self.spec, model_inputs(batch)
        asked = {}
        if spec.distill == "layers" and spec.distill_states_weight:
            asked = {"output_hidden_states": True}
        with (
            watching(self.model, inputs["input_ids"].shape[1]) if spec.distill_states_weight else nullcontext() as seen
        ):
            output = model(**inputs, **asked)
        terms = [
            (1 - spec.distill_weight, lambda: self.task.of(output.logits, batch["labels"])),
            (spec.distill_weight, lambda: self._logits(output.logits, batch["teacher_logits"])),
            (spec.distill_states_weight, lambda: self._states(seen.outputs, batch)),
        ]
        return sum(weight * loss() for weight, loss in terms if weight)

    def _logits(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return logits_loss(student, teacher, self.task.regression, self.spec.distill_temperature)

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
        """The model's attention weights, with gradients, from a pass without dropout, as for the teacher.

        In training mode the library returns weights after dropout, a tenth of them zero.
        """
        training = self.model.training
        self.model.eval()
        try:
            return self.model(**inputs, output_attentions=True).attentions
        finally:
            self.model.train(training)
