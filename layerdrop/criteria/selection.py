"""Select the layer ids of a DropSpec: compute the scores of the strategy, then choose layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedConfig

from layerdrop.architectures import ModelSpec
from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.spec import DropSpec
from layerdrop.criteria.stored import stored_scores
from layerdrop.criteria.table import CRITERIA, Criterion, get_strategy
from layerdrop.data.examples import Examples
from layerdrop.data.tasks import Task
from layerdrop.errors import UserError
from layerdrop.strategies import check_ids, check_k, order_of_dropping, select
from layerdrop.surgery import droppable, kept_layers, positions


@dataclass
class Selection:
    """The selected layers, and the reason."""

    dropped: list[int]
    """Ids, ascending, in the checkpoint's numbering from 0."""
    order: list[int] = field(default_factory=list)
    """The same ids in the order of dropping, for gradual dropping."""
    why: str = "nothing is dropped"
    """The decision in words: `top, K = 2`."""
    scores: list[float] | None = None
    """One score for each layer, if the strategy computes scores. Steps: the scores of step K. Blocks: the scores of
    blocks of K layers. NaN for a layer that cannot be dropped, or at which no block can begin."""
    head: str = ""
    """The head used for the scores; empty if the strategy needs no head."""
    seconds: float = 0.0
    """Time to compute the scores, including cached ones."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """`score_on`: fingerprint of the scored checkpoint, if it is not the model."""
    encoder_weights: dict[str, torch.Tensor] | None = None
    """The checkpoint's encoder weights on the CPU, if scoring has read them, for reuse in loading. They are not sent to
    other processes, which read only the kept layers."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"encoder_weights": None}


def split_to_score(drop: DropSpec) -> str | None:
    """The split with the rows to score; None if the strategy reads no rows."""
    criterion = CRITERIA.get(drop.strategy or "")
    return drop.score_split if criterion and criterion.needs_data else None


def search_space(checkpoint: Checkpoint, max_k: int, flag: str) -> list[int]:
    """The layers from which a search can select up to max_k. flag: the flag of max_k. Raises UserError."""
    config, family, layers = checkpoint.config, checkpoint.family, droppable(checkpoint.config)
    if family.shared:
        raise UserError(
            f"{checkpoint.flag} {checkpoint.name}: {family.name} shares one layer, so all sets of K layers give the "
            "same model. No search is needed. Use: layerdrop run --drop_strategy top --drop_k K"
        )
    most = min(len(layers), config.num_hidden_layers - 1)
    if most < 1:
        raise UserError(f"{flag} {max_k}: a model of one layer has no layer to drop. Give a deeper model.")
    if not 1 <= max_k <= most:
        raise UserError(f"{flag} {max_k}: must be from 1 to {most} for a model of {config.num_hidden_layers} layers.")
    return layers


def check_selection(drop: DropSpec, freeze_layers: Sequence[int], config: PreTrainedConfig) -> None:
    """Raise UserError for a selection that is impossible with any scores, without computing or writing."""
    n_layers = config.num_hidden_layers
    check_ids("--freeze_layers", freeze_layers, n_layers)
    if drop.strategy is None:
        return
    row = get_strategy(drop.strategy)
    if row.drops or row.at_random:
        check_k(drop.k or 0, n_layers)
    else:
        dropped = select(row, n_layers, k=drop.k, found=drop.found, layers=drop.layers)
        positions("--freeze_layers", kept_layers(config, dropped), freeze_layers)


def select_layers(
    drop: DropSpec,
    checkpoint: Checkpoint,
    examples: Examples | None = None,
    task: Task | None = None,
    *,
    seed: int = 0,
    score_store: str | None = None,
    **arguments: Any,
) -> Selection:
    """Select the layers to drop from a checkpoint.

    The scored model is the checkpoint, or `drop.score_on`, a checkpoint of the same depth. examples: texts; the first
    `drop.score_samples` are scored. task: the task of the texts. seed: for `random`. score_store:
    folder of cached scores; None: no cache. arguments: `max_seq_length`, `device` and `batch_size` of score_layers.
    """
    if drop.strategy is None:
        return Selection([])
    row, selection, scores = get_strategy(drop.strategy), Selection([]), None
    if isinstance(row, Criterion):
        scored = _scored_checkpoint(drop, checkpoint)
        result = stored_scores(
            [row.name],
            scored,
            examples.head(drop.score_samples) if examples else None,
            task,
            folder=score_store,
            k=drop.k or 1,
            tokenizer=checkpoint.tokenizer if examples else None,
            weight_scope=drop.weight_scope or "final",
            **arguments,
        )
        rows = result.rows[row.name]
        last = rows[0 if row.unit == "layer" else (drop.k or 1) - 1]  # the cache can contain more than K rows
        scores = rows if row.unit == "steps" else last
        selection.scores = [*last, *[math.nan] * (checkpoint.n_layers - len(last))]
        selection.head, selection.seconds = result.head, result.seconds
        if drop.score_on:
            selection.fingerprints["score_on"] = scored.fingerprints["model"]
        else:
            selection.encoder_weights = result.encoder_weights
    selection.order = order_of_dropping(
        row,
        checkpoint.n_layers,
        k=drop.k,
        threshold=drop.threshold,
        scores=scores,
        found=drop.found,
        layers=drop.layers,
        among=droppable(checkpoint.config),
        seed=seed,
    )
    selection.dropped = sorted(selection.order)
    limit = f"K = {len(selection.order)}" if drop.threshold is None else f"above {drop.threshold:g}"
    selection.why = f"{row.name}, {limit}"
    return selection


def _scored_checkpoint(drop: DropSpec, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint to score. Raises UserError if it has another depth."""
    if not drop.score_on:
        return checkpoint
    model = ModelSpec(drop.score_on, tokenizer=checkpoint.model.tokenizer)
    scored = Checkpoint.open(model, checkpoint.hub, "--score_on")
    if scored.n_layers != checkpoint.n_layers:
        raise UserError(
            f"--score_on {scored.name}: has {scored.n_layers} layers, the model {checkpoint.n_layers}. "
            "Choose a checkpoint of the same depth."
        )
    return scored
