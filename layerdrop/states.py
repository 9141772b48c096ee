"""The hidden states of every layer of a model, next to the layer itself: what scores and analyses look at."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from layerdrop.architectures import family_of
from layerdrop.surgery import layer_list


@dataclass(frozen=True)
class States:
    """Hidden states of one batch, before and after each layer, id 0 first: n_layers tensors (batch, tokens, hidden)
    each. (A layer's input is not always the output of the one before: DeBERTa can have a convolution in between.)"""

    inputs: list[torch.Tensor]
    outputs: list[torch.Tensor]


def layer_states(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> States:
    """The states of a batch, on the model's device, without gradients; labels in the batch are ignored.

    The model's training mode is left as it is: call it in evaluation mode.
    """
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    layers, sequence_first = layer_list(model), family_of(model.config).sequence_first
    tokens = batch["input_ids"].shape[1]

    def of_batch(states) -> torch.Tensor:
        states = states[0] if isinstance(states, tuple) else states
        states = states.transpose(0, 1) if sequence_first else states
        return states[:, :tokens]  # Longformer pads to whole windows

    hooks = [layer.register_forward_pre_hook(lambda _, args: inputs.append(of_batch(args))) for layer in layers]
    hooks += [layer.register_forward_hook(lambda _, args, output: outputs.append(of_batch(output))) for layer in layers]
    try:
        with torch.inference_mode():
            model(**{name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"})
    finally:
        for hook in hooks:
            hook.remove()
    return States(inputs, outputs)


def sentence_tokens(model: PreTrainedModel, attention_mask: torch.Tensor) -> torch.Tensor:
    """(batch,) positions of the token that the model's classifier reads: the first column, or the last that is not
    padding. attention_mask: (batch, tokens)."""
    if family_of(model.config).sentence_token == 0:
        return torch.zeros_like(attention_mask[:, 0])
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (attention_mask * columns).argmax(dim=1)
