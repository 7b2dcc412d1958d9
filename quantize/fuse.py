"""Fusion of neighbouring INT8 nodes into the operators that compute them at once."""

import onnx_ir as ir

from moembed.export.functions import DOMAIN
from moembed.export.graph import substitute
from moembed.quantize.function_parts import GELU_ZERO_POINT, SYMMETRIC_ZERO_POINT


def fuse(model: ir.Model, *, integer_attention: bool) -> None:
    """Fuse the nodes of a quantized model in place.

    `Int8LinearGelu` and the `Int8Linear` that reads it become `Int8FeedForward`. With `integer_attention`, `Int8Linear`,
    `Attention` and `Quantize` become `Int8Attention`. Nodes whose values something else reads too stay as they are.
    """
    for node in list(model.graph):
        if node.domain != DOMAIN:
            continue
        if node.op_type == "Int8LinearGelu":
            _feed_forward(model, node)
        elif node.op_type == "Attention" and integer_attention:
            _attention(model, node)


def _feed_forward(model: ir.Model, up: ir.Node) -> None:
    down = _only_reader(up)
    if down is None or down.op_type != "Int8Linear" or _zero_point(down) != GELU_ZERO_POINT:
        return
    _replace(model, [up, down], "Int8FeedForward", [*up.inputs, *down.inputs[2:]], {})


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


def _only_reader(node: ir.Node) -> ir.Node | None:
    """Return the node that reads all outputs of a node, if it is the only one."""
    readers = {use.node for value in node.outputs for use in value.uses()}
    if len(readers) != 1 or any(value.is_graph_output() for value in node.outputs):
        return None
    return readers.pop()


def _zero_point(linear: ir.Node) -> int:
    return linear.attributes["zero_point"].as_int()


def _replace(
    model: ir.Model, nodes: list[ir.Node], op: str, inputs: list[ir.Value | None], attributes: dict[str, int]
) -> None:
    outputs = len(nodes[-1].outputs)
    substitute(model, nodes, ir.node(op, inputs, attributes, domain=DOMAIN, num_outputs=outputs, name=nodes[-1].name))
