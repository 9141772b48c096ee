"""Training steps without synchronisation between host and GPU.

The host queues operations and runs ahead of the GPU. Reading a value, or a blocking copy of a batch, makes the host
wait until the queue is empty; then the GPU idles. The library synchronises seven times a step: to copy each tensor of
the batch, to learn whether the batch has padding, and to learn whether the loss is finite (`logging_nan_inf_filter`).

cuDNN's attention makes the host wait too: a tenth of a second for each new length of a batch, seconds for the first.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel, TrainingArguments
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION, EAGER = "sdpa_masked", "eager_masked"


def _always_a_mask(*args, **kwargs) -> torch.Tensor:
    """The library's mask for sdpa, also for a batch without padding: finding that out synchronises."""
    return sdpa_mask(*args, **kwargs | {"allow_is_bidirectional_skip": False})


def _additive_mask(*args, dtype: torch.dtype = torch.float32, **kwargs) -> torch.Tensor:
    """The library's mask for eager attention, filled in on the device: the library copies a zero to it."""
    mask = _always_a_mask(*args, **kwargs)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


AttentionInterface.register(ATTENTION, sdpa_attention_forward)
AttentionMaskInterface.register(ATTENTION, _always_a_mask)
AttentionMaskInterface.register(EAGER, _additive_mask)


@contextmanager
def _buckets_on_device(model: PreTrainedModel) -> Iterator[None]:
    """Compute MPNet's buckets of relative positions once for each length: some versions of the library compute them on
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
    """Make attention masks without reading a value: for the library's sdpa attention, or for a model that has eager
    attention alone."""
    attention = model.config._attn_implementation
    if attention == "sdpa":
        model.set_attn_implementation(ATTENTION)
    elif attention == "eager" and not model._supports_sdpa:
        model.config._attn_implementation = EAGER  # of the mask alone
    try:
        yield
    finally:
        if attention == "sdpa":
            model.set_attn_implementation(attention)
        else:
            model.config._attn_implementation = attention


@contextmanager
def _without_cudnn_attention() -> Iterator[None]:
    enabled = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(enabled)


@contextmanager
def _asynchronous_copies(args: TrainingArguments) -> Iterator[None]:
    """Copy pinned batches asynchronously; from other memory a copy blocks anyway."""
    config = args.accelerator_config
    before, config.non_blocking = config.non_blocking, args.dataloader_pin_memory
    try:
        yield
    finally:
        config.non_blocking = before


@contextmanager
def no_sync(model: PreTrainedModel, args: TrainingArguments) -> Iterator[None]:
    """Read no value during a model's forward pass, leave cuDNN's attention out, and copy batches asynchronously.
    Undone on exit.

    A Trainer reads `args.accelerator_config` when it is made: make it inside.
    """
    with _masks_on_device(model), _buckets_on_device(model), _without_cudnn_attention(), _asynchronous_copies(args):
        yield
