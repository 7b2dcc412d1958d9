"""Precision of matrix products in training: bfloat16 where the processor supports it."""

import functools

import torch

_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # torch's names; the last is Arm's


@functools.cache
def has_bfloat16() -> bool:
    """Check for bfloat16 products in hardware. A processor with AVX2 alone emulates them, much slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _BFLOAT16)


def reduced_dtype() -> torch.dtype:
    """Return the dtype for matrix products that need not be exact: bfloat16, or float32 if bfloat16 would be emulated."""
    return torch.bfloat16 if has_bfloat16() else torch.float32


def reduced_precision() -> torch.autocast:
    """Return a context manager in which matrix products use `reduced_dtype()`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())
