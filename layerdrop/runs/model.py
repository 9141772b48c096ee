"""Select the layers of a run's model, load and save the model."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from layerdrop.checkpoints import POSITIVE_KEY, Checkpoint
from layerdrop.criteria.selection import Selection, select_layers, split_to_score
from layerdrop.criteria.spec import DropSpec
from layerdrop.data.labels import Labels
from layerdrop.errors import UserError
from layerdrop.loading import load_classifier, quiet, random_classifier
from layerdrop.runs.inputs import RunInputs
from layerdrop.runs.spec import Options, RunSpec
from layerdrop.system.own_files import OwnFiles
from layerdrop.system.process import is_first


@dataclass(frozen=True)
class ReducedModel:
    """A model without the layers that are dropped before training."""

    model: PreTrainedModel
    selection: Selection
    new_parameters: list[str]
    """Names of the parameters that the checkpoint lacks."""


def select_for(drop: DropSpec, spec: RunSpec, options: Options, inputs: RunInputs) -> Selection:
    """Select the layers to drop from a run's checkpoint, with scores on the run's rows. Raises UserError."""
    scored = split_to_score(drop)
    return select_layers(
        drop,
        inputs.checkpoint,
        inputs.data.examples[inputs.data.splits(scored)[0]] if scored else None,
        inputs.data.task,
        seed=spec.seed,
        max_seq_length=spec.data.max_seq_length,
        device=inputs.device,
        batch_size=inputs.batch_size,
        score_store=options.score_store,
    )


def dropped_before_training(spec: RunSpec, selection: Selection) -> list[int]:
    """Layers that the model lacks before training, in the checkpoint's numbering."""
    return [] if spec.when.frozen or spec.when.every_epochs else selection.dropped


def load_model(
    spec: RunSpec, checkpoint: Checkpoint, start: Checkpoint | None, selection: Selection, labels: Labels
) -> tuple[PreTrainedModel, list[str]]:
    """Load a run's model without the layers that it drops before training.

    start: the start model; None: load the checkpoint. Returns the model and the names of the parameters that the
    loaded weights lack. Raises UserError if the start model lacks a layer that the run keeps.
    """
    set_seed(spec.seed)
    dropped, head = dropped_before_training(spec, selection), labels.head
    if start:
        absent = _absent_layers(start, [i for n, i in enumerate(checkpoint.original_ids) if n not in dropped])
        model, new = load_classifier(start, absent, **head, replace_head=False)
    elif spec.model.from_scratch:
        model, new = random_classifier(checkpoint, dropped, **head), []
    else:
        has_new_head, weights = spec.train is not None, selection.encoder_weights
        model, new = load_classifier(checkpoint, dropped, **head, replace_head=has_new_head, weights=weights)
    selection.encoder_weights = None  # frees memory
    if spec.data.files:
        setattr(model.config, POSITIVE_KEY, labels.task.positive_label)
    return model, new


def _absent_layers(start: Checkpoint, kept: list[int]) -> list[int]:
    """Layers to drop from the start model, in its own numbering. kept: ids of the original model."""
    if missing := [i for i in kept if i not in start.original_ids]:
        ids = ", ".join(map(str, missing))
        raise UserError(
            f"{start.name}: lacks layer {ids}, which this run keeps. Give --drop_layers with {ids}, or another start "
            "model."
        )
    return [position for position, i in enumerate(start.original_ids) if i not in kept]


def save_untrained(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Save the reduced model of a run without training."""
    if is_first():
        with quiet(), OwnFiles(folder).saving() as temporary:
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
