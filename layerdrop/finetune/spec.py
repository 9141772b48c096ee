"""How a run trains: the recipe, the time of dropping, distillation, module replacing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class WhenSpec:
    """When the layers of a DropSpec are dropped; by default before training."""

    frozen: bool | None = None
    """True: the layers are frozen instead of dropped."""
    step: int | None = None
    """Gradual dropping: number of layers dropped at a time; None: all layers are dropped before training."""
    every_epochs: int | None = None
    """Gradual dropping: epochs before each drop."""


@dataclass(frozen=True)
class TrainSpec:
    """The recipe. Fields are named as in `TrainingArguments`; the defaults are the papers'."""

    num_train_epochs: float = 3.0
    max_steps: int = -1
    per_device_train_batch_size: int = 32
    gradient_accumulation_steps: int = 1
    learning_rate: float = 2e-5
    lr_scheduler_type: str = "linear"
    warmup_steps: float = 0.0
    optim: str = "adamw_torch_fused"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    label_smoothing_factor: float = 0.0
    train_sampling_strategy: str = "group_by_length"
    data_seed: int | None = None
    freeze_layers: tuple[int, ...] = ()
    """Kept layers that are frozen; ids in the numbering of the checkpoint."""
    freeze_embeddings: bool = False
    layerdrop_rate: float | None = None
    """Probability with which a training step leaves out a layer; None: none is left out."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """Every further setting of `TrainingArguments` that changes a result and is not at its default."""


ADAPTIVE = ("reduce_lr_on_plateau", "greedy")
"""Learning rate schedules that follow the evaluations."""
NOT_THE_LIBRARYS = ("freeze_layers", "freeze_embeddings", "layerdrop_rate", "other")
"""Fields of TrainSpec that are no setting of `TrainingArguments`."""


@dataclass(frozen=True)
class DistilSpec:
    """Distillation: loss = (1 - weight) task loss + weight logits loss + states weight x states loss."""

    distill: str
    """`logits`; `patient`: sentence-token states too; `layers`: the states of every token too."""
    teacher: str | None = None
    """Folder or hub name of the teacher; None: the trained model of a prerequisite run."""
    distill_temperature: float = 1.0
    distill_weight: float = 0.5
    distill_states_weight: float | None = None
    distill_attention: bool | None = None
    """`layers`: whether attention is matched too."""


@dataclass(frozen=True)
class TheseusSpec:
    """Module replacing (Xu et al. 2020)."""

    replacing_rate: float
    """Probability at the first step with which a module of the successor takes its place."""
    replacing_steps: float
    """Step, or share of the training's steps if below 1, from which on the rate is 1."""
    replacing_schedule: str
    """Before that `constant`, or `linear`: it rises to 1."""
