"""The arithmetic of training: matrix products in bfloat16, where the processor has them."""

import functools

import torch

_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # torch's names; the last is Arm's


@functools.cache
def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16. One with AVX2 alone emulates it, much slower than float32."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in _BFLOAT16)


def reduced() -> torch.autocast:
    """A context for matrix products with factors in bfloat16, or in float32 if this processor does not multiply it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16())
