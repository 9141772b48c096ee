"""What makes training on a CPU faster: cheaper dropout, memory that is kept instead of given back.

PyTorch draws one random number for each element of a dropout mask, one after the other: on two cores a quarter of a
training step. Here each draw of 64 bits serves four elements. The probability is exact to 1/65536, the distribution the
same, the draws (from torch's generator as ever) others than nn.Dropout's for the same seed. On a GPU, and in
evaluation, nothing is different.
"""

import ctypes

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_fast_dropout"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free for the next ones: the kernel would clear every page of it each time.

    Has an effect with glibc alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """x with each element zero with probability p, else divided by 1 - p; in x's shape and type."""
    n = x.numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[:n].view(x.shape)
    noise = torch.empty_like(x, memory_format=torch.contiguous_format)
    torch.ge(bits, round(p * 2**16) - 2**15, out=noise)
    return x * noise.div_(1 - p)


class Dropout(nn.Dropout):
    """nn.Dropout with the draws above."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(any shape) -> the same shape."""
        if not self.training or not 0 < self.p < 1 or x.device.type != "cpu":
            return super().forward(x)
        return dropout(x, self.p)


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
    """The library's sdpa attention; with dropout on a CPU, where PyTorch has no kernel for it, its formula.

    query, key, value: (batch, heads, tokens, size); attention_mask: None, or (batch, 1, 1 or tokens, tokens), boolean
    (True: attend) or additive. Returns (batch, tokens, heads, size).
    """
    other = not dropout or query.device.type != "cpu" or key.shape[1] != query.shape[1]
    other = other or (attention_mask is None and getattr(module, "is_causal", True))
    if other or any(kwargs.get(name) is not None for name in ("is_causal", "position_bias", "cache", "softcap")):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    size = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    with torch.autocast("cpu", enabled=False):
        query, key, value = (tensor.to(size) for tensor in (query, key, value))
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = query @ key.transpose(-1, -2)
        if attention_mask is None:
            scores = scores * scale
        else:
            bias = attention_mask
            if bias.dtype == torch.bool:
                bias = torch.zeros(bias.shape, dtype=size).masked_fill_(~bias, torch.finfo(size).min)
            scores = torch.add(bias.to(size), scores, alpha=scale)
        weights = _dropout(scores.softmax(-1, _softmax_dtype(scores)).to(size), dropout)
        return (weights @ value).transpose(1, 2).contiguous(), None


def _softmax_dtype(scores: torch.Tensor) -> torch.dtype | None:
    """PyTorch's kernel works element by element on rows that do not fill a vector: of 32 in bf16, of 16 in fp32."""
    return torch.float32 if scores.dtype == torch.bfloat16 and 16 <= scores.shape[-1] < 32 else None


_dropout = dropout
AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def use_fast_dropout(model: PreTrainedModel) -> None:
    """Let a model draw its dropout as above, where it is nn.Dropout's or its attention is the library's sdpa."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)


def has_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AVX-512 BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
