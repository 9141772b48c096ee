"""LayerDrop: Fan et al. (2020), "Reducing Transformer Depth on Demand with Structured Dropout"."""

from contextlib import ExitStack

import numpy as np
from transformers import PreTrainedModel, TrainerCallback

from layerdrop.surgery import droppable, without
from layerdrop.system.limits import RANGES


class LayerDropLoss(TrainerCallback):
    """A callback for any Trainer: each training step skips each layer with probability `rate`.

    The draw depends on the seed and the step alone. It is the same in all processes, for all batches that a step
    accumulates, and in a resumed training. A draw that skips all layers is repeated. Evaluation uses every layer.
    """

    def __init__(self, model: PreTrainedModel, rate: float, seed: int = 42):
        """model: the trained model, unwrapped. Raises UserError for a rate or a seed out of range."""
        RANGES["layerdrop_rate"].check("LayerDropLoss: rate", rate)
        RANGES["seed"].check("LayerDropLoss: seed", seed)
        self.model, self.rate, self.seed = model, rate, seed
        self.skipped = ExitStack()

    def draw(self, step: int) -> list[int]:
        """Ids of the layers that a step skips, ascending."""
        layers, generator = droppable(self.model.config), np.random.default_rng((self.seed, step))
        while True:
            dropped = [i for i, u in zip(layers, generator.random(len(layers)), strict=True) if u < self.rate]
            if len(dropped) < self.model.config.num_hidden_layers:
                return dropped

    def on_step_begin(self, args, state, control, **kwargs):
        """Remove the skipped layers."""
        self.restore()
        self.skipped.enter_context(without(self.model, self.draw(state.global_step)))

    def on_step_end(self, args, state, control, **kwargs):
        """Restore the skipped layers."""
        self.restore()

    on_train_end = on_step_end

    def restore(self) -> None:
        """Restore the skipped layers of a step that an error or Ctrl-C has interrupted. No effect after other steps."""
        self.skipped.close()
