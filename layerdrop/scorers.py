"""A score for each layer, and the table of the scorers' names.

Source: Sajjad et al. (2023), Section 3 (contribution) and Section 5.1 (weights).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from layerdrop.architectures import family_of
from layerdrop.surgery import layer_list


@dataclass(frozen=True)
class Scorer:
    """One row of the table: `score(model, batches, weight_scope)` gives one float for each layer, id 0 first."""

    name: str
    score: Callable[..., list[float]]
    needs_data: bool = False


def contribution(model: PreTrainedModel, batches: Iterable[Mapping[str, torch.Tensor]], weight_scope: str = "final"):
    """Mean cosine similarity of the sentence token before and after each layer; high = the layer contributes little.

    model: an encoder in evaluation mode, of n_layers layers. batches: `input_ids` and `attention_mask` (batch, tokens),
    and what else the model takes. Returns n_layers floats in [-1, 1], the mean over all rows of all batches.
    """
    family = family_of(model.config)
    inputs, outputs = [], []

    def keep_input(module, arguments):
        inputs.append(arguments[0])

    def keep_output(module, arguments, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_pre_hook(keep_input) for layer in layer_list(model)]
    hooks += [layer.register_forward_hook(keep_output) for layer in layer_list(model)]
    total = torch.zeros(model.config.num_hidden_layers, dtype=torch.float64)
    rows = 0
    try:
        for batch in batches:
            batch = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
            with torch.inference_mode():
                model(**batch)
            token = _sentence_token(batch["attention_mask"], family.sentence_token)
            row = torch.arange(len(token), device=token.device)
            for i, (before, after) in enumerate(zip(inputs, outputs, strict=True)):
                if family.sequence_first:
                    before, after = before.transpose(0, 1), after.transpose(0, 1)
                similarity = torch.cosine_similarity(before[row, token].double(), after[row, token].double(), dim=-1)
                total[i] += similarity.sum().cpu()
            rows += len(token)
            inputs.clear()
            outputs.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return (total / rows).tolist()


def _sentence_token(attention_mask: torch.Tensor, position: int) -> torch.Tensor:
    """(batch,) positions of the token that the classifier reads: the first column, or the last non-padding one."""
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    if position == 0:
        return torch.zeros_like(attention_mask[:, 0])
    return (attention_mask * columns).argmax(dim=1)


def variance(model: PreTrainedModel, batches=None, weight_scope: str = "final") -> list[float]:
    """Variance of each layer's weights; low = dropped first. `weight_scope` as in layer_weights."""
    return [float(weights.var(correction=0)) for weights in layer_weights(model, weight_scope)]


def aggregation(model: PreTrainedModel, batches=None, weight_scope: str = "final") -> list[float]:
    """Mean magnitude of each layer's weights; low = dropped first. `weight_scope` as in layer_weights."""
    return [float(weights.abs().mean()) for weights in layer_weights(model, weight_scope)]


def layer_weights(model: PreTrainedModel, weight_scope: str) -> list[torch.Tensor]:
    """The weights of each layer as one vector in float64, id 0 first.

    `final`: the second feed-forward matrix; `layer`: all of the layer's matrices (no biases, no norms).
    """
    family = family_of(model.config)

    def weights(layer: torch.nn.Module) -> torch.Tensor:
        if weight_scope == "final":
            return layer.get_parameter(family.ffn_matrix).detach().flatten().double()
        return torch.cat([p.detach().flatten() for p in layer.parameters() if p.dim() > 1]).double()

    layers = list(layer_list(model))
    if family.shared:
        layers = layers[:1] * model.config.num_hidden_layers
    return [weights(layer) for layer in layers]


SCORERS = {
    row.name: row
    for row in (
        Scorer("contribution", contribution, needs_data=True),
        Scorer("variance", variance),
        Scorer("aggregation", aggregation),
    )
}
WEIGHT_SCOPES = ("final", "layer")
