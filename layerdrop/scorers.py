"""A score for each layer, and the table of the scorers' names.

Source: Sajjad et al. (2023), Section 3 (contribution) and Section 5.1 (weights).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from layerdrop.architectures import family_of
from layerdrop.states import layer_states, sentence_tokens
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
    total = torch.zeros(model.config.num_hidden_layers, dtype=torch.float64)
    rows = 0
    for batch in batches:
        states, mask = layer_states(model, batch), batch["attention_mask"].to(model.device)
        token, row = sentence_tokens(model, mask), torch.arange(len(mask), device=mask.device)
        for i, (before, after) in enumerate(zip(states.inputs, states.outputs, strict=True)):
            similarity = torch.cosine_similarity(before[row, token].double(), after[row, token].double(), dim=-1)
            total[i] += similarity.sum().cpu()
        rows += len(token)
    return (total / rows).tolist()


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
