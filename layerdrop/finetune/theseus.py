"""Module replacing: Xu et al. (2020), "BERT-of-Theseus". The modules of a predecessor are runs of its layers. Each is
replaced at random by one layer of the successor; these layers alone are trained."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from layerdrop.errors import UserError
from layerdrop.finetune.objective import Objective
from layerdrop.finetune.spec import TheseusSpec
from layerdrop.surgery import layer_list, with_layers


def modules(n_predecessor: int, n_successor: int) -> list[range]:
    """The predecessor's layers that each layer of the successor stands for: runs as even as possible, longer ones
    first."""
    each, more = divmod(n_predecessor, n_successor)
    starts = [i * each + min(i, more) for i in range(n_successor + 1)]
    return [range(a, b) for a, b in zip(starts, starts[1:], strict=False)]


def only_layers_train(model: PreTrainedModel) -> None:
    """Freeze all but the layers: embeddings, pooler and classifier stay as they are in the predecessor."""
    model.requires_grad_(False)
    layer_list(model).requires_grad_(True)


class Theseus(TrainerCallback):
    """An Objective: the loss of a model in which each module is the predecessor's or the successor's layer in its
    place.

    A module is replaced with a probability that reaches 1 at `replacing_steps`; from then on it is the successor's own
    fine-tuning. The draw depends on the seed and the training step alone. Evaluation uses the successor.
    """

    same_every_step = False

    def __init__(
        self, objective: Objective, model: PreTrainedModel, predecessor: PreTrainedModel, spec: TheseusSpec, seed: int
    ):
        """model: the successor, which is trained, without anything around it."""
        self.objective, self.model, self.predecessor, self.spec, self.seed = objective, model, predecessor, spec, seed
        predecessor.requires_grad_(False)
        self.modules = modules(len(layer_list(predecessor)), len(layer_list(model)))
        self.step, self.until = 0, 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        """Note the number of steps. Raises UserError where the rate would not reach 1 in them."""
        share = self.spec.replacing_steps
        self.until = share * state.max_steps if share < 1 else share
        if self.until >= state.max_steps:
            raise UserError(
                f"--replacing_steps {share:g}: the training has {state.max_steps} steps, so the successor would never "
                "be trained as it is. Give fewer, or a share such as 0.5."
            )
        self.predecessor.to(self.model.device).train()

    def on_step_begin(self, args, state, control, **kwargs):
        """Note the step."""
        self.step = state.global_step

    def rate(self, step: int) -> float:
        """Probability of a replacement at a step."""
        if step >= self.until:
            return 1.0
        start = self.spec.replacing_rate
        return start if self.spec.replacing_schedule == "constant" else start + (1 - start) * step / self.until

    def draw(self, step: int) -> list[bool]:
        """Whether each module is replaced at a step."""
        return (np.random.default_rng((self.seed, step)).random(len(self.modules)) < self.rate(step)).tolist()

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See Objective."""
        layers: list[tuple[PreTrainedModel, int]] = []
        drawn = self.draw(self.step)
        for i, replaced in enumerate(drawn):
            layers += [(self.model, i)] if replaced else [(self.predecessor, j) for j in self.modules[i]]
        with with_layers(self.model, layers):
            loss = self.objective(model, batch)
        if not any(drawn):
            # No parameter takes part in this step, but the Trainer calls backward on its loss.
            *_, last = layer_list(self.model).parameters()
            loss = loss + 0 * last.sum()
        return loss
