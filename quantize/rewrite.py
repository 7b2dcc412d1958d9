"""Rewriting of a float32 graph to an INT8 one, by the role of each tensor."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from moembed.errors import InputError
from moembed.export.functions import DOMAIN
from moembed.export.graph import add_initializer, consumer, drop_unused
from moembed.models.roles import Kind, Role, role
from moembed.quantize.calibrate import Activations, expert_inputs
from moembed.quantize.functions import EMBEDDINGS, GELU_ZERO_POINT, int8_functions
from moembed.quantize.layout import BLOCK_4, fits, pack, quantize_blocks, quantize_rows
from moembed.quantize.recipe import Recipe
from moembed.quantize.rounding import rounded
from moembed.quantize.smoothing import Factors, initializer_array

_ZERO_POINT = 128


def integers_name(weight: str, bits: int = 8) -> str:
    """Name of the initializer that holds the integers of a weight."""
    return f"{weight}.int{bits}"


def scale_name(weight: str) -> str:
    """Name of the initializer that holds the scales of a weight, or of all experts' weights of a kind."""
    return f"{weight}.scale"


def smooth_name(norm: Role) -> str:
    """Name of the initializer that holds the smoothing factors of a norm."""
    return f"{norm.name.removesuffix('.weight')}.smooth"


@dataclass(frozen=True)
class _Quantized:
    """A quantized value of the graph.

    Attributes:
        data: its integers.
        scale: the scale of each of its rows.
        zero_point: the integer that stands for 0.
        factors: smoothing factors that its channels were multiplied by, or None.
    """

    data: ir.Value
    scale: ir.Value
    zero_point: int
    factors: NDArray[np.float32] | None


