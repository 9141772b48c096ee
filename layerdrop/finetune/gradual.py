"""Gradual dropping: layers go between the epochs of a training."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import AutoConfig, PreTrainedModel, TrainerCallback

from layerdrop.architectures import family_of
from layerdrop.checkpoints import original_layers
from layerdrop.criteria.spec import DropSpec
from layerdrop.finetune.spec import WhenSpec
from layerdrop.surgery import drop_layers, layer_list


def gradual_epochs(drop: DropSpec, when: WhenSpec) -> int:
    """Epochs until the last drop; 0 where all layers are dropped before training."""
    if not when.every_epochs:
        return 0
    return -(-(len(drop.layers) or drop.k) // when.step) * when.every_epochs


@dataclass(frozen=True)
class Gradual:
    """`step` layers after every `every_epochs` epochs."""

    order: tuple[int, ...]
    """Ids of the original model, first to go first."""
    step: int
    every_epochs: int

    def gone(self, epochs: int) -> tuple[int, ...]:
        """Layers that are dropped after so many epochs, first dropped first."""
        return self.order[: epochs // self.every_epochs * self.step]

    def drops(self) -> list[int]:
        """The epochs after which layers are dropped."""
        n_drops = -(-len(self.order) // self.step)
        return [(i + 1) * self.every_epochs for i in range(n_drops)]


class DropWhileTraining(TrainerCallback):
    """Drops layers at the beginning of the epochs in which they are due. The other parameters keep their optimizer
    state. A resumed training begins with a model of its checkpoint's depth."""

    def __init__(self, model: PreTrainedModel, plan: Gradual):
        """model: the trained one, unwrapped."""
        self.model, self.plan = model, plan
        self.steps_per_epoch = 0
        """Known at the end."""

    def on_epoch_begin(self, args, state, control, optimizer=None, **kwargs):
        """Drop what is due after the epochs that are done."""
        if positions := _there(self.model, self.plan.gone(int((state.epoch or 0) + 1e-6))):
            if not family_of(self.model.config).shared:
                layers = layer_list(self.model)
                forget(optimizer, [parameter for i in positions for parameter in layers[i].parameters()])
            drop_layers(self.model, positions)

    def on_train_end(self, args, state, control, **kwargs):
        """Note the number of steps of an epoch."""
        self.steps_per_epoch = round(state.global_step / state.epoch)


def _there(model: PreTrainedModel, ids: Sequence[int]) -> list[int]:
    """Positions of the original model's layers `ids` in this one; absent layers are left out."""
    kept = original_layers(model.config)[1]
    return [kept.index(i) for i in ids if i in kept]


def cut_as(model: PreTrainedModel, checkpoint: str) -> None:
    """Cut a model to the depth of a checkpoint of its training, in this folder."""
    kept = original_layers(AutoConfig.from_pretrained(checkpoint))[1]
    drop_layers(model, _there(model, [i for i in original_layers(model.config)[1] if i not in kept]))


def forget(optimizer, parameters: Sequence) -> None:
    """Remove parameters and their state from an optimizer."""
    gone = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in gone]
    for parameter in parameters:
        optimizer.state.pop(parameter, None)
