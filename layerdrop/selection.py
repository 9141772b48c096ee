"""From flags to layer ids: finds the order or computes the scores that a strategy needs, then lets it select."""

from dataclasses import dataclass

from tqdm.auto import tqdm
from transformers import PreTrainedConfig

from layerdrop.data import Collator, Examples, batches, tokenise
from layerdrop.errors import UserError
from layerdrop.orders import published_order, read_order_file
from layerdrop.runs import RunSpec
from layerdrop.scorers import SCORERS
from layerdrop.strategies import check_ids, check_k, get_strategy, select
from layerdrop.surgery import kept_layers, load_encoder, max_length, positions


@dataclass(frozen=True)
class Selection:
    """The ids to drop, ascending, in the checkpoint's own numbering (from 0), and the scores that led to them."""

    dropped: list[int]
    scores: list[float] | None = None


def find_order(strategy: str | None, order_file: str | None, model: str, task: str) -> tuple[int, ...]:
    """The order that `greedy` or `optimal` drops in: a layer file's, else for greedy the published one. Else ()."""
    if strategy is None or not get_strategy(strategy).order:
        return ()
    if order_file:
        return read_order_file(order_file)
    if strategy == "greedy":
        return published_order(model, task)
    raise UserError(f"--drop_strategy {strategy}: needs a search's result. Add --drop_order_file FILE, one id a line.")


def check_selection(spec: RunSpec, config: PreTrainedConfig) -> None:
    """Raise UserError for what no score could mend, before anything is computed or written."""
    n_layers = config.num_hidden_layers
    check_ids("--freeze_layers", spec.freeze_layers, n_layers)
    row = get_strategy(spec.strategy) if spec.strategy else None
    if row is None:
        return
    if row.scorer:
        check_k(spec.k or 0, n_layers)
    else:
        dropped = select(row.name, n_layers, k=spec.k, order=spec.order, layers=spec.layers)
        positions("--freeze_layers", kept_layers(config, dropped), spec.freeze_layers)


def select_layers(spec: RunSpec, n_layers: int, options, examples: Examples | None, tokenizer, args) -> Selection:
    """What a run drops. examples: those to average a score over; args: TrainArguments, for device and batch size.

    Scores are those of spec.model, or of spec.score_on, a checkpoint of the same depth.
    """
    if spec.strategy is None:
        return Selection([])
    row = get_strategy(spec.strategy)
    if row.scorer is None:
        return Selection(select(row.name, n_layers, k=spec.k, order=spec.order, layers=spec.layers))
    scorer = SCORERS[row.scorer]
    if spec.score_on:
        source, encoder = spec.score_on, load_encoder(spec.score_on, options.elsewhere(), "--score_on")
    else:
        source, encoder = spec.model, load_encoder(spec.model, options, "--model_name_or_path")
    encoder = encoder.to(args.device)
    depth = encoder.config.num_hidden_layers
    if depth != n_layers:
        raise UserError(
            f"--score_on {source}: has {depth} layers, the model {n_layers}. Choose a checkpoint of the same depth."
        )
    loader = None
    if scorer.needs_data:
        length = min(spec.max_seq_length, max_length(encoder.config, tokenizer))
        dataset = tokenise(examples.head(spec.score_samples), tokenizer, length)
        parts = batches(dataset, args.per_device_eval_batch_size)
        loader = map(Collator.of(tokenizer, length), tqdm(parts, desc=f"scores: {scorer.name}", delay=2, leave=False))
    scores = scorer.score(encoder, loader, spec.weight_scope or "final")
    return Selection(select(row.name, n_layers, k=spec.k, threshold=spec.threshold, scores=scores), scores)
