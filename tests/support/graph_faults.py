"""Faults of a network, as edits of the nodes and functions of its graph."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper


def _function(model, *names):
    (found,) = (function for function in model.functions if function.name in names)
    return found


def _wrong_top_k(model):
    for node in model.graph.node:
        if node.op_type == "Router":
            node.attribute[0].i = 1


def _renormalized(model):
    function = _function(model, "Router")
    choice = function.node[-1]
    choice.output[0] = "chosen"
    function.node.extend(
        [
            helper.make_node("Constant", [], ["ranks"], value=numpy_helper.from_array(np.array([1], np.int64))),
            helper.make_node("ReduceSum", ["chosen", "ranks"], ["sum"], keepdims=1),
            helper.make_node("Div", ["chosen", "sum"], ["weights"]),
        ]
    )


def _tanh_gelu(model):
    # In a float32 graph the dense layers are operators of their own, which only the experts are not.
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            if node.op_type == "Gelu":
                del node.attribute[:]
                node.attribute.append(helper.make_attribute("approximate", "tanh"))


def _keys_one_position_late(model):
    function = _function(model, "Attention", "Int8Attention")
    nodes = []
    for node in function.node:
        if node.op_type == "RotaryEmbedding" and node.input[0] == "k_one":
            nodes += [
                helper.make_node("Constant", [], ["step"], value_int=1),
                helper.make_node("Add", ["position", "step"], ["late"]),
            ]
            for table, name in (("cos", "c"), ("sin", "s")):
                nodes.append(helper.make_node("Gather", [table, "late"], [f"{table}_late"]))
                nodes.append(helper.make_node("Unsqueeze", [f"{table}_late", "axis0"], [f"{name}_late"]))
            node.input[1], node.input[2] = "c_late", "s_late"
        nodes.append(node)
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del function.node[:]
    function.node.extend(copied)


def _frequencies_shifted(model):
    function = _function(model, "Attention", "Int8Attention")
    nodes = []
    for node in function.node:
        if node.op_type == "Gather" and node.input[0] in ("cos", "sin"):
            table = node.input[0]
            parts = [f"{table}_first", f"{table}_rest"]
            nodes += [
                helper.make_node("Constant", [], [f"{table}_one"], value_ints=[1]),
                helper.make_node("Sub", ["half_dim", f"{table}_one"], [f"{table}_others"]),
                helper.make_node("Concat", [f"{table}_one", f"{table}_others"], [f"{table}_sizes"], axis=0),
                helper.make_node("Split", [table, f"{table}_sizes"], parts, axis=1),
                helper.make_node("Concat", parts[::-1], [f"{table}_shifted"], axis=1),
            ]
            node.input[0] = f"{table}_shifted"
        nodes.append(node)
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del function.node[:]
    function.node.extend(copied)


def _no_expert_bias(model):
    node = _function(model, "Experts", "Int8Experts").node[-1]
    assert list(node.input) == ["mixed", "bias"]
    node.op_type = "Identity"
    del node.input[1:]


def _gelu_after_the_second_matrix(model):
    function = _function(model, "Experts", "Int8Experts")
    for node in function.node:
        if node.op_type == "Gelu":
            node.op_type = "Identity"
            del node.attribute[:]
        if "grouped" in node.input:
            node.input[list(node.input).index("grouped")] = "late"
    at = next(i for i, node in enumerate(function.node) if "late" in node.input)
    function.node.insert(at, helper.make_node("Gelu", ["grouped"], ["late"]))


FAULTS: dict[str, Callable[[onnx.ModelProto], None]] = {
    "wrong top-k": _wrong_top_k,
    "renormalized router": _renormalized,
    "tanh for erf": _tanh_gelu,
    "keys one position late": _keys_one_position_late,
    "rotary frequencies shifted by one": _frequencies_shifted,
    "missing experts bias": _no_expert_bias,
    "GELU after the second matrix": _gelu_after_the_second_matrix,
}
