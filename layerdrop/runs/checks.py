"""Checks of a run's spec against its model, before anything is computed or written."""

from transformers import PreTrainedConfig, TrainingArguments

from layerdrop.criteria.selection import check_selection
from layerdrop.finetune.precision import check_precision
from layerdrop.runs.spec import RunSpec
from layerdrop.runs.training_arguments import check_checkpointing


def check_run(spec: RunSpec, args: TrainingArguments, config: PreTrainedConfig) -> None:
    """Raise UserError for a precision, activation checkpointing or a selection that is impossible for a model."""
    check_precision(spec.precision, config)
    check_checkpointing(args, config)
    check_selection(spec, config)
