"""Training variants: the loss, callbacks and batches of a run."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.selection import Selection
from layerdrop.data.batches import Collator
from layerdrop.data.examples import Examples
from layerdrop.data.labels import Labels
from layerdrop.data.tokens import TokenizedDataset
from layerdrop.errors import UserError
from layerdrop.finetune.distillation import Distillation
from layerdrop.finetune.elastic import ElasticDepth
from layerdrop.finetune.gradual import DropSchedule, GradualDrop, cut_to_checkpoint
from layerdrop.finetune.layer_drop import LayerDropLoss
from layerdrop.finetune.objectives import Objective, TaskLoss
from layerdrop.finetune.teacher import TeacherCollator, attach_teacher, eager_attention
from layerdrop.finetune.theseus import TheseusLoss, freeze_outside_layers
from layerdrop.loading import load_classifier
from layerdrop.runs.model import dropped_before_training
from layerdrop.runs.spec import RunSpec
from layerdrop.surgery import kept_layers, layer_list, positions


@dataclass
class Variant:
    """The training set, collator, loss and callbacks of a training."""

    train_dataset: TokenizedDataset
    collate: Collator | TeacherCollator
    """Collator of the batches. With distillation, it adds the teacher's outputs."""
    loss: Objective
    callbacks: list[TrainerCallback] = field(default_factory=list)
    attention: AbstractContextManager[object] = field(default_factory=nullcontext)
    """A context for the training: eager attention if attention is distilled."""

    @property
    def changes_layers(self) -> bool:
        """Whether the layers differ from step to step."""
        return any(isinstance(callback, (LayerDropLoss, TheseusLoss)) for callback in self.callbacks)


def training_variant(
    spec: RunSpec,
    model: PreTrainedModel,
    train_dataset: TokenizedDataset,
    collate: Collator,
    labels: Labels,
    loss: TaskLoss,
    *,
    examples: Examples,
    teacher: Checkpoint | None = None,
    predecessor: Checkpoint,
    new_parameters: Sequence[str] = (),
    schedule: DropSchedule | None = None,
    args: TrainingArguments,
    resume_from: str | None = None,
) -> Variant:
    """The training variant of a spec.

    train_dataset: the tokenized `examples`. loss: the task loss, which the variant extends. teacher: for distillation.
    predecessor: the full model, for module replacing. new_parameters: names of the parameters that the loaded weights
    lack. schedule: for gradual dropping. resume_from: a checkpoint's folder; gradual dropping first cuts the model to
    the checkpoint's depth.

    Raises UserError for a missing or unsuitable teacher, and for an unsuitable predecessor.
    """
    variant = Variant(train_dataset, collate, loss)
    if spec.distil:
        if teacher is None:
            raise UserError(f"--distill {spec.distil.distill}: the run has no teacher. Add --teacher.")
        variant.train_dataset, variant.collate, layers = attach_teacher(
            spec.distil,
            teacher,
            model,
            examples,
            train_dataset,
            collate,
            labels,
            max_seq_length=spec.data.max_seq_length,
            device=args.device,
            batch_size=args.per_device_eval_batch_size,
            precision=spec.precision,
            folder=str(args.output_dir),  # the library replaces None
        )
        variant.loss = Distillation(loss, model, spec.distil, layers)
        if spec.distil.distill_attention:
            variant.attention = eager_attention(model)
    if spec.when.elastic_k:
        n_layers = model.config.num_hidden_layers
        elastic = ElasticDepth(loss, model, [n_layers - k for k in spec.when.elastic_k])
        variant.loss = elastic
        variant.callbacks.append(elastic)
    if spec.train and spec.train.layerdrop_rate:
        variant.callbacks.append(LayerDropLoss(model, spec.train.layerdrop_rate, spec.seed))
    if spec.theseus:
        check_predecessor(predecessor, new_parameters)
        freeze_outside_layers(model)
        full, theseus = load_classifier(predecessor, **labels.head, replace_head=False)[0], spec.theseus
        rate = theseus.replacing_rate, theseus.replacing_steps, theseus.replacing_schedule
        variant.callbacks.append(TheseusLoss(model, full, *rate, spec.seed))
    if schedule:
        if resume_from:
            cut_to_checkpoint(model, resume_from)
        variant.callbacks.append(GradualDrop(model, schedule))
    return variant


def check_predecessor(predecessor: Checkpoint, new_parameters: Sequence[str]) -> None:
    """Raise UserError for an unsuitable predecessor of module replacing. new_parameters: names that it lacks."""
    if predecessor.family.shared:
        name = predecessor.family.name
        raise UserError(f"--theseus: {name} shares one layer, so modules cannot be replaced. Leave it out.")
    if new_parameters:
        raise UserError(
            f"--theseus: the classification head of {predecessor.name} is missing or has another size "
            f"({new_parameters[0]}). Add --drop_when finetuned, or give a model that is fine-tuned on this task."
        )


def freeze(model: PreTrainedModel, layers: list[int], embeddings: bool = False) -> None:
    """Exclude layers (ids in the model's own numbering), or the embeddings, from training."""
    for i in layers:
        layer_list(model)[i].requires_grad_(False)
    if embeddings:
        module: torch.nn.Module = getattr(model.base_model, "embeddings", None) or model.get_input_embeddings()
        module.requires_grad_(False)


def frozen_layers(spec: RunSpec, checkpoint: Checkpoint, selection: Selection) -> list[int]:
    """Layers to freeze during training, in the reduced model's numbering.

    Raises UserError if all layers share their weights, or one of --freeze_layers is dropped.
    """
    kept = kept_layers(checkpoint.config, dropped_before_training(spec, selection))
    frozen = positions("--freeze_layers", kept, spec.train.freeze_layers if spec.train else ())
    frozen += selection.dropped if spec.when.frozen else []
    if frozen and checkpoint.family.shared:
        flag = "--freeze_dropped" if spec.when.frozen else "--freeze_layers"
        raise UserError(f"{flag}: this model's layers share their weights and cannot be frozen. Leave it out.")
    return frozen
