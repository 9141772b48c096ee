"""From a DropSpec to layer ids: computes the scores that a strategy needs, then lets it select."""

import math
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedConfig

from layerdrop.architectures import ModelSpec, family_of
from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.spec import DropSpec
from layerdrop.criteria.stored import stored_scores
from layerdrop.criteria.table import SCORERS
from layerdrop.data.examples import Examples
from layerdrop.data.tasks import Task
from layerdrop.errors import UserError
from layerdrop.finetune.spec import DistilSpec
from layerdrop.runs.spec import RunSpec
from layerdrop.strategies import check_ids, check_k, get_strategy, order_of_dropping, select
from layerdrop.surgery import droppable, kept_layers, positions


@dataclass
class Selection:
    """The chosen layers, and why."""

    dropped: list[int]
    """Ids, ascending, in the checkpoint's own numbering (from 0)."""
    order: list[int] = field(default_factory=list)
    """The same ids, first to go first: for gradual dropping."""
    why: str = "nothing is dropped"
    """The decision in words: `top, K = 2`."""
    scores: list[float] | None = None
    """One score for each layer, if the strategy scores; NaN for a layer that cannot be dropped or start a block.

    For a stepwise criterion the scores of step K, for a block criterion the scores of blocks of K layers."""
    head: str = ""
    """The head that the scores were computed with; empty where they need none."""
    seconds: float = 0.0
    """The time that computing the scores took, also where they come from a cache."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """`score_on`: contents of the scored checkpoint, where it is another one."""
    encoder_weights: dict[str, torch.Tensor] | None = None
    """Encoder weights of the checkpoint on the CPU, if scoring has read them, for reuse in loading. Not sent to other
    processes, which read only the kept layers."""

    def __getstate__(self) -> dict:
        return vars(self) | {"encoder_weights": None}


def split_to_score(drop: DropSpec) -> str | None:
    """The split that scores are averaged over; None where no score needs data."""
    row = get_strategy(drop.strategy) if drop.strategy else None
    return drop.score_split if row and row.scorer and SCORERS[row.scorer].needs_data else None


def search_space(config: PreTrainedConfig, max_k: int, flag: str) -> list[int]:
    """The layers among which a search can choose up to max_k. Raises UserError. flag: what max_k was given by."""
    family, layers = family_of(config), droppable(config)
    if family.shared:
        raise UserError(f"{family.name} shares one layer: all sets of K layers are the same model. Choose top.")
    most = min(len(layers), config.num_hidden_layers - 1)
    if not 1 <= max_k <= most:
        raise UserError(f"{flag} {max_k}: of {config.num_hidden_layers} layers choose 1 to {most}.")
    return layers


def check_depth(distil: DistilSpec | None, n_kept: int) -> None:
    """Raise UserError if too few layers are kept to pair one with a layer of the teacher."""
    if distil and distil.distill == "patient" and distil.distill_states_weight and n_kept < 2:
        raise UserError(
            "--distill patient: pairs all layers but the last, and the model keeps one alone. Use --distill layers or "
            "logits, or drop fewer."
        )


def check_selection(spec: RunSpec, config: PreTrainedConfig) -> None:
    """Raise UserError for a selection that is impossible whatever the scores, before anything is computed or
    written."""
    drop, n_layers = spec.drop, config.num_hidden_layers
    freeze_layers = spec.train.freeze_layers if spec.train else ()
    check_ids("--freeze_layers", freeze_layers, n_layers)
    check_depth(spec.distil, n_layers - (drop.k or len(drop.layers or ())))  # a threshold says later how many go
    row = get_strategy(drop.strategy) if drop.strategy else None
    if row is None:
        return
    if row.scorer or row.at_random:
        check_k(drop.k or 0, n_layers)
    else:
        dropped = select(row.name, n_layers, k=drop.k, found=drop.found, layers=drop.layers)
        positions("--freeze_layers", kept_layers(config, dropped), freeze_layers)


def select_layers(
    drop: DropSpec,
    checkpoint: Checkpoint,
    examples: Examples | None = None,
    task: Task | None = None,
    *,
    seed: int = 0,
    max_seq_length: int = 128,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    score_store: str | None = None,
) -> Selection:
    """Select the layers to drop from a checkpoint.

    examples: the first `drop.score_samples` are scored; task: the meaning of their labels. The scored model is the
    checkpoint, or `drop.score_on`, a checkpoint of the same depth. seed: of `random`. device, batch_size: where and how
    scores are computed. score_store: folder of scores that need not be computed again; None: none.
    """
    if drop.strategy is None:
        return Selection([])
    row, n_layers = get_strategy(drop.strategy), checkpoint.n_layers
    selection, scores = Selection([]), None
    if row.scorer:
        scored = _scored_checkpoint(drop, checkpoint)
        found = stored_scores(
            [row.scorer],
            scored,
            examples.head(drop.score_samples) if examples else None,
            task,
            folder=score_store,
            k=drop.k or 1,
            tokenizer=checkpoint.tokenizer if examples else None,
            weight_scope=drop.weight_scope or "final",
            max_seq_length=max_seq_length,
            device=device,
            batch_size=batch_size,
        )
        rows = found.rows[row.scorer]
        last = rows[0 if row.of == "layer" else (drop.k or 1) - 1]  # a cache may hold the rows of a larger K
        scores = rows if row.of == "steps" else last
        selection.scores = [*last, *[math.nan] * (n_layers - len(last))]
        selection.head, selection.seconds = found.head, found.seconds
        if drop.score_on:
            selection.fingerprints["score_on"] = scored.fingerprints["model"]
        else:
            selection.encoder_weights = found.encoder_weights
    selection.order = order_of_dropping(
        row.name,
        n_layers,
        k=drop.k,
        threshold=drop.threshold,
        scores=scores,
        found=drop.found,
        layers=drop.layers,
        among=droppable(checkpoint.config),
        seed=seed,
    )
    selection.dropped = sorted(selection.order)
    selection.why = _why(drop, selection.dropped)
    return selection


def _scored_checkpoint(drop: DropSpec, checkpoint: Checkpoint) -> Checkpoint:
    """Raises UserError where it has another depth."""
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


def _why(drop: DropSpec, dropped: list[int]) -> str:
    if drop.threshold is not None:
        return f"{drop.strategy}, above {drop.threshold:g}"
    return f"{drop.strategy}, K = {len(dropped)}"
