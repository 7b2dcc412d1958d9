"""Passes over a traced graph: split the weights of experts, add function bodies, remove the trace's metadata."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from moembed.export.functions import DOMAIN, VERSION, functions
from moembed.models.config import NetworkConfig
from moembed.models.families import family_of
from moembed.models.roles import Kind, Role, role, router_outputs


def finish(model: ir.Model, config: NetworkConfig) -> ir.Model:
    """Turn a fresh trace into the model of a bundle; changes and returns `model`.

    Every matrix of an expert becomes an initializer (`...mlp.experts.mlp.w1.0`, ...): a runtime then maps or prepacks only the
    operands of its products, and no node slices a stack of experts.
    """
    _name_dimensions(model)
    _name_token_type(model)
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type == "Experts":
            _split_experts(model, node)
        elif node.domain == DOMAIN and node.op_type == "Router":
            _name_outputs(node)
    drop_unused(model)
    _add_alias(model, "token_embeddings", "last_hidden_state")
    _remove_trace_metadata(model)
    used = {node.op_type for node in model.graph if node.domain == DOMAIN}
    for proto in (function for function in functions(config.num_experts) if function.name in used):
        function = ir.serde.deserialize_function(proto)
        model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = VERSION
    model.graph.name = family_of(config).graph_name
    return model


def _name_outputs(router: ir.Node) -> None:
    weight = role(router.inputs[1].name) if router.inputs[1] is not None else None
    if weight is None or weight.layer is None:
        raise ValueError("the trace does not feed Router from the checkpoint's weight")
    outputs = router_outputs(weight.layer)
    router.outputs[0].name, router.outputs[1].name = outputs.weights, outputs.expert_indices


def consumer(model: ir.Model, initializer: str) -> ir.Node:
    """Return the only node that reads an initializer."""
    (use,) = model.graph.initializers[initializer].uses()
    return use.node


def _name_dimensions(model: ir.Model) -> None:
    # The exporter makes up names of dimensions (s70, s72).
    batch, sequence = (str(dim) for dim in _shape(model.graph.inputs[0]))
    tokens = next(
        str(_shape(v)[0]) for node in model.graph for v in node.outputs if node.op_type == "LayerNormalization"
    )
    names = {batch: "batch", sequence: "sequence", tokens: "tokens"}
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([d if isinstance(d, int) else names.get(str(d)) for d in value.shape])


def _name_token_type(model: ir.Model) -> None:
    """Name the row that the exporter took from the table of token types after the table, which has no other."""
    (norm,) = (use.node for use in model.graph.initializers[Role(Kind.EMBEDDING_NORM).name].uses())
    add = norm.inputs[0].producer() if norm.inputs[0] is not None else None
    for value in add.inputs if add is not None else ():
        if value is not None and value.is_initializer():
            value.name = Role(Kind.TYPE_EMBEDDINGS).name


def _shape(value: ir.Value | None) -> ir.Shape:
    if value is None or value.shape is None:
        raise ValueError(f"the trace has no shape for {value}")
    return value.shape


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _split_experts(model: ir.Model, node: ir.Node) -> None:
    x, weights, expert_indices, w1, w2, bias = node.inputs
    count = node.attributes["num_experts"].as_int()
    parts: list[ir.Value] = []
    for stacked in (w1, w2):
        stack = role(stacked.name) if stacked is not None else None
        if stacked is None or stacked.const_value is None or stack is None:
            raise ValueError("the trace does not feed Experts from the checkpoint's stacked weights")
        for i, matrix in enumerate(np.split(stacked.const_value.numpy(), count)):
            parts.append(add_initializer(model, replace(stack, expert=i).name, matrix))
    inputs = [x, weights, expert_indices, bias, *parts]
    replacement = ir.node("Experts", inputs, domain=DOMAIN, num_outputs=1, name=node.name)
    substitute(model, [node], replacement)


def substitute(model: ir.Model, old: Sequence[ir.Node], new: ir.Node) -> None:
    """Put one node in the place of several, of which the last gives the outputs, and nothing else reads the others."""
    last = old[-1]
    for before, after in zip(last.outputs, new.outputs, strict=True):
        after.name, after.shape, after.type = before.name, before.shape, before.type
    model.graph.insert_before(last, new)
    for before, after in zip(last.outputs, new.outputs, strict=True):
        ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    for node in reversed(old):
        model.graph.remove(node, safe=True)


def add_initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """Register a new initializer with the content of an array, which is not copied, and return its value."""
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _add_alias(model: ir.Model, output: str, alias: str) -> None:
    # optimum's feature extraction reads only this name, and so does sentence-transformers' ONNX backend.
    value = next(value for value in model.graph.outputs if value.name == output)
    node = ir.node("Identity", [value], num_outputs=1, name=alias)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = alias, value.shape, value.type
    model.graph.append(node)
    model.graph.outputs.append(node.outputs[0])


def drop_unused(model: ir.Model) -> None:
    """Remove nodes that nothing reads, then initializers that nothing reads."""
    for node in reversed(list(model.graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            model.graph.remove(node, safe=True)
    for name in [name for name, value in model.graph.initializers.items() if not value.uses()]:
        del model.graph.initializers[name]


def _remove_trace_metadata(model: ir.Model) -> None:
    # It holds stack traces, source paths and module reprs of the exporting machine.
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
    for value in [*_values(model), *model.graph.initializers.values()]:
        value.metadata_props.clear()
