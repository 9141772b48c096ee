"""Training steps without synchronisation between host and GPU.

The host queues operations and runs ahead of the GPU. Reading a value, or a blocking copy of a batch, makes the host
wait until the queue is empty; then the GPU idles. The library synchronises seven times a step: to copy each tensor of
the batch, to learn whether the batch has padding, and to learn whether the loss is finite (`logging_nan_inf_filter`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel, TrainingArguments
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_masked"


def _always_a_mask(*args, **kwargs) -> torch.Tensor | None:
    """The library's mask for sdpa, also for a batch without padding: finding that out synchronises."""
    return sdpa_mask(*args, **kwargs | {"allow_is_bidirectional_skip": False})


AttentionInterface.register(ATTENTION, sdpa_attention_forward)
AttentionMaskInterface.register(ATTENTION, _always_a_mask)


@contextmanager
def without_waiting(model: PreTrainedModel, args: TrainingArguments) -> Iterator[None]:
    """Read no value during a model's forward pass (library's sdpa attention only), and copy pinned batches
    asynchronously. Undone on exit.

    A Trainer reads `args.accelerator_config` when it is made: make it inside.
    """
    attention, copies = model.config._attn_implementation, args.accelerator_config.non_blocking
    if attention == "sdpa":
        model.set_attn_implementation(ATTENTION)
    args.accelerator_config.non_blocking = args.dataloader_pin_memory  # from other memory a copy blocks anyway
    try:
        yield
    finally:
        args.accelerator_config.non_blocking = copies
        if attention == "sdpa":
            model.set_attn_implementation(attention)
