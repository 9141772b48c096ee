"""Gradual dropping: drop layers between the epochs of a training."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import AutoConfig, PreTrainedModel, TrainerCallback

from layerdrop.architectures import family_of, original_layers
from layerdrop.strategies import check_ids
from layerdrop.surgery import drop_layers, kept_layers, layer_list
from layerdrop.system.limits import RANGES


@dataclass(frozen=True)
class DropSchedule:
    """Drop `step` layers after every `every_epochs` epochs."""

    order: tuple[int, ...]
    """Layers in the order of dropping: ids of the original model."""
    step: int
    every_epochs: int

    def __post_init__(self):
        """Raise UserError for a step or a number of epochs out of range."""
        for name in ("step", "every_epochs"):
            RANGES[f"drop_{name}"].check(f"DropSchedule: {name}", getattr(self, name))

    def dropped(self, epochs: int) -> tuple[int, ...]:
        """Layers that are dropped after a number of epochs, in the order of dropping."""
        return self.order[: epochs // self.every_epochs * self.step]

    def drops(self) -> list[int]:
        """Numbers of finished epochs at which layers are dropped."""
        n_drops = -(-len(self.order) // self.step)
        return [(i + 1) * self.every_epochs for i in range(n_drops)]


class GradualDrop(TrainerCallback):
    """A callback for any Trainer: drop layers at the beginning of epochs, by a schedule.

    The kept parameters keep their optimizer state. To resume, first cut the model to the checkpoint's depth with
    `cut_to_checkpoint`.
    """

    def __init__(self, model: PreTrainedModel, schedule: DropSchedule):
        """model: the trained model, unwrapped. Raises UserError for layers that the original model lacks, or that
        cannot be dropped."""
        check_ids("DropSchedule: order", schedule.order, original_layers(model.config)[0])
        kept_layers(model.config, _positions(model, schedule.order))
        self.model, self.schedule = model, schedule

    def on_epoch_begin(self, args, state, control, optimizer=None, **kwargs):
        """Drop the layers that the schedule drops after the finished epochs."""
        if positions := _positions(self.model, self.schedule.dropped(int((state.epoch or 0) + 1e-6))):
            if not family_of(self.model.config).shared:
                layers = layer_list(self.model)
                remove_parameters(optimizer, [parameter for i in positions for parameter in layers[i].parameters()])
            drop_layers(self.model, positions)


def _positions(model: PreTrainedModel, ids: Sequence[int]) -> list[int]:
    """Positions of layers in a model. ids: original ids; absent layers are ignored."""
    kept = original_layers(model.config)[1]
    return [kept.index(i) for i in ids if i in kept]


def cut_to_checkpoint(model: PreTrainedModel, checkpoint: str) -> None:
    """Drop the layers that a training checkpoint lacks. checkpoint: its folder."""
    kept = original_layers(AutoConfig.from_pretrained(checkpoint))[1]
    drop_layers(model, _positions(model, [i for i in original_layers(model.config)[1] if i not in kept]))


def remove_parameters(optimizer, parameters: Sequence) -> None:
    """Remove parameters and their state from an optimizer."""
    removed = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in removed]
    for parameter in parameters:
        optimizer.state.pop(parameter, None)
