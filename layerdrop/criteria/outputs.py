"""Scores from a model's outputs: losses without a layer, divergences, gradients.

Sources: loss-drop: Kim et al. (2024), "Shortened LLaMA". sleb: Song et al. (2024), "SLEB". logit-kl: Sieberling et al.
(2024), "EvoPress". taylor: Ma et al. (2023), "LLM-Pruner". fisher: Lee et al. (2023), "Surgical Fine-Tuning".

A loss belongs to a unit: a row for a classifier, a masked token for a masked language model. Batches hold `labels`,
(rows,) or (rows, tokens) with -100 where no token is masked. Means are over units.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss
from transformers import PreTrainedModel

from layerdrop.strategies import lowest_by_steps
from layerdrop.surgery import droppable, layer_list, without

Batch = dict[str, torch.Tensor]
Batches = Sequence[Batch]


def loss_drop(model: PreTrainedModel, batches: Batches) -> list[list[float]]:
    """One row: the loss without each layer minus the loss with all; NaN for a layer that cannot be dropped."""
    base = mean_loss(model, batches)
    return [[loss - base for loss in _without_each(model, batches, [])]]


def sleb(model: PreTrainedModel, batches: Batches, k: int) -> list[list[float]]:
    """A row for each of k steps: the loss without each layer and those dropped before, minus the loss with all; NaN for
    the dropped ones. Each step drops the lowest, of equals the higher id."""
    base = mean_loss(model, batches)
    return _by_steps(model, k, lambda gone: [loss - base for loss in _without_each(model, batches, gone)])


def _by_steps(model: PreTrainedModel, k: int, row_of: Callable[[list[int]], list[float]]) -> list[list[float]]:
    """k rows, each scored without the layers that earlier rows have chosen."""
    rows: list[list[float]] = []
    for _ in range(k):
        rows.append(row_of(lowest_by_steps(rows, droppable(model.config))))
    return rows


def _candidates(model: PreTrainedModel, gone: Sequence[int]) -> list[int]:
    """The layers that may go next; none where a single one is left."""
    if len(gone) == model.config.num_hidden_layers - 1:
        return []
    return [i for i in droppable(model.config) if i not in gone]


def _without_each(model: PreTrainedModel, batches: Batches, gone: list[int]) -> list[float]:
    losses = {i: mean_loss(model, batches, [*gone, i]) for i in _candidates(model, gone)}
    return [losses.get(i, math.nan) for i in range(model.config.num_hidden_layers)]


def logit_kl(model: PreTrainedModel, batches: Batches) -> list[list[float]]:
    """One row: divergence of the outputs without each layer from those with all; of values the squared difference."""
    return [_divergences(model, batches, [])]


def sleb_kl(model: PreTrainedModel, batches: Batches, k: int) -> list[list[float]]:
    """A row for each of k steps, as sleb, of divergences instead of losses."""
    return _by_steps(model, k, lambda gone: _divergences(model, batches, gone))


@torch.no_grad()
def _divergences(model: PreTrainedModel, batches: Batches, gone: list[int]) -> list[float]:
    """Divergences without each layer and those that are gone; NaN for these."""
    total, units = dict.fromkeys(_candidates(model, gone), 0.0), 0
    for batch in batches:
        whole = _outputs(model, batch)
        units += len(whole)
        for i in total:
            with without(model, [*gone, i]):
                total[i] += _divergence(_outputs(model, batch), whole)
    return [total[i] / units if i in total else math.nan for i in range(model.config.num_hidden_layers)]


def _divergence(ours: torch.Tensor, whole: torch.Tensor) -> float:
    if ours.shape[-1] == 1:
        return float(mse_loss(ours, whole, reduction="sum"))
    a, b = log_softmax(ours.double(), -1), log_softmax(whole.double(), -1)
    return float(kl_div(a, b, reduction="sum", log_target=True))


def taylor(model: PreTrainedModel, batches: Batches) -> list[list[float]]:
    """One row: sum over the layer's weights of |weight x gradient of the mean loss|."""
    units = sum(len(_targets(batch)) for batch in batches)
    model.zero_grad()
    for batch in batches:
        (_losses(model, batch).sum() / units).backward()
    scores = [sum(float((p.detach() * p.grad).abs().sum()) for p in layer) for layer in _parameters(model)]
    model.zero_grad()
    return [scores]


def fisher(model: PreTrainedModel, batches: Batches) -> list[list[float]]:
    """One row: sum over the layer's weights of the mean over rows of the squared gradient of a row's loss."""
    total, rows = [0.0] * model.config.num_hidden_layers, 0
    for batch in batches:
        for row in range(len(batch["input_ids"])):
            one = {name: tensor[row : row + 1] for name, tensor in batch.items()}
            if not len(_targets(one)):
                continue
            model.zero_grad()
            _losses(model, one).mean().backward()
            squares = [sum(float(p.grad.double().square().sum()) for p in layer) for layer in _parameters(model)]
            total = [a + b for a, b in zip(total, squares, strict=True)]
            rows += 1
    model.zero_grad()
    return [[value / rows for value in total]]


def _parameters(model: PreTrainedModel) -> list[list[torch.nn.Parameter]]:
    """Of each layer (ALBERT: of the one that all share, for each), those that have a gradient."""
    layers = list(layer_list(model))
    layers = layers if len(layers) == model.config.num_hidden_layers else layers[:1] * model.config.num_hidden_layers
    return [[p for p in layer.parameters() if p.grad is not None] for layer in layers]


def mean_loss(model: PreTrainedModel, batches: Batches, dropped: Sequence[int] = ()) -> float:
    """The mean loss over units of the model without some layers."""
    with torch.no_grad(), without(model, dropped) if dropped else nullcontext():
        losses = torch.cat([_losses(model, batch).double() for batch in batches])
    return float(losses.mean())


def _targets(batch: Batch) -> torch.Tensor:
    labels = batch["labels"]
    return labels[labels != -100] if labels.dim() > 1 else labels


def _outputs(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """(units, classes), or (units, 1) for values."""
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
    logits = model(**inputs).logits.float()
    return logits[batch["labels"].to(logits.device) != -100] if batch["labels"].dim() > 1 else logits


def _losses(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """(units,)."""
    outputs, targets = _outputs(model, batch), _targets(batch).to(model.device)
    if outputs.shape[-1] == 1:
        return mse_loss(outputs.squeeze(-1), targets.float(), reduction="none")
    return cross_entropy(outputs, targets, reduction="none")
