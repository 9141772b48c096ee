"""Checks of a run before anything is computed or written."""

from transformers import PreTrainedConfig

from layerdrop.criteria import selection
from layerdrop.finetune.distillation import check_depth
from layerdrop.runs.spec import RunSpec


def check_selection(spec: RunSpec, config: PreTrainedConfig) -> None:
    """Raise UserError for a selection of layers that is impossible whatever the scores. config: the checkpoint's."""
    drop = spec.drop
    selection.check_selection(drop, spec.train.freeze_layers if spec.train else (), config)
    check_depth(spec.distil, config.num_hidden_layers - (drop.k or len(drop.layers)))  # a threshold is checked later
