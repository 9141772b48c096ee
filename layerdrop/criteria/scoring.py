"""Compute the scores of several criteria for a checkpoint and texts. All criteria on states share one pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from layerdrop.checkpoints import Checkpoint
from layerdrop.criteria.states import score_states
from layerdrop.criteria.table import CRITERIA
from layerdrop.data.batches import Collator, batches
from layerdrop.data.examples import Examples
from layerdrop.data.labels import Labels
from layerdrop.data.tasks import Task
from layerdrop.data.tokens import TokenizedDataset, tokenize
from layerdrop.errors import UserError
from layerdrop.loading import load_classifier, load_encoder, load_masked_lm
from layerdrop.system.progress import progress

MASKED = 0.15
"""Fraction of masked tokens."""
MASKING_SEED = 41


@dataclass
class Scores:
    """Result of score_layers."""

    rows: dict[str, list[list[float]]] = field(default_factory=dict)
    """Criterion -> rows. Unit `layer`: one row with a number for each layer. `steps`: one row for each step. `block`:
    one row for each K, with a number for each layer at which a block of K can begin."""
    head: str = ""
    """The head used for the scores; empty if no criterion needs a head."""
    encoder_weights: dict[str, torch.Tensor] | None = None
    """Weights of the encoder on the CPU, if a criterion has read the encoder."""
    seconds: float = 0.0
    """Time to compute the scores, including cached ones."""


def score_layers(
    names: Sequence[str],
    checkpoint: Checkpoint,
    examples: Examples | None = None,
    task: Task | None = None,
    *,
    k: int = 1,
    tokenizer: PreTrainedTokenizerBase | None = None,
    weight_scope: str = "final",
    max_seq_length: int = 128,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
) -> Scores:
    """Compute the scores of a checkpoint's layers by the criteria `names`, in fp32.

    examples, task: texts and their task; not needed for criteria on weights. k: number of steps. tokenizer: None for
    the checkpoint's. Criteria that need a head use the checkpoint's classifier if it fits the task, else its
    masked-LM head. Raises UserError if it has neither, and for no texts or a missing task.
    """
    scores, rows = Scores(), [CRITERIA[name] for name in names]
    tokenizer = tokenizer or checkpoint.tokenizer
    data = None
    if need_texts := [row.name for row in rows if row.needs_data]:
        if not examples:
            raise UserError(f"{', '.join(need_texts)}: scores are measured on texts. Give examples.")
        length = min(max_seq_length, checkpoint.max_length())
        data = tokenize(examples, tokenizer, length, sizes=checkpoint.embeddings)
    collate = Collator.of(tokenizer, max_seq_length)
    if any(not row.needs_head for row in rows):
        encoder = load_encoder(checkpoint)
        encoder.to(device)  # type: ignore[arg-type]
        scores.rows |= {row.name: [row.function(encoder, weight_scope)] for row in rows if row.looks_at == "weights"}
        collectors = {row.name: row.function() for row in rows if row.looks_at == "states"}
        if collectors and data:
            parts = map(collate, progress(batches(data, batch_size), "scores"))
            scores.rows |= score_states(collectors, encoder, parts)
        scores.encoder_weights = {name: weight.cpu() for name, weight in encoder.state_dict().items()}
    if (with_head := [row for row in rows if row.needs_head]) and data:
        of = ", ".join(row.name for row in with_head)
        if task is None:
            raise UserError(f"{of}: scores are measured with a head. Give the task.")
        model, labelled, scores.head = _with_head(of, checkpoint, data, task, tokenizer, collate, batch_size)
        model.to(device)  # type: ignore[arg-type]
        for row in progress(with_head, "scores"):
            steps = (k,) if row.unit == "steps" else ()
            scores.rows[row.name] = row.function(model, labelled, *steps)
    return scores


def _with_head(
    names: str,
    checkpoint: Checkpoint,
    data: TokenizedDataset,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    collate: Collator,
    batch_size: int,
) -> tuple[PreTrainedModel, list[dict[str, torch.Tensor]], str]:
    """Return (model with a trained head, batches with its targets as `labels`, description of the head).

    names: of the criteria, for messages.
    """
    labels = Labels(task, checkpoint)
    if labels.fits and data.labels is not None:
        model, new = load_classifier(checkpoint, replace_head=False)
        if not new:
            labelled = replace(data, labels=labels.to_model(data.labels))
            pairs = labels.pairs
            head = f"the checkpoint's classifier ({pairs})" if pairs else "the checkpoint's classifier"
            return model, [collate(part) for part in batches(labelled, batch_size)], head
    masked_lm = load_masked_lm(checkpoint)
    if masked_lm is None or tokenizer.mask_token_id is None:
        trained = "" if data.labels is None else "a classifier trained on this task, or "
        raise UserError(
            f"{checkpoint.flag} {checkpoint.name}: has no head for {names}. Needed: {trained}a masked-LM head. "
            "Choose another criterion, or give a checkpoint with such a head."
        )
    return masked_lm, list(_masked(data, tokenizer, collate, batch_size)), "the checkpoint's masked-LM head"


def _masked(
    data: TokenizedDataset, tokenizer: PreTrainedTokenizerBase, collate: Collator, batch_size: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches in which a fraction MASKED of each text's ordinary tokens is masked.

    `labels` (batch, tokens) has the ids of the masked tokens, else -100. The draw depends only on the row number.
    """
    old_ids, ids = data.columns["input_ids"], data.columns["input_ids"].copy()
    for row, (start, end) in enumerate(zip(data.offsets, data.offsets[1:], strict=False)):
        ordinary = np.flatnonzero(~np.isin(old_ids[start:end], tokenizer.all_special_ids))
        n = min(len(ordinary), max(1, round(MASKED * len(ordinary))))
        chosen = np.random.default_rng((MASKING_SEED, row)).choice(ordinary, n, replace=False)
        ids[start + chosen] = tokenizer.mask_token_id
    masked = TokenizedDataset(data.columns | {"input_ids": ids}, data.offsets)
    unmasked = TokenizedDataset(data.columns, data.offsets)
    for masked_items, original_items in zip(batches(masked, batch_size), batches(unmasked, batch_size), strict=True):
        batch, original = collate(masked_items), collate(original_items)["input_ids"]
        yield batch | {"labels": original.masked_fill(batch["input_ids"] == original, -100)}
