"""Training steps without synchronization between host and GPU.

The host queues operations and runs ahead of the GPU. Reading a value, or a blocking copy of a batch, makes the host
wait until the queue is empty. Then the GPU is idle. The library synchronizes seven times a step: to copy each
tensor of the batch, to check for padding, and to check that the loss is finite (`logging_nan_inf_filter`).

cuDNN's attention also makes the host wait: a tenth of a second for each new batch length, and seconds for
the first length.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel, TrainingArguments
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION, EAGER = "sdpa_masked", "eager_masked"
KERNELS = [kernel for kernel in SDPBackend.__members__.values() if kernel.name not in ("ERROR", "CUDNN_ATTENTION")]
"""Kernels of sdpa attention, without cuDNN's."""


def _always_a_mask(*args, **kwargs) -> torch.Tensor:
    """The library's mask for sdpa, also for a batch without padding. A check for padding would synchronize."""
    return sdpa_mask(*args, **kwargs | {"allow_is_bidirectional_skip": False})


def _additive_mask(*args, dtype: torch.dtype = torch.float32, **kwargs) -> torch.Tensor:
    """The library's mask for eager attention, made on the device. The library's version copies a zero to the device."""
    mask = _always_a_mask(*args, **kwargs)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


AttentionInterface.register(ATTENTION, sdpa_attention_forward)
AttentionMaskInterface.register(ATTENTION, _always_a_mask)
AttentionMaskInterface.register(EAGER, _additive_mask)


@contextmanager
def _buckets_on_device(model: PreTrainedModel) -> Iterator[None]:
    """Compute MPNet's buckets of relative positions once for each length. Some versions of the library compute them on
    the host at every step."""
    encoder = getattr(model.base_model, "encoder", None)
    buckets_of = getattr(encoder, "relative_position_bucket", None)
    if buckets_of is None:
        yield
        return
    computed: dict[int, torch.Tensor] = {}

    def buckets(positions: torch.Tensor, **kwargs) -> torch.Tensor:
        length = positions.shape[-1]
        if length not in computed:
            computed[length] = buckets_of(positions, **kwargs).to(model.device)
        return computed[length]

    encoder.relative_position_bucket = buckets
    try:
        yield
    finally:
        del encoder.relative_position_bucket


@contextmanager
def _masks_on_device(model: PreTrainedModel) -> Iterator[None]:
    """Make attention masks without reading a value: for sdpa attention, or for a model with eager attention only."""
    attention = model.config._attn_implementation
    if attention == "sdpa":
        model.set_attn_implementation(ATTENTION)
    elif attention == "eager" and not model._supports_sdpa:
        model.config._attn_implementation = EAGER  # changes the mask only
    try:
        yield
    finally:
        if attention == "sdpa":
            model.set_attn_implementation(attention)
        else:
            model.config._attn_implementation = attention


@contextmanager
def _asynchronous_copies(args: TrainingArguments) -> Iterator[None]:
    """Copy pinned batches asynchronously. Copies from memory that is not pinned always block."""
    config = args.accelerator_config
    before, config.non_blocking = config.non_blocking, args.dataloader_pin_memory
    try:
        yield
    finally:
        config.non_blocking = before


@contextmanager
def no_sync(model: PreTrainedModel, args: TrainingArguments) -> Iterator[None]:
    """Read no value in a forward pass, do not use cuDNN's attention, copy batches asynchronously; undone on exit.

    Create the Trainer inside the block: its constructor reads `args.accelerator_config`.
    """
    with _masks_on_device(model), _buckets_on_device(model), sdpa_kernel(KERNELS), _asynchronous_copies(args):
        yield
