"""Cheaper dropout on CPUs, also inside attention.

PyTorch draws one random number for each element of a dropout mask, one after the other. These draws take an eighth of a
training step in bf16 on two cores. This module draws 64 bits from torch's generator for four elements. The probability
is exact to 1/65536. The distribution is the same as in nn.Dropout, but a seed gives other draws.

On other devices and in evaluation mode, the library's dropout and attention are used.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_cheap_dropout"


def drop(x: torch.Tensor, p: float) -> torch.Tensor:
    """Dropout of x, in x's shape and type: each element is 0 with probability p, else divided by 1 - p."""
    return x * _keep_mask(x, p).div_(1 - p)


def _keep_mask(x: torch.Tensor, p: float) -> torch.Tensor:
    """A mask in x's shape and type: 0 with probability p, else 1."""
    n = x.numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[:n].view(x.shape)
    return torch.ge(bits, round(p * 2**16) - 2**15, out=torch.empty_like(x, memory_format=torch.contiguous_format))


class Dropout(nn.Dropout):
    """nn.Dropout with this module's draws."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(any shape) -> the same shape."""
        if not self.training or not 0 < self.p < 1 or x.device.type != "cpu":
            return super().forward(x)
        return drop(x, self.p)


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """The library's sdpa attention. PyTorch has no CPU kernel for dropout in attention: this function computes the
    formula.

    query, key, value: (batch, heads, tokens, size); attention_mask: None, or (batch, 1, 1 or tokens, tokens), boolean
    (True: attend) or additive. Returns (batch, tokens, heads, size).
    """
    unsupported = not 0 < dropout < 1 or query.device.type != "cpu" or key.shape[1] != query.shape[1]
    unsupported = unsupported or (attention_mask is None and getattr(module, "is_causal", True))
    unsupported = unsupported or (attention_mask is not None and attention_mask.requires_grad)
    if unsupported or any(kwargs.get(name) is not None for name in ("is_causal", "position_bias", "cache", "softcap")):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast("cpu", enabled=False):
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
        scores = query @ key.mT
        if attention_mask is None:
            scores = scores * scale
        else:
            scores = torch.add(_additive(attention_mask, dtype), scores, alpha=scale)
        output = drop(scores.softmax(-1), dropout) @ value
    return output.transpose(1, 2).contiguous(), None


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Convert a mask to values that are added to scores of type `dtype`.

    Values are limited to the range of `dtype`: minus infinity would turn a fully masked row into NaN.
    """
    least = torch.finfo(dtype).min
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, least)
    return mask.clamp(min=least).to(dtype)


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


@contextmanager
def cheap_dropout(model: PreTrainedModel) -> Iterator[None]:
    """Use cheap dropout in every nn.Dropout of a model and in its sdpa attention; undone on exit."""
    dropouts = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if type(child) is nn.Dropout
    ]
    for module, name, child in dropouts:
        setattr(module, name, Dropout(child.p).train(child.training))
    attention = model.config._attn_implementation
    if attention == "sdpa":
        model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        for module, name, child in dropouts:
            setattr(module, name, child.train(getattr(module, name).training))
        if attention == "sdpa":
            model.set_attn_implementation(attention)