class Rewriter:
    """Replaces the nodes of one model; use once.

    Args:
        model: an fp32 model as `moembed.export` writes it; it is changed.
        recipe: how weights are rounded.
        activations: inputs of the model's linear layers and experts over the calibration texts.
        factors: smoothing factors, from `smoothing_factors`.
        keep: weights of linear layers that stay float32.

    Raises:
        InputError: a weight does not divide into the blocks of the INT8 layout, or the table of word embeddings does not fit the
            4-bit blocks of the recipe, by its width or its values.
    """

    def __init__(
        self, model: ir.Model, recipe: Recipe, activations: Activations, factors: Factors, keep: Collection[str] = ()
    ) -> None:
        self.model, self.recipe, self.factors, self.keep = model, recipe, factors, keep
        self.activations = activations
        self.quantized: dict[ir.Value, _Quantized] = {}

    def run(self) -> ir.Model:
        """Rewrite and return the model."""
        for node in list(self.model.graph):
            weight = role(node.inputs[1].name) if len(node.inputs) > 1 and node.inputs[1] is not None else None
            if node.op_type == "LayerNormalization" and weight is not None:
                self._norm(node, weight)
            elif node.op_type == "Gemm" and weight is not None and weight.name not in self.keep:
                self._linear(node, weight)
            elif (node.domain, node.op_type) == (DOMAIN, "Experts"):
                self._experts(node)
        drop_unused(self.model)
        self._replace_functions()
        return self.model

    def _replace_functions(self) -> None:
        """Give the model the functions of its new nodes, behind those of the nodes that stayed."""
        used = {node.op_type for node in self.model.graph}
        kept = {function.name: function for function in self.model.functions.values() if function.name in used}
        num_experts = next(len(n.inputs) - 7 for n in self.model.graph if n.op_type == "Int8Experts") // 2
        for proto in int8_functions(num_experts):
            if proto.name in used:
                kept[proto.name] = ir.serde.deserialize_function(proto)
        self.model.functions.clear()
        for function in kept.values():
            self.model.functions[function.identifier()] = function

    def _norm(self, norm: ir.Node, weight: Role) -> None:
        if weight.kind is Kind.EMBEDDING_NORM:
            self._embedding(norm, weight)
            return
        add = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if add is None or add.op_type != "Add":
            raise ValueError(f"{weight.name} does not normalize a residual sum")
        if norm.outputs[0].name in self.factors:
            self._quantized_norm("AddNormQuantize", norm, weight, list(add.inputs))
        else:  # the last norm of a model without a projection
            epsilon = {"epsilon": norm.attributes["epsilon"].as_float()}
            self._replace(norm, "AddNorm", [*add.inputs, *norm.inputs[1:]], epsilon)

    def _embedding(self, norm: ir.Node, weight: Role) -> None:
        name, bits = Role(Kind.WORD_EMBEDDINGS).name, self.recipe.table
        gather = consumer(self.model, name)
        (use,) = gather.outputs[0].uses()
        if use.node.op_type != "Add" or use.node.outputs[0] is not norm.inputs[0]:
            raise ValueError(f"{weight.name} does not normalize the sum of a word's embedding and its token type's")
        token_type = next(value for value in use.node.inputs if value is not gather.outputs[0])
        table = self._array(name)
        if bits == 4 and table.shape[1] % BLOCK_4:
            raise InputError(
                f"4-bit quantization of {name} needs rows of whole blocks of {BLOCK_4} values, and its rows have "
                f"{table.shape[1]}: use a recipe with an 8-bit table, such as int8"
            )
        integers, scale = quantize_blocks(table) if bits == 4 else quantize_rows(table)
        stored = [self._add(integers_name(name, bits), integers), self._add(scale_name(name), scale)]
        self._quantized_norm(EMBEDDINGS[bits], norm, weight, [gather.inputs[1], *stored, token_type])

    def _quantized_norm(self, op: str, norm: ir.Node, weight: Role, inputs: list[Any]) -> None:
        factors = self.factors[str(norm.outputs[0].name)]
        smooth = self._add(smooth_name(weight), factors)
        epsilon = {"epsilon": norm.attributes["epsilon"].as_float()}
        y, data, scale = self._replace(
            norm, op, [*inputs, *norm.inputs[1:], smooth], epsilon, extra=("quantized", "scale")
        )
        self.quantized[y] = _Quantized(data, scale, _ZERO_POINT, factors)

    def _linear(self, gemm: ir.Node, weight: Role) -> None:
        x, _, *biases = gemm.inputs
        name, quantized = weight.name, self._quantized_input(x, gemm)
        integers, scales = self._quantized_weight(name, self._array(name), self._activation(x), quantized.factors)
        stored = [self._add(integers_name(name), integers), self._add(scale_name(name), scales)]
        # The exporter leaves a bias of zeros out.
        bias = biases or [self._add(f"{name.removesuffix('weight')}bias", np.zeros(len(scales), np.float32))]
        inputs = [quantized.data, quantized.scale, *stored, *bias]
        (use, *others) = gemm.outputs[0].uses()
        if others or use.node.op_type != "Gelu" or self._is_kept(use.node.outputs[0]):
            self._replace(gemm, "Int8Linear", inputs, {"zero_point": quantized.zero_point})
            return
        gelu, data, scale = self._replace(use.node, "Int8LinearGelu", inputs, {}, before=gemm, quantized_only=True)
        self.quantized[gelu] = _Quantized(data, scale, GELU_ZERO_POINT, None)

    def _experts(self, node: ir.Node) -> None:
        x, weights, expert_indices, bias, *matrices = node.inputs
        names = [str(value.name) for value in matrices]  # type: ignore[union-attr]
        half = len(names) // 2
        quantized = self._quantized_input(x, node)
        integers: dict[str, NDArray[np.int8]] = {}
        scales: dict[str, NDArray[np.float32]] = {}
        for expert, (name1, name2) in enumerate(zip(names[:half], names[half:], strict=True)):
            w1, w2 = self._array(name1), self._array(name2).T  # w2 is [ffn, hidden] and used as it is
            rows, inner = expert_inputs(self._activation(x), self._activation(expert_indices), expert, w1)
            integers[name1], scales[name1] = self._quantized_weight(name1, w1, rows, quantized.factors)
            integers[name2], scales[name2] = self._quantized_weight(name2, w2, inner, None)
        stacked = [
            self._add(scale_name(part[0].removesuffix(".0")), np.stack([scales[name] for name in part]))
            for part in (names[:half], names[half:])
        ]
        packed = [self._add(integers_name(name), integers[name]) for name in names]
        inputs = [quantized.data, quantized.scale, weights, expert_indices, bias, *stacked, *packed]
        self._replace(node, "Int8Experts", inputs, {})

    def _quantized_input(self, x: Any, reader: ir.Node) -> _Quantized:
        """Return the quantized form of a value; a value that has none gets a node before its reader."""
        if x not in self.quantized:
            node = ir.node("Quantize", [x], domain=DOMAIN, num_outputs=2, name=f"{x.name}.quantize")
            node.outputs[0].name, node.outputs[1].name = f"{x.name}.quantized", f"{x.name}.scale"
            self.model.graph.insert_before(reader, node)
            self.quantized[x] = _Quantized(node.outputs[0], node.outputs[1], _ZERO_POINT, None)
        return self.quantized[x]

    def _quantized_weight(
        self, name: str, matrix: NDArray[np.float32], inputs: NDArray[Any], factors: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        if not fits(matrix.shape):
            raise InputError(
                f"{name} maps {matrix.shape[1]} to {matrix.shape[0]} channels; the INT8 layout needs multiples of 4 and 16. "
                "Keep this model in fp32"
            )
        if factors is not None:
            matrix, inputs = matrix / factors, inputs * factors
        integers, scale = rounded(np.ascontiguousarray(matrix), inputs, self.recipe.rounding.damping)
        return pack(integers), scale

    def _is_kept(self, value: ir.Value) -> bool:
        readers = [use.node for use in value.uses() if use.node.op_type == "Gemm"]
        return any(str(node.inputs[1].name) in self.keep for node in readers)  # type: ignore[union-attr]

    def _activation(self, value: Any) -> NDArray[Any]:
        return self.activations[value.name]

    def _replace(
        self,
        old: ir.Node,
        op: str,
        inputs: list[Any],
        attributes: dict[str, Any],
        *,
        extra: tuple[str, ...] = (),
        before: ir.Node | None = None,
        quantized_only: bool = False,
    ) -> list[ir.Value]:
        """Put a node of our domain in the place of `old`; return the value that stands for its output, then the extra outputs."""
        replaced = old.outputs[0]
        node = ir.node(
            op, inputs, attributes, domain=DOMAIN, num_outputs=2 if quantized_only else 1 + len(extra), name=old.name
        )
        self.model.graph.insert_before(before or old, node)
        if quantized_only:
            node.outputs[0].name, node.outputs[1].name = f"{replaced.name}.quantized", f"{replaced.name}.scale"
            return [replaced, *node.outputs]
        output = node.outputs[0]
        for value, suffix in zip(node.outputs[1:], extra, strict=True):
            value.name = f"{replaced.name}.{suffix}"
        ir.convenience.replace_all_uses_with(replaced, output)
        output.name, replaced.name = replaced.name, f"{replaced.name}.float"
        output.shape, output.type = replaced.shape, replaced.type
        return list(node.outputs)

    def _array(self, name: str) -> NDArray[np.float32]:
        return initializer_array(self.model.graph.initializers[name])

    def _add(self, name: str, array: NDArray[Any]) -> ir.Value:
        return add_initializer(self.model, name, array)
