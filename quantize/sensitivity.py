"""Sensitivity of a model's vectors to the quantized input of one linear layer, with everything else exact.

The error of the layer's output alone says little: what counts is its effect through the later layers. So every linear layer gets
a switch in a copy of the graph, and the texts run once per layer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from moembed.export.functions import DOMAIN, HEADER
from moembed.inference.batching import pad
from moembed.tokenizer.tokenizer import Ids
from moembed.verify.parity import open_session

Factors = dict[str, NDArray[np.float32]]
# x [T,K], factors [K], on: 1 for x quantized and dequantized, 0 for x itself -> [T,K]; range and least as in
# moembed.quantize.functions
_FAKE_QUANTIZE = """
FakeQuantize <range, least> (x, factors, on) => (y)
{
    axis1 = Constant <value_ints = [1]> ()
    smoothed = Mul (x, factors)
    abs = Abs (smoothed)
    top = ReduceMax <keepdims = 1> (abs, axis1)
    most = Constant <value_float: float = @range> ()
    fair = Div (top, most)
    floor = Constant <value_float: float = @least> ()
    scale = Max (fair, floor)
    scaled = Div (smoothed, scale)
    quantized = Round (scaled)
    rounded = Mul (quantized, scale)
    back = Div (rounded, factors)
    error = Sub (back, x)
    part = Mul (error, on)
    y = Add (x, part)
}
"""
_SYMMETRIC: dict[str, Any] = {"range": 127.0, "least": 1.17549435e-38}
_GELU: dict[str, Any] = {"range": 223.0, "least": 0.17 / 32}


def sensitivities(graph: Path, factors: Factors, texts: Sequence[Ids]) -> dict[str, float]:
    """Measure every linear layer outside the experts.

    Args:
        graph: an fp32 bundle's ONNX file.
        factors: name of a norm's output -> its smoothing factors, `[hidden]`.
        texts: token ids, special tokens included.

    Returns:
        Name of the layer's weight -> mean of 1 - cosine between the vectors of the exact model and of the model in which only
        this layer has quantized inputs.
    """
    model = onnx.load(graph, load_external_data=False)
    weights = _add_switches(model, factors)
    session = open_session(model, graph.parent, [])
    batches = [pad([text], 1) for text in texts]

    def vectors(layer: int | None) -> np.ndarray:
        on = {f"on.{i}": np.array([i == layer], np.float32) for i in range(len(weights))}
        runs = [
            session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask, **on})[0]
            for ids, mask in batches
        ]
        return np.concatenate(runs).astype(np.float64)

    exact = vectors(None)
    return {weight: float(1 - (vectors(i) * exact).sum(axis=1).mean()) for i, weight in enumerate(weights)}


def _add_switches(model: onnx.ModelProto, factors: Factors) -> list[str]:
    """Put a switch in front of every Gemm; return the names of their weights in the order of the inputs `on.0`, ..."""
    weights: list[str] = []
    nodes = list(model.graph.node)
    gelus = {node.output[0] for node in nodes if node.op_type == "Gelu"}
    widths = {value.name: value.dims[1] for value in model.graph.initializer if len(value.dims) == 2}
    del model.graph.node[:]
    for node in nodes:
        if node.op_type == "Gemm":
            x, weight, on = node.input[0], node.input[1], f"on.{len(weights)}"
            vector = factors.get(x, np.ones(widths[weight], np.float32))
            model.graph.initializer.append(numpy_helper.from_array(vector, f"{weight}.factors"))
            model.graph.input.append(onnx.helper.make_tensor_value_info(on, onnx.TensorProto.FLOAT, [1]))
            kind = _GELU if x in gelus else _SYMMETRIC
            inputs, node.input[0] = [x, f"{weight}.factors", on], f"{weight}.quantized"
            model.graph.node.append(
                onnx.helper.make_node("FakeQuantize", inputs, [node.input[0]], domain=DOMAIN, **kind)
            )
            weights.append(weight)
        model.graph.node.append(node)
    model.functions.append(parser.parse_function(HEADER + _FAKE_QUANTIZE))
    return weights
