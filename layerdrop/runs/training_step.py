"""The training step of a run: which data, which loss, what goes while it trains."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from layerdrop.errors import UserError
from layerdrop.finetune.distillation import Distillation
from layerdrop.finetune.gradual import DropWhileTraining, Gradual, cut_as
from layerdrop.finetune.objective import Objective, TaskLoss
from layerdrop.finetune.stochastic import LayerDrop
from layerdrop.finetune.teacher import attach_teacher, attending_eagerly
from layerdrop.finetune.theseus import Theseus, only_layers_train
from layerdrop.finetune.train import Training, freeze, train
from layerdrop.loading import load_classifier
from layerdrop.surgery import kept_layers, positions

if TYPE_CHECKING:
    from layerdrop.runs.steps import GlueRun


def fine_tune(this: GlueRun, resume_from: str | None) -> Training:
    """Train a run's model as its spec says; what happened on the way is in its record."""
    spec, options = this.spec, this.options
    _freeze(this)
    with this.clock("tokenise"):
        data, development = this.dataset("train"), this.development(this.development_splits())
        for split in this.test_splits():  # find unusable inputs before training
            this.dataset(split)
    collate, objective = this.collate, TaskLoss(this.task.is_regression, spec.train.label_smoothing_factor)
    if spec.distil:
        with this.clock("teacher"):
            data, collate, layers = _taught(this, data)
        objective = Distillation(objective, this.model, spec.distil, layers)
    objective = _among_layers(this, objective)
    gradual = _gradual(this, resume_from) if spec.when.every_epochs else None
    with attending_eagerly(this.model) if spec.distil and spec.distil.distill_attention else nullcontext():
        training = train(
            this.model,
            this.args,
            data,
            collate,
            objective,
            development=development if options.evaluate else None,
            tokenizer=this.checkpoint.tokenizer,
            save=options.save_model,
            no_speedups=spec.no_speedups,
            rolling_checkpoints=options.rolling_checkpoints,
            resume_from=resume_from,
            callbacks=[gradual] if gradual else [],
        )
    if gradual:
        note_drops(this, gradual.steps_per_epoch)
    return training


def _freeze(this: GlueRun) -> None:
    spec, checkpoint = this.spec, this.checkpoint
    frozen = positions("--freeze_layers", kept_layers(checkpoint.config, this.dropped), spec.train.freeze_layers)
    frozen += this.selection.dropped if spec.when.frozen else []
    freeze(this.model, frozen, spec.train.freeze_embeddings)
    if spec.theseus:
        only_layers_train(this.model)


def _taught(this: GlueRun, data):
    """What layerdrop.finetune.teacher.attach_teacher gives."""
    return attach_teacher(
        this.spec.distil,
        this.prerequisites.teacher,
        this.model,
        this.data.examples["train"],
        data,
        this.collate,
        this.task,
        this.labels,
        max_seq_length=this.spec.data.max_seq_length,
        device=this.args.device,
        batch_size=this.args.per_device_eval_batch_size,
        precision=this.spec.precision,
        folder=this.options.folder,
    )


def _among_layers(this: GlueRun, objective: Objective) -> Objective:
    """The objective where each step has other layers: some left out, some replaced."""
    spec = this.spec
    if spec.train.layerdrop_rate:
        return LayerDrop(objective, this.model, spec.train.layerdrop_rate, spec.seed)
    if spec.theseus:
        return Theseus(objective, this.model, _predecessor(this), spec.theseus, spec.seed)
    return objective


def _predecessor(this: GlueRun):
    """The full model that the run goes on from. Raises UserError where it is not fine-tuned."""
    source = this.prerequisites.open(this.spec.start) if this.spec.start else this.checkpoint
    if source.family.shared:
        raise UserError(f"--theseus: {source.family.name} shares one layer, which nothing can replace. Leave it out.")
    if this.new_parameters:
        raise UserError(
            f"--theseus: {source.name} is not fine-tuned ({this.new_parameters[0]} is new). "
            "Add --drop_when finetuned, or give a fine-tuned model."
        )
    return load_classifier(source, labels=this.labels, replace_head=False)[0]


def _gradual(this: GlueRun, resume_from: str | None) -> DropWhileTraining:
    """What drops layers while the model trains."""
    if resume_from:
        cut_as(this.model, resume_from)
    return DropWhileTraining(this.model, _plan(this))


def _plan(this: GlueRun) -> Gradual:
    when, ids = this.spec.when, this.checkpoint.original_ids
    return Gradual(tuple(ids[i] for i in this.selection.order), when.step, when.every_epochs)


def note_drops(this: GlueRun, steps_per_epoch: int = 0) -> None:
    """Put the cuts of a run whose layers go while it trains into its record; none otherwise. steps_per_epoch: 0 before
    the training, when it is not known."""
    if not this.spec.when.every_epochs:
        return
    plan, ids, selection = _plan(this), this.checkpoint.original_ids, this.selection
    for epochs in plan.drops():
        gone = [ids.index(i) for i in plan.gone(epochs)]
        why = f"{selection.why}: after {epochs} epochs"
        this.record.cuts.append(this.cut(epochs * steps_per_epoch, gone, why, selection.scores))
