"""Checks of a run's spec and options, before anything is computed or written."""

from transformers import PreTrainedConfig, TrainingArguments

from layerdrop.criteria import selection
from layerdrop.errors import UserError
from layerdrop.finetune.distillation import check_depth
from layerdrop.finetune.precision import check_precision
from layerdrop.runs.command import FLAG_OF
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.strategies import check_k
from layerdrop.system.limits import check_numbers
from layerdrop.system.typecheck import check_type


def check_values(spec: RunSpec, options: Options) -> None:
    """Raise UserError for a value of another type than its field, out of range or unknown."""
    try:
        check_type(spec, RunSpec, "spec")
        check_type(options, Options, "options")
    except TypeError as error:
        raise UserError(f"{error}.") from None
    settings = {"max_predict_samples": options.max_predict_samples, **options.trainer}
    for run in (spec, *spec.prerequisites):
        check_numbers({FLAG_OF.get(name, name): value for name, value in run.flat().items()} | settings)


def check_run(spec: RunSpec, args: TrainingArguments, config: PreTrainedConfig) -> None:
    """Raise UserError for a precision, activation checkpointing or a selection that the model does not support."""
    from layerdrop.runs.training_arguments import check_checkpointing  # imports the Trainer, which a plan does not need

    check_precision(spec.precision, config)
    check_checkpointing(args, config)
    check_selection(spec, config)


def check_selection(spec: RunSpec, config: PreTrainedConfig) -> None:
    """Raise UserError for a selection of layers that is impossible with any scores. config: the checkpoint's."""
    drop, n_layers = spec.drop, config.num_hidden_layers
    trained = [k for k in spec.elastic_k if k < n_layers]
    if trained and drop.k and drop.k not in spec.elastic_k:
        training = f"the elastic training has only K = {', '.join(map(str, trained))} (--elastic_k). Choose one of them"
        too_large = f"a model of {n_layers} layers must keep at least one, and {training}."
        text = too_large if drop.k >= n_layers else f"{training}, or add {drop.k} to --elastic_k."
        raise UserError(text, "--drop_k", drop.k)
    selection.check_selection(drop, spec.train.freeze_layers if spec.train else (), config)
    if spec.elastic_k:  # after --drop_k, which decides the default
        check_k(max(spec.elastic_k), n_layers, "--elastic_k")
    check_depth(spec.distil, n_layers - (drop.k or len(drop.layers)))  # with a threshold, K is checked after scoring
