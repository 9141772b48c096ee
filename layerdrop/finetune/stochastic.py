"""Layers are left out at random while training: Fan et al. (2020), "Reducing Transformer Depth on Demand with
Structured Dropout", called LayerDrop there."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from layerdrop.finetune.objective import Objective
from layerdrop.surgery import droppable, without


class LayerDrop(TrainerCallback):
    """An Objective: the loss of the model without some of its layers, each left out with probability `rate`.

    The draw depends on the seed and the training step alone: it is the same in all processes, for all batches that a
    step accumulates, and in a resumed training. A draw that leaves no layer is repeated. Evaluation uses every layer.
    """

    same_every_step = False

    def __init__(self, objective: Objective, model: PreTrainedModel, rate: float, seed: int):
        """model: the trained one, unwrapped."""
        self.objective, self.model, self.rate, self.seed = objective, model, rate, seed
        self.step = 0

    def on_step_begin(self, args, state, control, **kwargs):
        """Note the step."""
        self.step = state.global_step

    def draw(self, step: int) -> list[int]:
        """The ids that a step leaves out, ascending."""
        layers, generator = droppable(self.model.config), np.random.default_rng((self.seed, step))
        while True:
            dropped = [i for i, u in zip(layers, generator.random(len(layers)), strict=True) if u < self.rate]
            if len(dropped) < self.model.config.num_hidden_layers:
                return dropped

    def __call__(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See Objective."""
        with without(self.model, self.draw(self.step)):
            return self.objective(model, batch)
