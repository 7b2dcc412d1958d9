"""Products of matrices with the same bytes on every machine.

A BLAS library adds up a product's terms in an order, and with fused operations, that depend on the processor, the number of
threads and the library's version. Where all terms are integers times one power of two and every sum of integers is below 2^53,
a float64 holds each partial sum exactly, and the order no longer matters.
"""

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
_TERMS = 512  # of an exact sum
_BITS = 22  # of an operand's integers, without the sign: 512 * (2^22)^2 = 2^53


def fixed_point(values: Matrix, largest: float | None = None) -> Matrix:
    """Round values to integers of at most 22 bits times a power of two.

    Args:
        values: of any shape.
        largest: no magnitude is above it; None for the largest that there is.
    """
    if largest is None:
        largest = float(np.abs(values).max(initial=0.0))
    step = math.ldexp(1.0, math.frexp(largest)[1] - _BITS)
    return np.rint(values * (1 / step)) * step


def exact_product(a: Matrix, b: Matrix) -> Matrix:
    """Multiply `[M, K]` by `[K, N]`, both from `fixed_point`."""
    product = a[:, :_TERMS] @ b[:_TERMS]
    for start in range(_TERMS, len(b), _TERMS):
        product += a[:, start : start + _TERMS] @ b[start : start + _TERMS]
    return product
