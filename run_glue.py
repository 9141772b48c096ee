#!/usr/bin/env python
# /// script
# requires-python = ">=3.10"
# dependencies = ["layerdrop"]
# [tool.uv.sources]
# layerdrop = { path = ".", editable = true }  # a copy of this file: the path of the clone, relative to the copy
# ///
"""One run: drop layers of a pre-trained encoder, fine-tune it on a task, record the results.

    python run_glue.py --drop_strategy top --drop_k 6
    torchrun --nproc_per_node 2 run_glue.py --task_name rte --drop_strategy symmetric --drop_k 4
    uv run run_glue.py --drop_strategy top --drop_k 6       # in a clone, without an installed environment

All flags: --help. The terms are explained in README.md.
"""

import sys

if __name__ == "__main__":  # before torch is imported
    from layerdrop.system.process import handle_interrupts, prepare_process

    handle_interrupts()
    prepare_process()

import numpy as np
import torch
from transformers import PreTrainedModel, TrainingArguments

from layerdrop.checkpoints import Checkpoint
from layerdrop.data.tokens import TokenizedDataset
from layerdrop.finetune.evaluate import Evaluation, Evaluator, evaluate
from layerdrop.finetune.objectives import TaskLoss
from layerdrop.finetune.precision import head_in_fp32
from layerdrop.finetune.speedups import speedups
from layerdrop.finetune.trainer import FineTuner
from layerdrop.loading import load_classifier
from layerdrop.runs import describe
from layerdrop.runs.checks import check_run, check_values
from layerdrop.runs.environment import environment, reset_peak_memory
from layerdrop.runs.fingerprints import Fingerprints
from layerdrop.runs.folder import note_inputs, run_folder
from layerdrop.runs.inputs import RunInputs, splits_to_select
from layerdrop.runs.model import ReducedModel, load_model, save_untrained, select_for
from layerdrop.runs.predictions import write_predictions
from layerdrop.runs.prerequisites import Prerequisites
from layerdrop.runs.record import Clock, RunRecord
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.runs.training_arguments import training_arguments
from layerdrop.runs.variants import freeze, frozen_layers, training_variant
from layerdrop.system.distributed import from_first_process, leaves_group, log_notes
from layerdrop.system.process import freeze_imports


@leaves_group
def run(spec: RunSpec, options: Options) -> RunRecord:
    """Execute a run, write its record into its folder, and return the record. Its status is `failed` if the run fails.

    Reuse a finished run and add only the missing outputs. Raises UserError (unusable input), Locked (another process
    uses this folder) and KeyboardInterrupt (stopped by the user).
    """
    check_values(spec, options)
    record, clock = RunRecord(spec, options.folder, notes=list(options.notes)), Clock()
    args = training_arguments(spec, options)
    reset_peak_memory()

    # Checkpoint, data, tokenizer, labels. The weights are loaded later, without the dropped layers.
    with clock("load"):
        checkpoint, fingerprints = Checkpoint.open(spec.model, options.hub), Fingerprints()
        prerequisites = Prerequisites(spec, options, fingerprints)
        check_run(spec, args, checkpoint.config)
    with clock("read"):
        inputs = RunInputs.read(spec, options, args, checkpoint)
    data, tokenizer, labels = inputs.data, inputs.tokenizer, inputs.labels
    describe.inputs(record, inputs, prerequisites.teacher)
    record.fingerprints = fingerprints.models(spec, options)

    with run_folder(record, options, clock) as folder:
        if not folder.needs_model:
            return folder.done
        requested = data.splits("validation") * options.evaluate + data.splits("test") * options.predict
        splits = [split for split in requested if folder.lacks(split)]
        train_split = ["train"] if spec.train and not folder.has_model else []
        with clock("tokenize"):  # before training, so that unusable texts are found early
            datasets = {split: inputs.dataset(split) for split in (*train_split, *splits)}
        describe.tokens(record, datasets, inputs)
        evaluations: dict[str, Evaluation] = {}

        if folder.has_model:  # training is done, and only predictions are missing
            model, _ = load_classifier(options.folder, **labels.head, replace_head=False)
        else:
            if spec.prerequisites:  # training of the start model and the teacher
                with clock("prerequisites"):
                    prerequisites.train(run)
                record.prerequisites = prerequisites.cost
                record.notes += prerequisites.notes
                record.fingerprints |= fingerprints.models(spec, options)
                from_first_process(lambda: note_inputs(record, options))
            reduced = reduced_model(spec, options, inputs, prerequisites, record, clock)
            model, resume_from = reduced.model, folder.resume_from
            if spec.train:
                evaluations = fine_tune(
                    spec, options, args, reduced, datasets, inputs, prerequisites, record, clock, resume_from
                )
            elif options.save_model:
                save_untrained(model, tokenizer, options.folder)

        predict(model.to(args.device), datasets, splits, evaluations, args, inputs, folder.done or record, clock)
    return folder.done or record


