"""Part of a graph as a session of its own, whose weights are inputs: nothing is written and no weight is copied."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper

from moembed.export.functions import DOMAIN, IR_VERSION, OPSET, VERSION
from moembed.inference.session import open_graph, session_options

Array = NDArray[Any]


class Piece:
    """Session over some nodes of a graph.

    Args:
        nodes: the nodes, in an order in which they can run.
        outputs: names of the values to compute.
        functions: bodies of the custom operators among them, for a machine without kernels.
        examples: name of every value that the nodes read from outside -> an array of its dtype.
    """

    def __init__(
        self,
        nodes: Sequence[ir.Node],
        outputs: Sequence[str],
        functions: Sequence[onnx.FunctionProto],
        examples: Mapping[str, Array],
    ) -> None:
        graph = helper.make_graph(
            [ir.serde.serialize_node(node) for node in nodes],
            "piece",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
                for name, array in examples.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
        )
        used = {node.op_type for node in nodes if node.domain == DOMAIN}
        model = helper.make_model(
            graph,
            functions=[function for function in functions if function.name in used],
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
            ir_version=IR_VERSION,
        )
        self._session = open_graph(model.SerializeToString(), "a part of the graph", session_options())
        self._outputs = list(outputs)

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """Compute the outputs from all values that the nodes read from outside."""
        results: list[Array] = self._session.run(self._outputs, dict(feed))
        return results


def outside(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """Return the values that nodes read and do not compute, each once."""
    computed = {value for node in nodes for value in node.outputs}
    read = {value: None for node in nodes for value in node.inputs if value is not None and value not in computed}
    return list(read)


def initializer_array(value: ir.Value | None) -> Array:
    """Return the array of an initializer."""
    if value is None or value.const_value is None:
        raise ValueError(f"{value and value.name} is no initializer")
    return np.asarray(value.const_value.numpy())
