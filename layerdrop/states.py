"""The hidden states before and after every layer, for scores, analyses and distillation."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from .architectures import family_of
from .surgery import layer_list, without

LayerOutput = torch.Tensor | tuple[Any, ...]
"""Output of a layer: hidden states (batch, tokens, hidden size), or a tuple that begins with them."""


@dataclass(frozen=True)
class States:
    """Hidden states of one batch before and after each layer, id 0 first.

    Each list has n_layers tensors (batch, tokens, hidden). A layer's input can differ from the output of the
    layer before: DeBERTa can have a convolution between them.
    """

    inputs: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)


@contextmanager
def record_outputs(model: PreTrainedModel) -> Iterator[list[LayerOutput]]:
    """Collect the output of each layer, as the layer returns it, of the forward pass inside the block, id 0 first."""
    outputs: list[LayerOutput] = []
    hooks = [layer.register_forward_hook(lambda _, args, output: outputs.append(output)) for layer in layer_list(model)]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


class _Stored:
    """The `forward` of layers inside `replay`: each call returns the next output."""

    def __init__(self, outputs: Sequence[LayerOutput]):
        self.outputs = iter(outputs)

    def __call__(self, *args: Any, **kwargs: Any) -> LayerOutput:
        return next(self.outputs)


def is_replaying(model: PreTrainedModel) -> bool:
    """Whether the model is inside `replay`, so that its layers compute nothing."""
    return isinstance(vars(layer_list(model)[-1]).get("forward"), _Stored)


@contextmanager
def replay(model: PreTrainedModel, outputs: Sequence[LayerOutput]) -> Iterator[PreTrainedModel]:
    """Inside the block, the model has only its first `len(outputs)` layers, which return `outputs`.

    Allows one forward pass, on the inputs that gave these outputs. The pass computes the pooler and the head. Its
    result equals the result of the model with these layers alone.
    outputs: the first items of the list from `record_outputs`.
    """
    config, stored = model.config, _Stored(outputs)
    with without(model, range(len(outputs), config.num_hidden_layers)):
        patched = [(layer, vars(layer).get("forward")) for layer in layer_list(model)]
        for layer, _ in patched:
            layer.forward = stored
        try:
            yield model
        finally:
            for layer, own in patched:
                del layer.forward
                if own is not None:
                    layer.forward = own


@contextmanager
def record_states(model: PreTrainedModel, tokens: int) -> Iterator[States]:
    """Record the hidden states of the forward pass inside the block, not detached. tokens: length of the batch."""
    states, sequence_first = States(), family_of(model.config).sequence_first

    def batch_states(output: LayerOutput) -> torch.Tensor:
        hidden: torch.Tensor = output[0] if isinstance(output, tuple) else output
        hidden = hidden.transpose(0, 1) if sequence_first else hidden
        return hidden[:, :tokens]  # Longformer pads to whole windows

    hooks = []
    for layer in layer_list(model):
        hooks.append(layer.register_forward_pre_hook(lambda _, args: states.inputs.append(batch_states(args))))
        hooks.append(layer.register_forward_hook(lambda _, args, output: states.outputs.append(batch_states(output))))
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def layer_states(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> States:
    """Compute the hidden states of a batch on the model's device, without gradients. Labels in the batch are ignored.

    Set the model to evaluation mode before the call.
    """
    with torch.inference_mode(), record_states(model, batch["input_ids"].shape[1]) as states:
        model(**{name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"})
    return states


def sentence_tokens(model: PreTrainedModel, attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions (batch,) of the token that the classifier reads: the first token, or the last non-padding token.

    attention_mask: (batch, tokens).
    """
    if family_of(model.config).sentence_token == 0:
        return torch.zeros_like(attention_mask[:, 0])
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (attention_mask * columns).argmax(dim=1)