def reduced_model(
    spec: RunSpec, options: Options, inputs: RunInputs, prerequisites: Prerequisites, record: RunRecord, clock: Clock
) -> ReducedModel:
    """Select the layers to drop, and load the model without them.

    Only the kept layers are read. The seed is set before a new head is drawn, so the head is the same for every K.
    """
    checkpoint, labels = inputs.checkpoint, inputs.labels
    record.environment = environment(options.use_cpu)
    with clock("select"):
        selection = from_first_process(lambda: select_for(spec.drop, spec, options, inputs))
    describe.selection(record, checkpoint, selection, labels)
    with clock("load"):
        model, new_parameters = load_model(spec, checkpoint, prerequisites.start, selection, labels)
    reset_peak_memory()
    if new_parameters and spec.train is None:
        lacking = f"the checkpoint lacks {', '.join(new_parameters)}, and this run does not train them"
        record.notes.append(f"{lacking}, so scores are not meaningful")
    log_notes(record.notes)
    freeze_imports()
    return ReducedModel(model, selection, new_parameters)


def fine_tune(
    spec: RunSpec,
    options: Options,
    args: TrainingArguments,
    reduced: ReducedModel,
    datasets: dict[str, TokenizedDataset],
    inputs: RunInputs,
    prerequisites: Prerequisites,
    record: RunRecord,
    clock: Clock,
    resume_from: str | None,
) -> dict[str, Evaluation]:
    """Train a model in place with the library's Trainer. Save it if `options.save_model` is set.

    Returns split -> evaluation of the final model. Empty if training did not evaluate the final model.
    """
    tokenizer, checkpoint, model, selection = inputs.tokenizer, inputs.checkpoint, reduced.model, reduced.selection
    freeze(model, frozen_layers(spec, checkpoint, selection), spec.train.freeze_embeddings)
    weights = describe.class_weights(record, datasets["train"], inputs.labels)
    weights = None if weights is None else torch.from_numpy(weights).to(args.device)
    loss = TaskLoss(inputs.labels.kind, spec.train.label_smoothing_factor, weights)
    with clock("teacher" if spec.distil else "load"):
        variant = training_variant(
            spec,
            model,
            datasets["train"],
            inputs.collate,
            inputs.labels,
            loss,
            examples=inputs.data.examples["train"],
            teacher=prerequisites.teacher,
            predecessor=prerequisites.start or checkpoint,
            new_parameters=reduced.new_parameters,
            schedule=describe.drop_schedule(spec, checkpoint, selection),
            args=args,
            resume_from=resume_from,
        )
    validation = {split: data for split, data in datasets.items() if split.startswith("validation")}
    evaluator = Evaluator(validation, inputs.labels, inputs.collate, args.per_device_eval_batch_size, spec.precision)
    used_ids = np.append(datasets["train"].columns["input_ids"], tokenizer.pad_token_id)
    faster = speedups(model, args, train=True, no_speedups=spec.no_speedups, used_ids=used_ids)
    with variant.attention, faster, head_in_fp32(model):
        trainer = FineTuner(
            model,
            args,
            variant.collate,
            variant.train_dataset,
            objective=variant.loss,
            evaluator=evaluator if validation else None,
            processing_class=tokenizer,
            callbacks=variant.callbacks,
            capture=not (spec.no_speedups or variant.changes_layers),
            rolling_checkpoints=options.rolling_checkpoints,
        )
        trainer.train(resume_from)
    if options.save_model:
        trainer.save_run()
    describe.training(record, trainer, clock)
    describe.gradual_cuts(record, checkpoint, selection, trainer.steps_per_epoch)
    return dict(trainer.evaluations)


def predict(
    model: PreTrainedModel,
    datasets: dict[str, TokenizedDataset],
    splits: list[str],
    evaluations: dict[str, Evaluation],
    args: TrainingArguments,
    inputs: RunInputs,
    record: RunRecord,
    clock: Clock,
) -> None:
    """Evaluate a model on the splits that `evaluations` lacks. Record metrics and write predictions of all splits."""
    labels, task = inputs.labels, inputs.data.task
    with speedups(model, args, train=False, no_speedups=record.spec.no_speedups):
        for split in splits:
            if split not in evaluations:
                with clock("predict" if split.startswith("test") else "evaluate"):
                    evaluations[split] = evaluate(
                        model,
                        datasets[split],
                        labels,
                        inputs.collate,
                        batch_size=inputs.batch_size,
                        precision=record.spec.precision,
                    )
            examples, evaluation = inputs.data.examples[split], evaluations[split]
            describe.evaluation(record, split, evaluation, examples, labels)
            write_predictions(record.folder, task, split, examples, evaluation.predictions)
    describe.inference(clock, evaluations)


def preview(spec: RunSpec, options: Options) -> RunRecord:
    """Select the layers without training. Returns a record with layers, scores and parameters before and after."""
    record, clock = RunRecord(spec, options.folder, "dry_run", notes=list(options.notes)), Clock()
    record.environment = environment(options.use_cpu)
    args = training_arguments(spec, options)
    checkpoint = Checkpoint.open(spec.model, options.hub)
    prerequisites = Prerequisites(spec, options, Fingerprints())
    check_run(spec, args, checkpoint.config)
    inputs = RunInputs.read(spec, options, args, checkpoint, splits_to_select(spec))
    describe.inputs(record, inputs, prerequisites.teacher)
    with clock("select"):
        selection = select_for(spec.drop, spec, options, inputs)
    describe.selection(record, checkpoint, selection, inputs.labels)
    describe.gradual_cuts(record, checkpoint, selection)
    log_notes(record.notes)
    record.seconds = clock.total()
    return record


if __name__ == "__main__":
    import runpy

    sys.modules["run_glue"] = sys.modules["__main__"]  # `layerdrop run` then executes this file, even if it is a copy
    sys.argv.insert(1, "run")
    runpy.run_module("layerdrop", run_name="__main__")
