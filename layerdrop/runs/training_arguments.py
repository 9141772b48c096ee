"""The library's TrainingArguments of a run."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
    TrainingArguments,
)

from layerdrop.errors import UserError
from layerdrop.finetune.spec import OWN_SETTINGS, TrainSpec
from layerdrop.finetune.trainer import OneGPU
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.system.faults import fault
from layerdrop.system.process import check_launcher
from layerdrop.system.text import one_line


def training_arguments(spec: RunSpec, options: Options) -> OneGPU:
    """The TrainingArguments of a run. A run without training gets the default recipe, which has no effect.

    Raises UserError for settings that the library refuses, and for unusable variables of a launcher.
    """
    check_launcher()
    train = spec.train or TrainSpec()
    recipe = {f.name: getattr(train, f.name) for f in dataclasses.fields(train) if f.name not in OWN_SETTINGS}
    values: dict[str, Any] = {
        # A loss that is not finite fails the run. With fp16, loss scaling skips such steps.
        "logging_nan_inf_filter": spec.precision == "fp16",
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    if train.layerdrop_rate or spec.theseus or spec.when.every_epochs:  # some layers have no gradient in some steps
        values["ddp_find_unused_parameters"] = True
    if options.trainer.get("report_to"):
        values["run_name"] = Path(options.folder).name
    recipe["num_train_epochs"] += gradual_epochs(spec)
    values |= recipe | dict(options.trainer) | dict(train.other)
    if not options.evaluate or spec.train is None:
        values["eval_strategy"] = "no"
    values |= {"bf16": spec.precision == "bf16", "fp16": spec.precision == "fp16"}
    values["remove_unused_columns"] = False  # the extra column `row` selects the teacher's outputs
    try:
        args = OneGPU(output_dir=options.folder, seed=spec.seed, use_cpu=options.use_cpu, **values)
    except (ValueError, TypeError, KeyError, ImportError) as error:
        reason = fault(error) or one_line(str(error))
        raise UserError(f"TrainingArguments: {reason}. Correct the training settings.") from error
    args.mixed_precision = "no" if spec.precision == "fp32" else spec.precision  # overrides a launcher's environment
    return args


def gradual_epochs(spec: RunSpec) -> int:
    """Epochs before the last drop; 0 if all layers are dropped before training."""
    if spec.when.gradual is None:
        return 0
    step, every_epochs = spec.when.gradual
    return -(-(len(spec.drop.layers) or spec.drop.k or 0) // step) * every_epochs


def check_checkpointing(args: TrainingArguments, config: PreTrainedConfig) -> None:
    """Raise UserError for --gradient_checkpointing if the model's class does not support it."""
    kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if not (args.activation_checkpointing and isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        return
    if not kind.supports_gradient_checkpointing:
        raise UserError(
            f"--gradient_checkpointing, --activation_checkpointing: the library cannot checkpoint the activations of "
            f"{config.model_type} models. Leave both out."
        )
