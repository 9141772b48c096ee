"""Scores from the weights alone (Sajjad et al. 2023, Section 5.1). weight_scope: see `layer_weights`."""

import torch
from transformers import PreTrainedModel

from layerdrop.architectures import family_of
from layerdrop.surgery import layer_list


def variance(model: PreTrainedModel, weight_scope: str = "final") -> list[float]:
    """Variance of each layer's weights."""
    return [float(weights.var(correction=0)) for weights in layer_weights(model, weight_scope)]


def aggregation(model: PreTrainedModel, weight_scope: str = "final") -> list[float]:
    """Mean magnitude of each layer's weights."""
    return [float(weights.abs().mean()) for weights in layer_weights(model, weight_scope)]


def layer_weights(model: PreTrainedModel, weight_scope: str) -> list[torch.Tensor]:
    """The weights of each layer as one vector in float64, id 0 first.

    weight_scope: `final` for the second feed-forward matrix; `layer` for all matrices, without biases and norms.
    """
    if weight_scope == "final":
        matrix = family_of(model.config).ffn_matrix
        return [layer.get_parameter(matrix).detach().flatten().double() for layer in each_layer(model)]
    matrices = [[p.detach().flatten() for p in layer.parameters() if p.dim() > 1] for layer in each_layer(model)]
    return [torch.cat(of_layer).double() for of_layer in matrices]


def each_layer(model: PreTrainedModel) -> list[torch.nn.Module]:
    """One module for each layer, id 0 first. ALBERT: the shared module for every layer."""
    layers = list(layer_list(model))
    return layers[:1] * model.config.num_hidden_layers if family_of(model.config).shared else layers
