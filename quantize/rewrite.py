"""From a float32 graph to an INT8 one, by the role of each tensor: its name in the checkpoint says what it is."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from moembed.errors import InputError
from moembed.export.functions import DOMAIN
from moembed.export.graph import add_initializer, consumer, drop_unused
from moembed.quantize.calibrate import Values, rows_of_expert
from moembed.quantize.functions import EMBEDDINGS, GELU_ZERO_POINT, int8_functions
from moembed.quantize.layout import BLOCK_4, fits, pack, quantize_blocks, quantize_rows
from moembed.quantize.recipe import Recipe
from moembed.quantize.rounding import rounded
from moembed.quantize.smoothing import Factors, content_of

_TABLE = "embeddings.word_embeddings.weight"
_ZERO_POINT = 128


@dataclass(frozen=True)
class _Quantized:
    """A quantized value of the graph, and what a product has to know of it."""

    data: ir.Value
    scale: ir.Value
    zero_point: int
    factors: NDArray[np.float32] | None  # by which its channels were multiplied


class Rewriter:
    """Replaces the nodes of one model; use once.

    Args:
        model: an fp32 model as `moembed.export` writes it; it is changed.
        recipe: how weights are rounded.
        values: what the model's products read, over some texts.
        factors: of the norms, from `factors_of`.
        keep: weights of linear layers that stay float32.

    Raises:
        InputError: a weight does not divide into the blocks of the INT8 layout, or the table of word embeddings into those of the
            recipe, or that has values beyond them.
    """

    def __init__(
        self, model: ir.Model, recipe: Recipe, values: Values, factors: Factors, keep: Collection[str] = ()
    ) -> None:
        self.model, self.recipe, self.values, self.factors, self.keep = model, recipe, values, factors, keep
        self.quantized: dict[ir.Value, _Quantized] = {}

    def run(self) -> ir.Model:
        """Rewrite and return the model."""
        for node in list(self.model.graph):
            weight = node.inputs[1].name if len(node.inputs) > 1 and node.inputs[1] is not None else None
            if node.op_type == "LayerNormalization" and weight is not None:
                self._embedding(node) if weight == "emb_ln.weight" else self._norm(node, weight)
            elif node.op_type == "Gemm" and weight is not None and weight not in self.keep:
                self._linear(node, weight)
            elif (node.domain, node.op_type) == (DOMAIN, "Experts"):
                self._experts(node)
        drop_unused(self.model)
        kept = {function.name: function for function in self.model.functions.values() if function.name != "Experts"}
        experts = next(len(n.inputs) - 7 for n in self.model.graph if n.op_type == "Int8Experts") // 2
        self.model.functions.clear()
        used = {node.op_type for node in self.model.graph}
        for proto in int8_functions(experts):
            if proto.name in used:
                kept[proto.name] = ir.serde.deserialize_function(proto)
        for function in kept.values():
            self.model.functions[function.identifier()] = function
        return self.model

    def _embedding(self, norm: ir.Node) -> None:
        gather = consumer(self.model, _TABLE)
        (use,) = gather.outputs[0].uses()
        token_type = next(value for value in use.node.inputs if value is not gather.outputs[0])
        table, bits = self._content(_TABLE), self.recipe.table
        if bits == 4 and table.shape[1] % BLOCK_4:
            raise InputError(
                f"recipe {self.recipe.name} stores {_TABLE} in blocks of {BLOCK_4} values, and its rows have {table.shape[1]}; "
                "quantize by recipe int8"
            )
        words, scale = quantize_blocks(table) if bits == 4 else quantize_rows(table)
        stored = [self._add(f"{_TABLE}.int{bits}", words), self._add(f"{_TABLE}.scale", scale)]
        self._quantized_norm(EMBEDDINGS[bits], norm, [gather.inputs[1], *stored, token_type])

    def _norm(self, norm: ir.Node, weight: str) -> None:
        add = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if add is None or add.op_type != "Add":
            raise ValueError(f"{weight} is not fed by a residual sum")
        if norm.outputs[0].name in self.factors:
            self._quantized_norm("AddNormQuantize", norm, list(add.inputs))
        else:  # the last one, where there is no projection
            epsilon = {"epsilon": norm.attributes["epsilon"].as_float()}
            self._replace(norm, "AddNorm", [*add.inputs, *norm.inputs[1:]], epsilon)

    def _quantized_norm(self, op: str, norm: ir.Node, inputs: list[Any]) -> None:
        factors = self.factors[str(norm.outputs[0].name)]
        smooth = self._add(f"{str(norm.inputs[1].name).removesuffix('.weight')}.smooth", factors)  # type: ignore[union-attr]
        epsilon = {"epsilon": norm.attributes["epsilon"].as_float()}
        y, data, scale = self._replace(
            norm, op, [*inputs, *norm.inputs[1:], smooth], epsilon, extra=("quantized", "scale")
        )
        self.quantized[y] = _Quantized(data, scale, _ZERO_POINT, factors)

    def _linear(self, gemm: ir.Node, weight: str) -> None:
        x, _, *biases = gemm.inputs
        quantized = self._quantized_of(x, gemm)
        integers, scales = self._quantized_weight(weight, self._content(weight), self._read(x), quantized.factors)
        packed, scale = self._add(f"{weight}.int8", integers), self._add(f"{weight}.scale", scales)
        # The exporter leaves a bias of zeros out.
        bias = biases or [self._add(f"{weight.removesuffix('weight')}bias", np.zeros(len(scales), np.float32))]
        inputs = [quantized.data, quantized.scale, packed, scale, *bias]
        (use, *others) = gemm.outputs[0].uses()
        if others or use.node.op_type != "Gelu" or self._is_kept(use.node.outputs[0]):
            self._replace(gemm, "Int8Linear", inputs, {"zero_point": quantized.zero_point})
            return
        active, data, scale = self._replace(use.node, "Int8LinearGelu", inputs, {}, before=gemm, quantized_only=True)
        self.quantized[active] = _Quantized(data, scale, GELU_ZERO_POINT, None)

    def _experts(self, node: ir.Node) -> None:
        x, weights, expert_indices, bias, *matrices = node.inputs
        names = [str(value.name) for value in matrices]  # type: ignore[union-attr]
        stem, half = names[0].removesuffix(".w1.0"), len(names) // 2
        quantized = self._quantized_of(x, node)
        packed: dict[str, NDArray[np.int8]] = {}
        scales: dict[str, NDArray[np.float32]] = {}
        for expert, (name1, name2) in enumerate(zip(names[:half], names[half:], strict=True)):
            w1, w2 = self._content(name1), self._content(name2).T  # w2 is [ffn, hidden] and used as it is
            rows, hidden = rows_of_expert(self._read(x), self._read(expert_indices), expert, w1)
            packed[name1], scales[name1] = self._quantized_weight(name1, w1, rows, quantized.factors)
            packed[name2], scales[name2] = self._quantized_weight(name2, w2, hidden, None)
        scale1, scale2 = (
            self._add(f"{stem}.{n}.scale", np.stack([scales[name] for name in part]))
            for n, part in (("w1", names[:half]), ("w2", names[half:]))
        )
        values = [self._add(f"{name}.int8", packed[name]) for name in names]
        self._replace(
            node,
            "Int8Experts",
            [quantized.data, quantized.scale, weights, expert_indices, bias, scale1, scale2, *values],
            {},
        )

    def _quantized_of(self, x: Any, reader: ir.Node) -> _Quantized:
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
        integers, scale = rounded(np.ascontiguousarray(matrix), inputs, self.recipe.damping)
        return pack(integers), scale

    def _is_kept(self, value: ir.Value) -> bool:
        readers = [use.node for use in value.uses() if use.node.op_type == "Gemm"]
        return any(str(node.inputs[1].name) in self.keep for node in readers)  # type: ignore[union-attr]

    def _read(self, value: Any) -> NDArray[Any]:
        return self.values[value.name]

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
        """Put a node of our domain in the place of `old`; gives the value that stands for its output, then the extra ones."""
        was = old.outputs[0]
        node = ir.node(
            op, inputs, attributes, domain=DOMAIN, num_outputs=2 if quantized_only else 1 + len(extra), name=old.name
        )
        self.model.graph.insert_before(before or old, node)
        if quantized_only:
            node.outputs[0].name, node.outputs[1].name = f"{was.name}.quantized", f"{was.name}.scale"
            return [was, *node.outputs]
        now = node.outputs[0]
        for value, suffix in zip(node.outputs[1:], extra, strict=True):
            value.name = f"{was.name}.{suffix}"
        ir.convenience.replace_all_uses_with(was, now)
        now.name, was.name = was.name, f"{was.name}.float"
        now.shape, now.type = was.shape, was.type
        return list(node.outputs)

    def _content(self, name: str) -> NDArray[np.float32]:
        return content_of(self.model.graph.initializers[name])

    def _add(self, name: str, array: NDArray[Any]) -> ir.Value:
        return add_initializer(self.model, name, array)
