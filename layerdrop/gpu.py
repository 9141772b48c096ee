"""Training steps that do not wait for the GPU.

The processor hands a GPU its work and goes on to the next piece; asking for a result, or copying a batch in a way that
waits, stops it until all that was handed over is done, and then the GPU has nothing to do. The library's recipe waits
seven times a step: for each tensor of the batch, for whether it has padding, and for whether the loss is finite.
"""

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel, TrainingArguments
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_masked"


def _always_a_mask(*args, **kwargs) -> torch.Tensor | None:
    """The library's mask for sdpa, also where nothing is padded: finding that out is what waits."""
    return sdpa_mask(*args, **kwargs | {"allow_is_bidirectional_skip": False})


AttentionInterface.register(ATTENTION, sdpa_attention_forward)
AttentionMaskInterface.register(ATTENTION, _always_a_mask)


def do_not_wait(model: PreTrainedModel, args: TrainingArguments) -> None:
    """Let the model ask for no value where its attention is the library's sdpa, and batches be copied on the side."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)
    args.accelerator_config.non_blocking = args.dataloader_pin_memory  # from other memory a copy waits in any case
