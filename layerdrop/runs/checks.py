"""Checks of a run's spec against its model, before anything is computed or written."""

from transformers import PreTrainedConfig, TrainingArguments

from layerdrop.criteria import selection
from layerdrop.finetune.distillation import check_depth
from layerdrop.finetune.precision import check_precision
from layerdrop.runs.spec import RunSpec
from layerdrop.strategies import check_k


def check_run(spec: RunSpec, args: TrainingArguments, config: PreTrainedConfig) -> None:
    """Raise UserError for a precision, activation checkpointing or a selection that the model does not support."""
    from layerdrop.runs.training_arguments import check_checkpointing  # imports the Trainer, which a plan does not need

    check_precision(spec.precision, config)
    check_checkpointing(args, config)
    check_selection(spec, config)


def check_selection(spec: RunSpec, config: PreTrainedConfig) -> None:
    """Raise UserError for a selection of layers that is impossible with any scores. config: the checkpoint's."""
    drop = spec.drop
    if spec.elastic_k:
        check_k(max(spec.elastic_k), config.num_hidden_layers, "--elastic_k")
    selection.check_selection(drop, spec.train.freeze_layers if spec.train else (), config)
    check_depth(
        spec.distil, config.num_hidden_layers - (drop.k or len(drop.layers))
    )  # with a threshold, K is checked after scoring
