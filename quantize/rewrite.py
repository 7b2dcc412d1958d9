"""Rewriting of a float32 graph to an INT8 one, by the role of each tensor."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from moembed.errors import InputError
from moembed.export.functions import DOMAIN
from moembed.export.graph import add_initializer, consumer
from moembed.models.roles import Kind, Role, role
from moembed.quantize.calibrate import Calibration
from moembed.quantize.exact import Matrix
from moembed.quantize.function_parts import GELU_ZERO_POINT, SYMMETRIC_ZERO_POINT
from moembed.quantize.functions import EMBEDDINGS, int8_functions
from moembed.quantize.fuse import finish
from moembed.quantize.gates import gated_product
from moembed.quantize.layout import BLOCK_4, fits, pack, quantize_blocks, quantize_rows
from moembed.quantize.piece import initializer_array
from moembed.quantize.recipe import Recipe
from moembed.quantize.rounding import rounded, second_moments
from moembed.quantize.smoothing import smoothed_readers, smoothing_factors
from moembed.tokenizer.tokenizer import Ids


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
        texts: token ids of the calibration texts.
        keep: weights of linear layers that stay float32.
        compensate: round weights carefully, see `moembed.quantize.rounding`; False rounds each by itself, in less time.
        log: receives progress messages.

    Attributes:
        factors: name of a norm's output -> its smoothing factors, `[hidden]`.

    Raises:
        InputError: a weight has no bias, or does not divide into the blocks of the INT8 layout; or the table of word embeddings
            does not fit the 4-bit blocks of the recipe, by its width or its values.
    """

    def __init__(
        self,
        model: ir.Model,
        recipe: Recipe,
        texts: Sequence[Ids],
        *,
        keep: Collection[str] = (),
        compensate: bool = True,
        log: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.model, self.recipe, self.keep, self.compensate, self.log = model, recipe, keep, compensate, log
        num_experts = next(((len(node.inputs) - 4) // 2 for node in model.graph if node.op_type == "Experts"), 1)
        self._functions = int8_functions(num_experts)
        self._layers = sum(
            (found := role(name)) is not None and found.kind is Kind.NORM2 for name in model.graph.initializers
        )
        kept = [ir.serde.serialize_function(function) for function in model.functions.values()]
        self.calibration = Calibration(model, texts, [*kept, *self._functions])
        self.factors: dict[str, NDArray[np.float32]] = {}
        self.quantized: dict[ir.Value, _Quantized] = {}

    def run(self) -> ir.Model:
        """Rewrite and return the model."""
        self.log(f"calibrating on {self.calibration.texts} texts of {self.calibration.tokens} tokens")
        self._gated_products()
        for node in list(self.model.graph):
            weight = role(node.inputs[1].name) if len(node.inputs) > 1 and node.inputs[1] is not None else None
            if node.op_type == "LayerNormalization" and weight is not None:
                self._norm(node, weight)
            elif node.op_type == "Gemm" and weight is not None and weight.name not in self.keep:
                self._linear(node, weight)
            elif (node.domain, node.op_type) == (DOMAIN, "Experts"):
                self._experts(node)
            if weight is not None and weight.kind is Kind.NORM2 and weight.layer is not None:
                self.log(f"quantized layer {weight.layer + 1} of {self._layers}")
        finish(self.model, self._functions, integer_attention=self.recipe.attention == "integer")
        return self.model

    def _gated_products(self) -> None:
        """Quantize gated products where they are computed: before anything else, so that their gates are kept for that."""
        for node in list(self.model.graph):
            x, weight = _present(node.inputs)[:2] if node.op_type == "Gemm" else (None, None)
            if x is None or weight is None or weight.name in self.keep or gated_product(x) is None:
                continue
            quantized = self._quantized_input(x, node)
            self.calibration.replace(x, [quantized.data, quantized.scale])

    def _norm(self, norm: ir.Node, weight: Role) -> None:
        if weight.kind is Kind.EMBEDDING_NORM:
            self._embedding(norm, weight)
            return
        add = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if add is None or add.op_type != "Add":
            raise ValueError(f"{weight.name} does not normalize a residual sum")
        if smoothed_readers(norm.outputs[0]):
            self._quantized_norm("AddNormQuantize", norm, weight, list(add.inputs))
        else:  # the last norm of a model without a projection
            epsilon = {"epsilon": norm.attributes["epsilon"].as_float()}
            self._replace(norm, "AddNorm", [*add.inputs, *norm.inputs[1:]], epsilon)

    def _embedding(self, norm: ir.Node, weight: Role) -> None:
        name, bits = Role(Kind.WORD_EMBEDDINGS).name, self.recipe.table
        gather = consumer(self.model, name)
        (use,) = gather.outputs[0].uses()
        if use.node.op_type != "Add" or use.node.outputs[0] is not norm.inputs[0]:
            raise ValueError(f"{weight.name} does not normalize the sum of a word's embedding and one other")
        other = next(value for value in use.node.inputs if value is not gather.outputs[0])
        table = self._array(name)
        if bits == 4 and table.shape[1] % BLOCK_4:
            raise InputError(
                f"4-bit quantization of {name} needs rows of whole blocks of {BLOCK_4} values, and its rows have "
                f"{table.shape[1]}: use a recipe with an 8-bit table, such as int8"
            )
        integers, scale = quantize_blocks(table) if bits == 4 else quantize_rows(table)
        stored = [self._add(integers_name(name, bits), integers), self._add(scale_name(name), scale)]
        self._quantized_norm(EMBEDDINGS[bits], norm, weight, [gather.inputs[1], *stored, other])

    def _quantized_norm(self, op: str, norm: ir.Node, weight: Role, inputs: list[Any]) -> None:
        width = self._array(weight.name).shape
        readers = smoothed_readers(norm.outputs[0])
        smooth = self._add(smooth_name(weight), np.ones(width, np.float32))
        epsilon = {"epsilon": norm.attributes["epsilon"].as_float()}
        y, data, scale = self._replace(
            norm, op, [*inputs, *norm.inputs[1:], smooth], epsilon, extra=("quantized", "scale")
        )
        factors = smoothing_factors(self.calibration.preview(y), readers, self.recipe)
        smooth.const_value = ir.Tensor(factors, name=smooth.name)
        self.factors[str(y.name)] = factors
        self.quantized[y] = _Quantized(data, scale, SYMMETRIC_ZERO_POINT, factors)

    def _linear(self, gemm: ir.Node, weight: Role) -> None:
        if len(gemm.inputs) < 3:
            raise InputError(
                f"{weight.name} has no bias in the graph, as development versions of moembed wrote it: export it again"
            )
        x, _, bias = gemm.inputs
        name, quantized = weight.name, self._quantized_input(x, gemm)
        data, scale = self.calibration.inputs(gemm, quantized.data, quantized.scale)
        moments = self._moments(data, scale, quantized.zero_point)
        integers, scales = self._quantized_weight(name, self._array(name), moments, quantized.factors)
        stored = [self._add(integers_name(name), integers), self._add(scale_name(name), scales)]
        inputs = [quantized.data, quantized.scale, *stored, bias]
        (use, *others) = gemm.outputs[0].uses()
        if others or use.node.op_type != "Gelu" or not self._feeds_quantized(use.node.outputs[0]):
            self._replace(gemm, "Int8Linear", inputs, {"zero_point": quantized.zero_point})
            return
        outputs = self._replace(use.node, "Int8LinearGelu", inputs, {}, before=gemm, quantized_only=True)
        self.quantized[outputs[0]] = _Quantized(outputs[1], outputs[2], GELU_ZERO_POINT, None)

    def _experts(self, node: ir.Node) -> None:
        x, weights, expert_indices, bias, *matrices = _present(node.inputs)
        names = [str(value.name) for value in matrices]
        half = len(names) // 2
        quantized = self._quantized_input(x, node)
        rows, row_scales, chosen = self.calibration.inputs(node, quantized.data, quantized.scale, expert_indices)
        integers: dict[str, NDArray[np.int8]] = {}
        scales: dict[str, NDArray[np.float32]] = {}
        for expert, (name1, name2) in enumerate(zip(names[:half], names[half:], strict=True)):
            mine = (chosen == expert).any(axis=1)
            x_rows, x_scales = rows[mine], row_scales[mine]
            moments = self._moments(x_rows, x_scales, quantized.zero_point)
            integers[name1], scales[name1] = self._quantized_weight(
                name1, self._array(name1), moments, quantized.factors
            )
            inner, inner_scales = self.calibration.gelu_of_product(x_rows, x_scales, integers[name1], scales[name1])
            moments = self._moments(inner, inner_scales, GELU_ZERO_POINT)
            # w2 is [ffn, hidden] and used as it is.
            integers[name2], scales[name2] = self._quantized_weight(name2, self._array(name2).T, moments, None)
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
            op, inputs = gated_product(x) or ("Quantize", [x])
            node = ir.node(op, inputs, domain=DOMAIN, num_outputs=2, name=f"{x.name}.quantize")
            node.outputs[0].name, node.outputs[1].name = f"{x.name}.quantized", f"{x.name}.scale"
            self.model.graph.insert_before(reader, node)
            self.quantized[x] = _Quantized(node.outputs[0], node.outputs[1], SYMMETRIC_ZERO_POINT, None)
        return self.quantized[x]

    def _moments(self, data: NDArray[np.uint8], scale: NDArray[np.float32], zero_point: int) -> Matrix | None:
        return second_moments(data, scale, zero_point) if self.compensate else None

    def _quantized_weight(
        self, name: str, matrix: NDArray[np.float32], moments: Matrix | None, factors: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        if not fits(matrix.shape):
            raise InputError(
                f"{name} maps {matrix.shape[1]} to {matrix.shape[0]} channels; the INT8 layout needs multiples of 4 and 16. "
                "Keep this model in fp32"
            )
        if factors is not None:
            matrix = matrix / factors
        matrix = np.ascontiguousarray(matrix)
        if moments is None:
            integers, scale = quantize_rows(matrix)
        else:
            integers, scale = rounded(matrix, moments, self.recipe.rounding.damping)
        return pack(integers), scale

    def _feeds_quantized(self, value: ir.Value) -> bool:
        """Return True if all readers of a value are linear layers with quantized weights."""
        readers = [use.node for use in value.uses()]
        return all(node.op_type == "Gemm" and str(_present(node.inputs)[1].name) not in self.keep for node in readers)

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
            self.calibration.replace(replaced, node.outputs)
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


def _present(values: Sequence[ir.Value | None]) -> list[ir.Value]:
    """Return the inputs of a node that leaves none out."""
    return [value for value in values if value is not None]
