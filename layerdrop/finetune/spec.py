"""Training settings of a run: the recipe, the drop time, distillation, module replacing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SamplingStrategy = Literal["group_by_length", "random", "sequential"]
"""Order of the training examples."""
Distill = Literal["logits", "patient", "layers"]
"""Kinds of distillation."""
ReplacingSchedule = Literal["linear", "constant"]
"""How the rate of module replacing changes before it reaches 1."""


@dataclass(frozen=True)
class WhenSpec:
    """The time at which a run drops the layers of its DropSpec; default: before training."""

    frozen: bool | None = None
    """True: freeze the layers instead of dropping them."""
    step: int | None = None
    """Gradual dropping: number of layers in each drop; None: 1."""
    every_epochs: int | None = None
    """Gradual dropping: epochs before each drop; None: drop all layers before training."""
    elastic_k: tuple[int, ...] = ()
    """Elastic depth: train the full model, and at the same time the models without their last k layers. No layer is
    dropped. Empty: no elastic depth."""

    @property
    def gradual(self) -> tuple[int, int] | None:
        """(number of layers in each drop, epochs before each drop). None without gradual dropping."""
        return (self.step or 1, self.every_epochs) if self.every_epochs else None


@dataclass(frozen=True)
class TrainSpec:
    """The recipe, with the names of `TrainingArguments` and the papers' defaults."""

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
    train_sampling_strategy: SamplingStrategy = "group_by_length"
    data_seed: int | None = None
    freeze_layers: tuple[int, ...] = ()
    """Ids of kept layers to freeze, in the checkpoint's numbering."""
    freeze_embeddings: bool = False
    class_weights: Literal["balanced"] | None = None
    """`balanced`: weights of the classes in the loss, by their frequency in the training set. None: no weights."""
    layerdrop_rate: float | None = None
    """LayerDrop: probability that a training step skips a layer; None: no LayerDrop."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """Other settings of `TrainingArguments` that change a result and are not at their defaults."""


ADAPTIVE = ("reduce_lr_on_plateau", "greedy")
"""Learning rate schedules that depend on evaluations."""
OWN_SETTINGS = ("freeze_layers", "freeze_embeddings", "class_weights", "layerdrop_rate", "other")
"""Fields of TrainSpec that are not settings of `TrainingArguments`."""


@dataclass(frozen=True)
class DistilSpec:
    """Distillation: loss = (1 - weight) task loss + weight logits loss + states weight x states loss."""

    distill: Distill
    """`logits`; `patient`: logits and sentence-token states; `layers`: logits and the states of every token."""
    teacher: str | None = None
    """Folder or hub name of the teacher; None: the trained model of a prerequisite run."""
    distill_temperature: float = 1.0
    distill_weight: float = 0.5
    distill_states_weight: float | None = None
    distill_attention: bool | None = None
    """`layers`: whether the loss also compares attention weights."""


@dataclass(frozen=True)
class TheseusSpec:
    """Module replacing (Xu et al. 2020)."""

    replacing_rate: float
    """Probability of replacing a module at the first step."""
    replacing_steps: float
    """First step at which the rate is 1. A value below 1 is a fraction of all steps."""
    replacing_schedule: ReplacingSchedule
    """The rate before this step: `constant`, or `linear`, which increases to 1."""
