"""Factors that move the outliers of a norm's output into the weights that read it (SmoothQuant, arXiv 2211.10438).

A product reads `x * factors` instead of `x`, and weights that were divided by them. One scale serves a whole token row, so a
channel that is much larger than the others costs all of them resolution. (Outputs of a GELU have such channels too, but there the
weights lose more than the quantized values gain.)
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from moembed.models.roles import Kind, role
from moembed.quantize.calibrate import Activations
from moembed.quantize.recipe import Recipe

Factors = dict[str, NDArray[np.float32]]
_FLOOR = np.float32(1e-4)  # keeps a channel that is almost always zero from being scaled up


def smoothing_factors(model: ir.Model, recipe: Recipe, activations: Activations) -> Factors:
    """Compute factors for every norm whose output is quantized.

    Args:
        model: an fp32 model as `moembed.export` writes it.
        recipe: gives the strength of smoothing by the kind of the weight that reads the norm's output.
        activations: inputs of the model's linear layers and experts over the calibration texts.

    Returns:
        Name of the norm's output -> `[hidden]` float32, of mean divisor 1.
    """
    strengths = {
        Kind.QKV: recipe.smoothing.attention,
        Kind.PROJECTION: recipe.smoothing.attention,
        Kind.FC1: recipe.smoothing.ffn,
        Kind.EXPERTS_W1: recipe.smoothing.ffn,
    }
    factors: Factors = {}
    for node in model.graph:
        if node.op_type not in ("Gemm", "Experts"):
            continue
        kinds = {value: found.kind for value in node.inputs if value is not None and (found := role(value.name))}
        readers = [value for value, kind in kinds.items() if kind in strengths]
        if readers:
            name = str(node.inputs[0].name)  # type: ignore[union-attr]
            arrays = [initializer_array(reader) for reader in readers]
            factors[name] = _factors(activations[name], arrays, strengths[kinds[readers[0]]])
    return factors


def initializer_array(value: ir.Value | None) -> NDArray[np.float32]:
    """Return the array of an initializer."""
    if value is None or value.const_value is None:
        raise ValueError(f"{value and value.name} is no initializer")
    return np.asarray(value.const_value.numpy())


def _factors(x: NDArray[np.float32], readers: list[NDArray[np.float32]], strength: float) -> NDArray[np.float32]:
    largest_x = np.maximum(np.abs(x).max(axis=0), _FLOOR)
    largest_w = np.maximum(np.max([np.abs(w).max(axis=0) for w in readers], axis=0), _FLOOR)
    divisor = largest_x**strength / largest_w ** (1 - strength)
    return np.asarray(divisor.mean() / divisor, np.float32)
