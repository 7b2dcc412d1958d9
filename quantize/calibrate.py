"""Values of a graph over the calibration texts, computed piece by piece while the graph is rewritten.

Each weight is rounded for the inputs that it gets from the layers before it, which are quantized by then. Their operators give
the same bytes on every machine where the native library runs, and so does everything that is derived from them.
"""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from moembed.errors import InputError
from moembed.export.functions import DOMAIN
from moembed.inference.batching import pad
from moembed.quantize.piece import Array, Piece, initializer_array, outside
from moembed.tokenizer.tokenizer import Ids

MAX_TOKENS = 16384
_BATCH = 8


class Calibration:
    """Values of one graph over some texts. Nodes that have not been computed may be replaced.

    Args:
        model: a model with the inputs `input_ids` and `attention_mask`.
        texts: token ids, special tokens included; those after 16384 tokens are left out.
        functions: bodies of the custom operators that the model has or will get.

    Attributes:
        texts: number of texts in use.
        tokens: number of their tokens.

    Raises:
        InputError: there is no text.
    """

    def __init__(self, model: ir.Model, texts: Sequence[Ids], functions: Sequence[onnx.FunctionProto]) -> None:
        self._graph, self._functions = model.graph, functions
        self._batches: list[dict[str, Array]] = []
        self._computed: set[ir.Node] = set()
        self._replaced: dict[ir.Value, Sequence[ir.Value]] = {}
        self.texts = self.tokens = 0
        for start in range(0, len(texts), _BATCH):
            ids, mask = pad(texts[start : start + _BATCH], 1)
            self._batches.append({"input_ids": ids, "attention_mask": mask})
            self.texts += len(ids)
            self.tokens += int(mask.sum())
            if self.tokens >= MAX_TOKENS:
                break
        if not self.tokens:
            raise InputError("calibration is empty: give at least one text, or None for the built-in texts")

    def replace(self, old: ir.Value, new: Sequence[ir.Value]) -> None:
        """Compute other values in place of one whose readers are going to read those."""
        self._replaced[old] = new

    def inputs(self, node: ir.Node, *wanted: ir.Value) -> list[Array]:
        """Compute some inputs of a node over all texts, an array of `[T, ...]` for each."""
        self._compute_before(node, wanted)
        return [np.concatenate([batch[str(value.name)] for batch in self._batches]) for value in wanted]

    def preview(self, value: ir.Value) -> Array:
        """Compute a value over all texts, `[T, ...]`, and forget it: the initializers of its node may change."""
        node = value.producer()
        if node is None:
            raise ValueError(f"no node computes {value.name}")
        self._compute_before(node)
        return np.concatenate([values[0] for values in self._run([node], [value])])

    def _compute_before(self, node: ir.Node, wanted: Sequence[ir.Value] = ()) -> None:
        """Compute what a node and later ones read, and forget what none of them reads."""
        nodes, live = list(self._graph), self._live(wanted)
        before = nodes.index(node)
        read = {value for later in nodes[before:] if later in live for value in self._read_by(later)} | set(wanted)
        # A norm's quantized output may be wanted as long as the norm is read.
        read |= {sibling for value in read if (made := value.producer()) for sibling in made.outputs}
        pending = [other for other in nodes[:before] if other in live and other not in self._computed]
        self._computed.update(pending)
        outputs = [value for other in pending for value in other.outputs if value in read]
        names = {value.name for value in read}
        results = self._run(pending, outputs) if outputs else [[] for _ in self._batches]
        for batch, values in zip(self._batches, results, strict=True):
            batch.update({str(value.name): array for value, array in zip(outputs, values, strict=True)})
            for name in batch.keys() - names:
                del batch[name]

    def _run(self, nodes: Sequence[ir.Node], wanted: Sequence[ir.Value]) -> list[list[Array]]:
        """Compute values over every batch."""
        read = outside(nodes)
        constants: dict[str, Array] = {
            str(value.name): initializer_array(value) for value in read if value.const_value is not None
        }
        varying = [str(value.name) for value in read if value.const_value is None]
        feeds: list[dict[str, Array]] = [
            {**constants, **{name: batch[name] for name in varying}} for batch in self._batches
        ]
        piece = Piece(nodes, [str(value.name) for value in wanted], self._functions, feeds[0])
        return [piece.run(feed) for feed in feeds]

    def gelu_of_product(
        self, rows: NDArray[np.uint8], scales: NDArray[np.float32], weight: Array, weight_scales: Array
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Compute the quantized GELU of rows times a quantized weight, as one expert does.

        Args:
            rows: `[t, hidden]`.
            scales: `[t, 1]`.
            weight: packed, see `moembed.quantize.layout`.
            weight_scales: `[ffn]`.

        Returns:
            `[t, ffn]` around `GELU_ZERO_POINT`, and its scales `[t, 1]`.
        """
        if not len(rows):
            return np.empty((0, len(weight_scales)), np.uint8), np.empty((0, 1), np.float32)
        arrays: list[Array] = [rows, scales, weight, weight_scales, np.zeros(len(weight_scales), np.float32)]
        inputs = [ir.Value(name=f"input.{i}") for i in range(len(arrays))]
        node = ir.node("Int8LinearGelu", inputs, domain=DOMAIN, num_outputs=2)
        names = ["quantized", "scale"]
        for output, name in zip(node.outputs, names, strict=True):
            output.name = name
        feed = {str(value.name): array for value, array in zip(inputs, arrays, strict=True)}
        quantized, scale = Piece([node], names, self._functions, feed).run(feed)
        return quantized, scale

    def _live(self, wanted: Sequence[ir.Value]) -> set[ir.Node]:
        """Return the nodes that the graph's outputs and some values depend on: a replaced node stays in the graph for a while."""
        live: set[ir.Node] = set()
        stack = [value.producer() for value in (*self._graph.outputs, *wanted)]
        while stack:
            node = stack.pop()
            if node is not None and node not in live:
                live.add(node)
                stack += [value.producer() for value in self._read_by(node)]
        return live

    def _read_by(self, node: ir.Node) -> list[ir.Value]:
        return [new for value in node.inputs if value is not None for new in self._replaced.get(value, (value,))]
