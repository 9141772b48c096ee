"""Scores from a model's outputs: losses and divergences without a layer, gradients of the loss.

Sources: loss-drop: Kim et al. (2024), "Shortened LLaMA". sleb: Song et al. (2024), "SLEB". logit-kl: Sieberling et al.
(2024), "EvoPress". taylor: Ma et al. (2023), "LLM-Pruner". fisher: Lee et al. (2023), "Surgical Fine-Tuning".

A unit has one prediction: a text for most classifiers, a labeled token for a token classifier, a masked token for a
masked language model. Means are over units. Batches hold `labels`: (texts, ...), or (texts, tokens) with -100 for
tokens that are no unit.
"""

import math
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from layerdrop.criteria.weights import each_layer
from layerdrop.data.kinds import Kind, kind_of
from layerdrop.strategies import lowest_by_steps
from layerdrop.surgery import droppable, without

Batch = dict[str, torch.Tensor]
Batches = Sequence[Batch]
Rows = list[list[float]]
"""Rows of scores, each with one number per layer."""


def loss_drop(model: PreTrainedModel, batches: Batches) -> Rows:
    """One row: the loss without each layer, minus the full model's loss. NaN for a layer that cannot be dropped."""
    return sleb(model, batches, 1)


def sleb(model: PreTrainedModel, batches: Batches, k: int) -> Rows:
    """k rows, one for each step: `loss_drop` without the layers of earlier steps. NaN for dropped layers."""
    full = mean_loss(model, batches)

    def score(dropped: list[int], candidates: list[int]) -> dict[int, float]:
        return {i: mean_loss(model, batches, [*dropped, i]) - full for i in candidates}

    return _by_steps(model, k, score)


def logit_kl(model: PreTrainedModel, batches: Batches) -> Rows:
    """One row: divergence of the outputs without each layer from the full model's outputs (`Kind.divergences`)."""
    return sleb_kl(model, batches, 1)


def sleb_kl(model: PreTrainedModel, batches: Batches, k: int) -> Rows:
    """k rows, one for each step: `sleb` with divergences instead of losses."""

    @torch.no_grad()
    def score(dropped: list[int], candidates: list[int]) -> dict[int, float]:
        total, units, kind = dict.fromkeys(candidates, 0.0), 0, _kind(model)
        for batch in batches:
            full = logits_and_labels(model, batch)[0].double()
            units += len(full)
            for i in candidates:
                with without(model, [*dropped, i]):
                    total[i] += float(kind.divergences(logits_and_labels(model, batch)[0].double(), full).sum())
        return {i: value / units for i, value in total.items()}

    return _by_steps(model, k, score)


def _by_steps(model: PreTrainedModel, k: int, score: Callable[[list[int], list[int]], dict[int, float]]) -> Rows:
    """k rows. Each step drops the layer with the lowest score; ties drop the higher id.

    score: (ids dropped before, ids that can be dropped next) -> score of each candidate.
    """
    ids, n_layers = droppable(model.config), model.config.num_hidden_layers
    rows: Rows = []
    for _ in range(k):
        dropped = lowest_by_steps(rows, ids)
        one_left = len(dropped) == n_layers - 1
        scores = score(dropped, [] if one_left else [i for i in ids if i not in dropped])
        rows.append([scores.get(i, math.nan) for i in range(n_layers)])
    return rows


def taylor(model: PreTrainedModel, batches: Batches) -> Rows:
    """One row: sum over the layer's weights of |weight x gradient of the mean loss|."""
    units = sum(len(_targets(model, batch)) for batch in batches)
    model.zero_grad()
    for batch in batches:
        (_losses(model, batch).sum() / units).backward()  # type: ignore[no-untyped-call]
    scores = [sum((float((p * g).abs().sum()) for p, g in layer), 0.0) for layer in _gradients(model)]
    model.zero_grad()
    return [scores]


def fisher(model: PreTrainedModel, batches: Batches) -> Rows:
    """One row: sum over the layer's weights of the squared gradient of a row's loss, averaged over rows."""
    total, rows = [0.0] * model.config.num_hidden_layers, 0
    for batch in batches:
        for row in range(len(batch["input_ids"])):
            example = {name: tensor[row : row + 1] for name, tensor in batch.items()}
            if not len(_targets(model, example)):
                continue
            model.zero_grad()
            _losses(model, example).mean().backward()  # type: ignore[no-untyped-call]
            squares = [sum((float(g.double().square().sum()) for _, g in layer), 0.0) for layer in _gradients(model)]
            total = [a + b for a, b in zip(total, squares, strict=True)]
            rows += 1
    model.zero_grad()
    return [[value / rows for value in total]]


def _gradients(model: PreTrainedModel) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """For each layer, (parameter, gradient) of every parameter that has a gradient."""
    return [[(p.detach(), p.grad) for p in layer.parameters() if p.grad is not None] for layer in each_layer(model)]


def mean_loss(model: PreTrainedModel, batches: Batches, dropped: Sequence[int] = ()) -> float:
    """Mean loss of the model without the layers `dropped`, over units."""
    with torch.no_grad(), without(model, dropped):
        losses = torch.cat([_losses(model, batch).double() for batch in batches])
    return float(losses.mean())


def _kind(model: PreTrainedModel) -> Kind:
    """The kind of a model's outputs. The outputs of a masked language model are classes of tokens."""
    return kind_of(model.config, type(model).__name__)


def _targets(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Labels of the units: (units, ...)."""
    return _kind(model).units(batch["labels"], batch["labels"])[1]


def logits_and_labels(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (units, outputs) and labels (units, ...)."""
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
    return _kind(model).units(model(**inputs).logits.float(), batch["labels"].to(model.device))


def _losses(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Loss of each unit: (units,)."""
    return _kind(model).losses(*logits_and_labels(model, batch))
