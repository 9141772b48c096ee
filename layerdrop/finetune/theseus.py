"""Module replacing: Xu et al. (2020), "BERT-of-Theseus".

A module is a group of consecutive layers of the predecessor. Each training step replaces random modules, each by
one layer of the successor. Only the successor's layers are trained.
"""

from contextlib import ExitStack
from typing import get_args

import numpy as np
import torch
from transformers import PreTrainedModel, TrainerCallback

from layerdrop.errors import UserError, unknown
from layerdrop.finetune.objectives import check_alike
from layerdrop.finetune.spec import ReplacingSchedule
from layerdrop.surgery import layer_list, with_layers
from layerdrop.system.limits import RANGES


def modules(n_predecessor: int, n_successor: int) -> list[range]:
    """For each successor layer, the predecessor's layers that it replaces.

    The groups have nearly equal sizes, larger groups first.
    """
    size, n_larger = divmod(n_predecessor, n_successor)
    starts = [i * size + min(i, n_larger) for i in range(n_successor + 1)]
    return [range(a, b) for a, b in zip(starts, starts[1:], strict=False)]


def freeze_outside_layers(model: PreTrainedModel) -> None:
    """Freeze all parameters outside the layers: embeddings, pooler and classifier remain the predecessor's."""
    model.requires_grad_(False)
    layer_list(model).requires_grad_(True)


class TheseusLoss(TrainerCallback):
    """A callback for any Trainer: each training step mixes modules of the predecessor and layers of the successor.

    The probability of replacing a module reaches 1 at `steps`. Later steps use only the successor. The draw depends on
    the seed and the step alone. Evaluation uses the successor.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        predecessor: PreTrainedModel,
        rate: float = 0.5,
        steps: float = 0.5,
        schedule: ReplacingSchedule = "linear",
        seed: int = 42,
    ):
        """model: the trained successor, unwrapped. rate, steps, schedule: see TheseusSpec.

        Raises UserError for values out of range, for a predecessor of another architecture, and for a predecessor with
        fewer layers than the successor.
        """
        n_predecessor, n_successor = len(layer_list(predecessor)), len(layer_list(model))
        for name, value in {"rate": rate, "steps": steps}.items():
            RANGES[f"replacing_{name}"].check(f"TheseusLoss: {name}", value)
        RANGES["seed"].check("TheseusLoss: seed", seed)
        if schedule not in get_args(ReplacingSchedule):
            raise unknown("TheseusLoss: schedule", str(schedule), get_args(ReplacingSchedule))
        check_alike("TheseusLoss", model, predecessor, ("model_type", "hidden_size"))
        if n_predecessor < n_successor:
            raise UserError(
                f"TheseusLoss: the predecessor has {n_predecessor} layers, and the model has {n_successor}. "
                "Drop layers of the model first."
            )
        self.model, self.predecessor, self.seed = model, predecessor, seed
        self.start, self.steps, self.schedule = rate, steps, schedule
        predecessor.requires_grad_(False)
        self.modules = modules(n_predecessor, n_successor)
        self.until = 0.0
        self.replaced = ExitStack()

    def on_train_begin(self, args, state, control, **kwargs):
        """Read the number of steps. Raises UserError if the training ends before the rate reaches 1."""
        self.until = self.steps * state.max_steps if self.steps < 1 else self.steps
        if self.until >= state.max_steps:
            raise UserError(
                f"--replacing_steps {self.steps:g}: the training has {state.max_steps} steps, so the model of the kept "
                "layers would never be trained alone. Give fewer steps, or a fraction such as 0.5."
            )
        self.predecessor.to(self.model.device).train()

    def rate(self, step: int) -> float:
        """Probability of replacing a module at a step."""
        if step >= self.until:
            return 1.0
        return self.start if self.schedule == "constant" else self.start + (1 - self.start) * step / self.until

    def draw(self, step: int) -> list[bool]:
        """For each module, whether a step replaces it."""
        return (np.random.default_rng((self.seed, step)).random(len(self.modules)) < self.rate(step)).tolist()

    def on_step_begin(self, args, state, control, **kwargs):
        """Build the step's model: modules of the predecessor, layers of the successor."""
        self.restore()
        drawn, layers = self.draw(state.global_step), []
        for i, replaced in enumerate(drawn):
            layers += [(self.model, i)] if replaced else [(self.predecessor, j) for j in self.modules[i]]
        if not any(drawn):  # the backward pass needs a trainable parameter
            *_, last = layer_list(self.model).parameters()
            hook = self.model.register_forward_hook(_adding_zero(last))
            self.replaced.callback(hook.remove)
        self.replaced.enter_context(with_layers(self.model, layers))

    def on_step_end(self, args, state, control, **kwargs):
        """Restore the successor's layers."""
        self.restore()

    on_train_end = on_step_end

    def restore(self) -> None:
        """Restore the successor's layers after a step that an error or Ctrl-C has interrupted.

        No effect after other steps.
        """
        self.replaced.close()


def _adding_zero(parameter: torch.Tensor):
    """A forward hook that adds 0 x a parameter to the logits and, if the model computes it, to the loss."""

    def add(model, args, output):
        for name in ("logits", "loss"):
            if output.get(name) is not None:
                output[name] = output[name] + 0 * parameter.sum()
        return output

    return add
