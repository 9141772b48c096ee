"""Precision of a forward pass: fp32, bf16 or fp16 in the encoder, always fp32 in the classification head."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from layerdrop.errors import UserError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

FP32_ONLY = ("deberta",)
"""Model types that the library cannot compute under autocast. DeBERTa masks attention scores with the lowest number of
fp32, which overflows in 16 bits."""


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context for forward passes in a precision. No effect for `fp32`."""
    return torch.autocast(device.type, DTYPES.get(precision), enabled=precision in DTYPES)


def check_precision(precision: str, config: PreTrainedConfig) -> None:
    """Raise UserError if the library cannot compute a model in this precision."""
    if precision in DTYPES and config.model_type in FP32_ONLY:
        auto = " (given, or chosen by auto)" * (precision == "bf16")
        raise UserError(
            f"--precision {precision}{auto}: the library computes {config.model_type} only in fp32. "
            "Add --precision fp32."
        )


@contextmanager
def head_in_fp32(model: PreTrainedModel) -> Iterator[None]:
    """Compute the classification head and the logits in fp32 under autocast; undone on exit.

    A bf16 logit has 8 bits of precision: fewer than a third of 1,379 regression values would be distinct.
    """
    heads = [child for name, child in model.named_children() if name != model.base_model_prefix]
    before = [vars(head).get("forward") for head in heads]
    for head in heads:
        head.forward = _in_fp32(head.forward)
    try:
        yield
    finally:
        for head, forward in zip(heads, before, strict=True):
            del head.forward
            if forward is not None:
                head.forward = forward


def _in_fp32(forward: Callable) -> Callable:
    def in_fp32(*args: Any, **kwargs: Any) -> Any:
        device = next((value.device.type for value in (*args, *kwargs.values()) if torch.is_tensor(value)), "cpu")
        with torch.autocast(device, enabled=False):
            return forward(*map(_to_fp32, args), **{name: _to_fp32(value) for name, value in kwargs.items()})

    return in_fp32


def _to_fp32(value: Any) -> Any:
    return value.float() if torch.is_tensor(value) and value.is_floating_point() else value
