"""LayerDrop: Fan et al. (2020), "Reducing Transformer Depth on Demand with Structured Dropout"."""

from contextlib import ExitStack

import numpy as np
from transformers import PreTrainedModel, TrainerCallback

from layerdrop.surgery import droppable, without


class LayerDropLoss(TrainerCallback):
    """A callback of any Trainer: each step's loss is that of the model without some layers, drawn at random.

    Each layer is left out with probability `rate`. The draw depends on the seed and the step alone: it is the same in
    all processes, for all batches that a step accumulates, and in a resumed training. A draw that leaves no layer is
    repeated. Evaluation uses every layer.
    """

    def __init__(self, model: PreTrainedModel, rate: float, seed: int = 42):
        """model: the trained model, unwrapped."""
        self.model, self.rate, self.seed = model, rate, seed
        self.left_out = ExitStack()

    def draw(self, step: int) -> list[int]:
        """The ids that a step leaves out, ascending."""
        layers, generator = droppable(self.model.config), np.random.default_rng((self.seed, step))
        while True:
            dropped = [i for i, u in zip(layers, generator.random(len(layers)), strict=True) if u < self.rate]
            if len(dropped) < self.model.config.num_hidden_layers:
                return dropped

    def on_step_begin(self, args, state, control, **kwargs):
        """Take layers out of the model."""
        self.left_out.enter_context(without(self.model, self.draw(state.global_step)))

    def on_step_end(self, args, state, control, **kwargs):
        """Put the layers back."""
        self.left_out.close()

    on_train_end = on_step_end
