"""Fusion of neighbouring INT8 nodes into the operators that compute them at once."""

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from moembed.export.functions import DOMAIN
from moembed.export.graph import drop_unused, substitute
from moembed.quantize.function_parts import GELU_ZERO_POINT, SYMMETRIC_ZERO_POINT

# Operators that have a variant with a norm, and the number of their inputs before those of the norm.
_WITH_NORM = {
    "Int8Linear": 5,
    "Int8FeedForward": 8,
    "Int8GeluMulFeedForward": 11,
    "Int8SiluMulFeedForward": 11,
    "Int8Experts": 7,
}
# Quantized gated products -> the feed-forward networks that they are part of.
_GATED = {"GeluMulQuantize": "Int8GeluMulFeedForward", "SiluMulQuantize": "Int8SiluMulFeedForward"}


def finish(model: ir.Model, functions: Iterable[onnx.FunctionProto], *, integer_attention: bool) -> None:
    """Drop what nothing needs any more, fuse, and give the model the bodies of its operators; it is changed.

    Args:
        model: a quantized model.
        functions: bodies of operators, which replace those that the model has under the same name.
        integer_attention: see `fuse`.
    """
    drop_unused(model)  # first: float nodes that nothing needs any more still read values that are to be fused
    fuse(model, integer_attention=integer_attention)
    used = {node.op_type for node in model.graph}
    bodies = {function.name: function for function in model.functions.values() if function.name in used}
    bodies |= {proto.name: ir.serde.deserialize_function(proto) for proto in functions if proto.name in used}
    model.functions.clear()
    for body in bodies.values():
        model.functions[body.identifier()] = body


def fuse(model: ir.Model, *, integer_attention: bool) -> None:
    """Fuse the nodes of a quantized model in place.

    `Int8LinearGelu` and the `Int8Linear` that reads it become `Int8FeedForward`. So do `GeluMulQuantize` or `SiluMulQuantize`
    (`Int8GeluMulFeedForward`, `Int8SiluMulFeedForward`), with the two `Int8Linear` of the same rows before them. With
    `integer_attention`, `Int8Linear`, `Attention` and `Quantize` become `Int8Attention`. Then `AddNormQuantize` joins the
    `Int8Linear`, feed-forward network or `Int8Experts` whose result it adds: `Int8LinearNorm` and so on. Nodes whose values
    something else reads too stay as they are.
    """
    for node in list(model.graph):
        if node.domain != DOMAIN:
            continue
        if node.op_type == "Int8LinearGelu":
            _feed_forward(model, node)
        elif node.op_type in _GATED:
            _gated_feed_forward(model, node)
        elif node.op_type == "Attention" and integer_attention:
            _attention(model, node)
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type == "AddNormQuantize":
            _norm(model, node)


def _feed_forward(model: ir.Model, up: ir.Node) -> None:
    down = _only_reader(up)
    if down is None or down.op_type != "Int8Linear" or _zero_point(down) != GELU_ZERO_POINT:
        return
    _replace(model, [up, down], "Int8FeedForward", [*up.inputs, *down.inputs[2:]], {})


def _gated_feed_forward(model: ir.Model, product: ir.Node) -> None:
    gate, up = (value.producer() if value is not None else None for value in product.inputs)
    down = _only_reader(product)
    if gate is None or up is None or down is None or gate is up:
        return
    for linear in (gate, up, down):
        if linear.op_type != "Int8Linear" or _zero_point(linear) != SYMMETRIC_ZERO_POINT:
            return
    if _only_reader(gate) is not product or _only_reader(up) is not product:
        return
    if list(gate.inputs[:2]) != list(up.inputs[:2]) or list(down.inputs[:2]) != list(product.outputs):
        return
    inputs = [*up.inputs, *gate.inputs[2:], *down.inputs[2:]]
    _replace(model, [gate, up, product, down], _GATED[product.op_type], inputs, {})


def _attention(model: ir.Model, attention: ir.Node) -> None:
    product = attention.inputs[0].producer() if attention.inputs[0] is not None else None
    quantize = _only_reader(attention)
    if product is None or product.op_type != "Int8Linear" or _only_reader(product) is not attention:
        return
    if quantize is None or quantize.op_type != "Quantize" or _zero_point(product) != SYMMETRIC_ZERO_POINT:
        return
    heads = attention.attributes["num_heads"].as_int()
    inputs = [*product.inputs, *attention.inputs[1:]]
    _replace(model, [product, attention, quantize], "Int8Attention", inputs, {"num_heads": heads})


def _norm(model: ir.Model, norm: ir.Node) -> None:
    x, residual, *others = norm.inputs
    for value, other in ((x, residual), (residual, x)):
        node = value.producer() if value is not None else None
        if node is None or node.domain != DOMAIN or _only_reader(node) is not norm or other is value:
            continue
        if node.op_type not in _WITH_NORM:
            continue
        if node.op_type == "Int8Linear" and _zero_point(node) != SYMMETRIC_ZERO_POINT:
            continue
        at = _WITH_NORM[node.op_type]
        inputs = [*node.inputs[:at], other, *others, *node.inputs[at:]]
        _replace(model, [node, norm], f"{node.op_type}Norm", inputs, {"epsilon": norm.attributes["epsilon"].as_float()})
        return


def _only_reader(node: ir.Node) -> ir.Node | None:
    """Return the node that reads all outputs of a node, if it is the only one."""
    readers = {use.node for value in node.outputs for use in value.uses()}
    if len(readers) != 1 or any(value.is_graph_output() for value in node.outputs):
        return None
    return readers.pop()


def _zero_point(linear: ir.Node) -> int:
    return linear.attributes["zero_point"].as_int()


def _replace(
    model: ir.Model, nodes: list[ir.Node], op: str, inputs: list[ir.Value | None], attributes: dict[str, int | float]
) -> None:
    outputs = len(nodes[-1].outputs)
    substitute(model, nodes, ir.node(op, inputs, attributes, domain=DOMAIN, num_outputs=outputs, name=nodes[-1].name))
