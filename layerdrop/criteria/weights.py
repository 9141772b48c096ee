"""Scores from the weights alone (Sajjad et al. 2023, Section 5.1)."""

import torch
from transformers import PreTrainedModel

from layerdrop.architectures import family_of
from layerdrop.surgery import layer_list


def variance(model: PreTrainedModel, weight_scope: str = "final") -> list[float]:
    """Variance of each layer's weights; low = dropped first. `weight_scope` as in layer_weights."""
    return [float(weights.var(correction=0)) for weights in layer_weights(model, weight_scope)]


def aggregation(model: PreTrainedModel, weight_scope: str = "final") -> list[float]:
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
