"""What makes training on a CPU faster and smaller: cheaper dropout, attention that keeps less, memory that is reused.

PyTorch draws one random number for each element of a dropout mask, one after the other: on two cores an eighth of a
training step in bf16. Here each draw of 64 bits serves four elements. The probability is exact to 1/65536, the
distribution the same, the draws (from torch's generator as ever) others than nn.Dropout's for the same seed. On a GPU,
and in evaluation, dropout and attention are the library's.
"""

import ctypes
import os
import sys

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "sdpa_fast_dropout"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free for the next ones: the kernel would clear every page of it each time.

    And let PyTorch keep fewer descriptions of bf16 products (before the first one of the process): a quarter of a
    megabyte for each shape, in the midst of the memory that tensors share. oneDNN keeps its kernels all the same. Has
    an effect with glibc and oneDNN alone.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # all that older versions allow
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """x with each element zero with probability p, else divided by 1 - p; in x's shape and type."""
    return x * _keep_mask(x, p).div_(1 - p)


def _keep_mask(x: torch.Tensor, p: float) -> torch.Tensor:
    """In x's shape and type: 0 with probability p, else 1."""
    n = x.numel()
    words = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[:n].view(x.shape)
    return torch.ge(bits, round(p * 2**16) - 2**15, out=torch.empty_like(x, memory_format=torch.contiguous_format))


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
    other = not 0 < dropout < 1 or query.device.type != "cpu" or key.shape[1] != query.shape[1]
    other = other or (attention_mask is None and getattr(module, "is_causal", True))
    other = other or (attention_mask is not None and attention_mask.requires_grad)
    if other or any(kwargs.get(name) is not None for name in ("is_causal", "position_bias", "cache", "softcap")):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    bias = attention_mask
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros(bias.shape, dtype=dtype).masked_fill_(~bias, torch.finfo(dtype).min)
    with torch.autocast("cpu", enabled=False):
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
        output = _Attention.apply(query, key, value, _within(bias, dtype), scale, dropout)
    return output.transpose(1, 2).contiguous(), None


def _within(bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """In that type; the least number of a wider type would become minus infinity, and a row of it no number at all."""
    return None if bias is None else bias.clamp(min=torch.finfo(dtype).min).to(dtype)


class _Attention(torch.autograd.Function):
    """dropout(softmax(scale query key^T + bias)) value, of (batch, heads, tokens, size) each, in one type of number.

    bias: None, or (batch, 1, 1 or tokens, tokens), without a gradient; p: of dropout, above 0 and below 1.
    Of what is (tokens, tokens) in size the backward pass needs one tensor: the weights before dropout, with a minus
    sign where they are dropped. Autograd would keep three.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx, query, key, value, bias, scale, p):
        batch, heads, _, _ = query.shape
        query, key, value = (tensor.flatten(0, 1) for tensor in (query, key, value))
        scores = (query @ key.mT).unflatten(0, (batch, heads))
        scores = scores.mul_(scale) if bias is None else torch.add(bias, scores, alpha=scale, out=scores)
        weights = scores.softmax(-1, _softmax_dtype(scores)).to(scores.dtype)
        weights = weights.copysign_(_keep_mask(weights, p).sub_(0.5)).flatten(0, 1)
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale, ctx.p = scale, p
        return (weights.relu() @ value).div_(1 - p).unflatten(0, (batch, heads))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, gradient):
        query, key, value, weights = ctx.saved_tensors
        batch_and_heads = gradient.shape[:2]
        gradient = gradient.flatten(0, 1) / (1 - ctx.p)
        of_value = weights.relu().mT @ gradient
        of_weights = torch.ops.aten.threshold_backward(gradient @ value.mT, weights, 0)
        dtype = _softmax_dtype(weights) or weights.dtype
        of_scores = torch.ops.aten._softmax_backward_data(of_weights.to(dtype), weights.abs().to(dtype), -1, dtype)
        of_scores = of_scores.to(weights.dtype)
        gradients = (of_scores @ key).mul_(ctx.scale), (of_scores.mT @ query).mul_(ctx.scale), of_value
        return *(tensor.unflatten(0, batch_and_heads) for tensor in gradients), None, None, None


def _softmax_dtype(scores: torch.Tensor) -> torch.dtype | None:
    """fp32 for short rows of bf16 with a rest that fills no vector of 32: PyTorch's kernel does it element by element.

    In fp32 a vector has 16 and the rest costs less. Rows below 16 are done element by element in both; from 64 on the
    casts cost about what the rest does.
    """
    tokens = scores.shape[-1]
    return torch.float32 if scores.dtype == torch.bfloat16 and 16 <= tokens < 64 and tokens != 32 else None


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
