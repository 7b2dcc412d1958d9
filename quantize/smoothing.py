"""Factors that move the outliers of a norm's output into the weights that read it (SmoothQuant, arXiv 2211.10438).

A product reads `x * factors` in place of `x`, and weights that were divided by them. One scale serves a whole token row, so a
channel that is much larger than the others takes resolution from all of them. (Outputs of a GELU have such channels too, but
there the weights lose more than the quantized values win.)
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from moembed.quantize.calibrate import Values
from moembed.quantize.recipe import Recipe

Factors = dict[str, NDArray[np.float32]]
_FLOOR = np.float32(1e-4)  # a channel that is all but silent is not blown up


def factors_of(model: ir.Model, recipe: Recipe, values: Values) -> Factors:
    """Factors for every norm whose output is quantized.

    Args:
        model: an fp32 model as `moembed.export` writes it.
        recipe: `attention_smoothing` is the strength in front of Wqkv and the projection, `ffn_smoothing` in front of fc1 and
            experts.
        values: what the model's products read, over some texts.

    Returns:
        Name of the norm's output -> `[hidden]` float32, of mean divisor 1.
    """
    factors: Factors = {}
    for node in model.graph:
        strength = recipe.ffn_smoothing
        if node.op_type == "Experts":
            matrices = node.inputs[4:]
            readers = matrices[: len(matrices) // 2]
        elif node.op_type == "Gemm":
            readers, weight = node.inputs[1:2], str(node.inputs[1].name)  # type: ignore[union-attr]
            if weight.endswith(("attn.Wqkv.weight", "projection.weight")):
                strength = recipe.attention_smoothing
            elif not weight.endswith("mlp.fc1.weight"):
                continue
        else:
            continue
        name = str(node.inputs[0].name)  # type: ignore[union-attr]
        factors[name] = _factors(values[name], [content_of(reader) for reader in readers], strength)
    return factors


def content_of(value: ir.Value | None) -> NDArray[np.float32]:
    """The array of an initializer."""
    if value is None or value.const_value is None:
        raise ValueError(f"{value and value.name} has no content")
    return np.asarray(value.const_value.numpy())


def _factors(x: NDArray[np.float32], readers: list[NDArray[np.float32]], strength: float) -> NDArray[np.float32]:
    largest_x = np.maximum(np.abs(x).max(axis=0), _FLOOR)
    largest_w = np.maximum(np.max([np.abs(w).max(axis=0) for w in readers], axis=0), _FLOOR)
    divisor = largest_x**strength / largest_w ** (1 - strength)
    return np.asarray(divisor.mean() / divisor, np.float32)
