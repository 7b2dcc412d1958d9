"""Fusion of gated MLPs: which nodes become one operator, and which stay as they are."""

import numpy as np
import onnx_ir as ir
import pytest

from moembed.export.functions import DOMAIN
from moembed.quantize.fuse import fuse

FLOAT, UINT8 = ir.DataType.FLOAT, ir.DataType.UINT8


def _value(name, kind=FLOAT):
    return ir.Value(name=name, shape=ir.Shape([None, 16]), type=ir.TensorType(kind))


def _node(op, inputs, outputs, **attributes):
    node = ir.node(op, inputs, attributes, domain=DOMAIN, num_outputs=len(outputs), name=outputs[0])
    for value, name in zip(node.outputs, outputs, strict=True):
        value.name = name
    return node


def _model(op="GeluMulQuantize", *, other_rows=False, zero_point=128, outputs=("y",)):
    """A gated MLP with a norm behind it; each argument changes what fusion looks at."""
    rows, other = ([_value("q", UINT8), _value("s")], [_value("q2", UINT8), _value("s2")])
    layers = {
        name: [_value(f"{name}_{part}") for part in ("weight", "scale", "bias")] for name in ("up", "gate", "down")
    }
    norm = [_value(name) for name in ("residual", "gamma", "beta", "smooth")]
    up = _node("Int8Linear", [*rows, *layers["up"]], ["up"], zero_point=128)
    gate = _node("Int8Linear", [*(other if other_rows else rows), *layers["gate"]], ["gate"], zero_point=zero_point)
    product = _node(op, [gate.outputs[0], up.outputs[0]], ["product", "product_scale"])
    down = _node("Int8Linear", [*product.outputs, *layers["down"]], ["down"], zero_point=128)
    last = _node("AddNormQuantize", [down.outputs[0], *norm], ["y", "y_quantized", "y_scale"], epsilon=1e-5)
    nodes = [up, gate, product, down, last]
    named = {value.name: value for node in nodes for value in node.outputs}
    inputs = [*rows, *other, *norm, *(value for layer in layers.values() for value in layer)]
    graph = ir.Graph(inputs, [named[name] for name in outputs], nodes=nodes, name="gated", opset_imports={"": 23})
    return ir.Model(graph, ir_version=10)


def _ops(model):
    fuse(model, integer_attention=True)
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("activation", ["Gelu", "Silu"])
def test_a_gated_mlp_and_its_norm_become_one_operator(activation):
    model = _model(f"{activation}MulQuantize")
    assert _ops(model) == [f"Int8{activation}MulFeedForwardNorm"]
    (node,) = model.graph
    expected = (
        "q s up_weight up_scale up_bias gate_weight gate_scale gate_bias down_weight down_scale down_bias residual"
    )
    assert [value.name for value in node.inputs] == [*expected.split(), "gamma", "beta", "smooth"]
    assert [value.name for value in node.outputs] == ["y", "y_quantized", "y_scale"]
    assert np.isclose(node.attributes["epsilon"].as_float(), 1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"other_rows": True},
        {"zero_point": 32},
        {"outputs": ("y", "gate")},
        {"outputs": ("y", "up")},
        {"outputs": ("y", "product")},
    ],
    ids=str,
)
def test_what_something_else_needs_stays(changed):
    assert _ops(_model(**changed)) == ["Int8Linear", "Int8Linear", "GeluMulQuantize", "Int8LinearNorm"]


def test_a_norm_beside_a_result_that_is_read_elsewhere():
    assert _ops(_model(outputs=("y", "down"))) == ["Int8GeluMulFeedForward", "AddNormQuantize"]
