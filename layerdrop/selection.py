"""From a DropSpec to layer ids: computes the scores that a strategy needs, then lets it select."""

from dataclasses import dataclass, field

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedConfig

from layerdrop.architectures import family_of
from layerdrop.checkpoints import Checkpoint
from layerdrop.data.batches import Collator, batches
from layerdrop.data.examples import Examples
from layerdrop.data.tokens import tokenise
from layerdrop.errors import UserError
from layerdrop.loading import load_encoder
from layerdrop.scorers import SCORERS, Scorer
from layerdrop.spec import DropSpec, ModelSpec
from layerdrop.strategies import check_ids, check_k, get_strategy, gradual_order, select
from layerdrop.surgery import droppable, kept_layers, positions


@dataclass
class Selection:
    """What goes, and why."""

    dropped: list[int]
    """Ids, ascending, in the checkpoint's own numbering (from 0)."""
    order: list[int] = field(default_factory=list)
    """The same ids, first to go first: for gradual dropping."""
    why: str = "nothing is dropped"
    """The decision in words: `top, K = 2`."""
    scores: list[float] | None = None
    """One for each layer, where the strategy scores."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """`score_on`: of the checkpoint that was scored, where it is another one."""
    encoder_weights: dict[str, torch.Tensor] | None = None
    """The checkpoint's encoder on the CPU, where scoring has read it: they need not be read again."""


def split_to_score(drop: DropSpec) -> str | None:
    """The split that scores are averaged over; None where no score needs data."""
    row = get_strategy(drop.strategy) if drop.strategy else None
    return drop.score_split if row and row.scorer and SCORERS[row.scorer].needs_data else None


def must_search(drop: DropSpec) -> bool:
    """Whether the layers are those of a search that is still to be done."""
    return drop.strategy is not None and get_strategy(drop.strategy).searches and not drop.found


def search_space(config: PreTrainedConfig, max_k: int, flag: str) -> list[int]:
    """The layers among which a search can choose up to max_k. Raises UserError. flag: what max_k was given by."""
    family, layers = family_of(config), droppable(config)
    if family.shared:
        raise UserError(f"{family.name} shares one layer: all sets of K layers are the same model. Choose top.")
    most = min(len(layers), config.num_hidden_layers - 1)
    if not 1 <= max_k <= most:
        raise UserError(f"{flag} {max_k}: of {config.num_hidden_layers} layers choose 1 to {most}.")
    return layers


def check_selection(drop: DropSpec, freeze_layers: tuple[int, ...], config: PreTrainedConfig) -> None:
    """Raise UserError for what no score could mend, before anything is computed or written."""
    n_layers = config.num_hidden_layers
    check_ids("--freeze_layers", freeze_layers, n_layers)
    row = get_strategy(drop.strategy) if drop.strategy else None
    if row is None:
        return
    if row.scorer:
        check_k(drop.k or 0, n_layers)
    elif must_search(drop):
        search_space(config, drop.k, "--drop_k")
    else:
        dropped = select(row.name, n_layers, k=drop.k, found=drop.found, layers=drop.layers)
        positions("--freeze_layers", kept_layers(config, dropped), freeze_layers)


def select_layers(
    drop: DropSpec,
    checkpoint: Checkpoint,
    examples: Examples | None = None,
    *,
    max_seq_length: int = 128,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> Selection:
    """What is dropped from a checkpoint.

    examples: those whose first `drop.score_samples` a score is averaged over. Scores are those of the checkpoint, or of
    `drop.score_on`, a checkpoint of the same depth. device, batch_size: where and how scores are computed.
    """
    if drop.strategy is None:
        return Selection([])
    row, n_layers = get_strategy(drop.strategy), checkpoint.n_layers
    if row.scorer is None:
        dropped = select(row.name, n_layers, k=drop.k, found=drop.found, layers=drop.layers)
        return Selection(dropped, gradual_order(row.name, dropped, found=drop.found), _why(drop, dropped))
    scored = checkpoint
    if drop.score_on:
        scored = Checkpoint.open(
            ModelSpec(drop.score_on, tokenizer=checkpoint.model.tokenizer), checkpoint.hub, "--score_on"
        )
    if scored.n_layers != n_layers:
        raise UserError(
            f"--score_on {scored.name}: has {scored.n_layers} layers, the model {n_layers}. "
            "Choose a checkpoint of the same depth."
        )
    encoder = load_encoder(scored).to(device)
    scorer, loader = SCORERS[row.scorer], None
    if scorer.needs_data:
        length = min(max_seq_length, scored.max_length())
        loader = _batches(scorer, checkpoint.tokenizer, examples.head(drop.score_samples), length, batch_size)
    scores = scorer.score(encoder, loader, drop.weight_scope or "final")
    selection = Selection([], scores=scores)
    selection.dropped = select(row.name, n_layers, k=drop.k, threshold=drop.threshold, scores=scores)
    selection.order = gradual_order(row.name, selection.dropped, scores)
    selection.why = _why(drop, selection.dropped)
    if drop.score_on:
        selection.fingerprints["score_on"] = scored.fingerprints["model"]
    else:
        selection.encoder_weights = {name: weight.cpu() for name, weight in encoder.state_dict().items()}
    return selection


def _batches(scorer: Scorer, tokenizer, examples: Examples, length: int, batch_size: int):
    parts = batches(tokenise(examples, tokenizer, length), batch_size)
    return map(Collator.of(tokenizer, length), tqdm(parts, desc=f"scores: {scorer.name}", delay=2, leave=False))


def _why(drop: DropSpec, dropped: list[int]) -> str:
    frozen = ", frozen" if drop.frozen else ""
    if drop.threshold is not None:
        return f"{drop.strategy}, above {drop.threshold:g}{frozen}"
    return f"{drop.strategy}, K = {len(dropped)}{frozen}"
