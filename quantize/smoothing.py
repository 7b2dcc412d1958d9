"""Factors that move the outliers of a norm's output into the weights that read it (SmoothQuant, arXiv 2211.10438).

A product reads `x * factors` instead of `x`, and weights that were divided by them. One scale serves a whole token row, so a
channel that is much larger than the others costs all of them resolution. (Outputs of a GELU have such channels too, but there the
weights lose more than the quantized values gain.)
"""

import math
from decimal import Decimal, localcontext

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from moembed.models.roles import Kind, role
from moembed.quantize.piece import initializer_array
from moembed.quantize.recipe import Recipe

_FLOOR = np.float32(1e-4)  # keeps a channel that is almost always zero from being scaled up
_DIGITS = 25  # more than enough for the nearest float64


def smoothed_readers(value: ir.Value) -> list[ir.Value]:
    """Return the weights whose products read a norm's output, all of one strength; empty for an output that stays float32."""
    return [
        weight
        for use in value.uses()
        if use.node.op_type in ("Gemm", "Experts")
        for weight in use.node.inputs
        if weight is not None and (found := role(weight.name)) is not None and found.kind in _ATTENTION | _FFN
    ]


def smoothing_factors(x: NDArray[np.float32], readers: list[ir.Value], recipe: Recipe) -> NDArray[np.float32]:
    """Compute the factors of one norm's output.

    Args:
        x: `[T, hidden]`, the output over the calibration texts.
        readers: from `smoothed_readers`.
        recipe: gives the strength of smoothing by the kind of the weights.

    Returns:
        `[hidden]`, of mean divisor 1.
    """
    found = role(readers[0].name)
    strength = recipe.smoothing.attention if found is not None and found.kind in _ATTENTION else recipe.smoothing.ffn
    largest_w = np.max([np.abs(initializer_array(weight)).max(axis=0) for weight in readers], axis=0)
    divisor = _power(np.maximum(np.abs(x).max(axis=0), _FLOOR), strength)
    divisor /= _power(np.maximum(largest_w, _FLOOR), 1 - strength)
    return (math.fsum(divisor) / len(divisor) / divisor).astype(np.float32)


def _power(values: NDArray[np.float32], exponent: float) -> NDArray[np.float64]:
    """Raise values to a power, correctly rounded: the powers of maths libraries differ in their last bit."""
    with localcontext(prec=_DIGITS):
        return np.array([float(Decimal(value) ** Decimal(exponent)) for value in values.tolist()])


_ATTENTION = {Kind.QKV, Kind.PROJECTION}
_FFN = {Kind.FC1, Kind.FC11, Kind.FC12, Kind.EXPERTS_W1}
