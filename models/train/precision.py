"""The arithmetic of training: matrix products in bfloat16, where the processor has them."""

import functools

import torch

_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # torch's names; the last is Arm's


@functools.cache
def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16. One with AVX2 alone emulates it, much slower than float32."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in _BFLOAT16)


def reduced_dtype() -> torch.dtype:
    """The type of factors of matrix products that need not be exact: bfloat16, or float32 if that would be emulated."""
    return torch.bfloat16 if has_bfloat16() else torch.float32


def reduced() -> torch.autocast:
    """A context for matrix products with factors of that type."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())
