#!/usr/bin/env python
"""Attention with a mask on a GPU, with cuDNN and without: milliseconds of the first and of later calls of each length.

    python benchmarks/attention.py

BERT-base's heads (12 of 64), batch 32, bf16. Forward alone, then forward and backward with dropout.
"""

import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

LENGTHS = (16, 24, 40, 56, 72, 96)
"""Tokens."""
REPEATS = 10


def milliseconds(length: int, train: bool, calls: int) -> float:
    """Of one call, a mean."""
    states = [torch.randn(32, 12, length, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    query, key, value = (tensor.requires_grad_(train) for tensor in states)
    mask = torch.ones(32, 1, length, length, dtype=torch.bool, device="cuda")
    mask[0, :, :, 9:] = False
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        output = scaled_dot_product_attention(query, key, value, mask, 0.1 if train else 0.0)
        if train:
            output.sum().backward()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / calls


def main() -> int:
    """Measure and print."""
    if not torch.cuda.is_available():
        print("error: no GPU: this compares kernels of a GPU.", file=sys.stderr)
        return 2
    for train in (False, True):
        for cudnn in (True, False):
            torch.backends.cuda.enable_cudnn_sdp(cudnn)
            print(f"{'with' if cudnn else 'without'} cuDNN, {'forward and backward' if train else 'forward'}")
            for length in LENGTHS:
                first, later = (milliseconds(length, train, calls) for calls in (1, REPEATS))
                print(f"  {length:3} tokens: first {first:8.2f}, later {later:6.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
