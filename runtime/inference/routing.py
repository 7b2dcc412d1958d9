"""Which experts read a token: the decisions of a bundle's routers, looked at from outside.

The graph of a bundle puts out vectors only. A copy of it in memory that also puts out what its routers decide runs in a session
of its own, made when it is first asked for; its weights are the same mapped file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moembed.bundle.bundle import Bundle
from moembed.bundle.protobuf import numbers, strings, submessages
from moembed.errors import BundleError
from moembed.inference.forks import PerProcess
from moembed.inference.kernels import Kernels
from moembed.inference.session import observing, run, session_options
from moembed.tokenizer.tokenizer import Ids, Tokenizer

_ROUTER = re.compile(r"encoder\.layers\.(\d{1,4})\.mlp\.router\.layer\.weight")
# Numbers of the fields of ONNX's messages (onnx.proto).
_GRAPH = 7  # ModelProto
_NODE, _INITIALIZER = 1, 5  # GraphProto
_INPUT, _OUTPUT, _OP_TYPE = 1, 2, 4  # NodeProto
_DIMS, _TENSOR_NAME = 1, 8  # TensorProto


@dataclass(frozen=True)
class Routing:
    """Where the routers of a model sent the tokens of one text.

    Attributes:
        tokens: the vocabulary's piece of every token, prompt and special tokens included.
        layers: index of every layer that has experts.
        experts: `[layers, tokens, top_k]` int64, the experts that read a token, the one of greatest weight first.
        weights: `[layers, tokens, top_k]` float32, what each of them counts for: its probability among all experts.
        num_experts: experts of a layer.
        vector: `[hidden]` float32, the text's vector by the same run: the bytes that `Embedder.encode` gives.
    """

    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    experts: NDArray[np.int64]
    weights: NDArray[np.float32]
    num_experts: int
    vector: NDArray[np.float32]

    @property
    def load(self) -> NDArray[np.int64]:
        """How many of the text's tokens each expert read: `[layers, num_experts]`."""
        counts = [np.bincount(layer.ravel(), minlength=self.num_experts) for layer in self.experts]
        return np.array(counts, np.int64).reshape(len(self.layers), self.num_experts)


class Routers:
    """The routers of a bundle, opened when they are first asked; safe to share between threads.

    Args:
        bundle: a checked bundle.
        tokenizer: the bundle's.
        providers: names of ONNX Runtime's execution providers.
        threads: threads of one call.
        kernels: name of what computes the bundle's own operators; see `moembed.inference.kernels`.
    """

    def __init__(
        self, bundle: Bundle, tokenizer: Tokenizer, *, providers: Sequence[str], threads: int, kernels: str
    ) -> None:
        self._tokenizer, self._graph = tokenizer, bundle.graph
        self._opened = PerProcess(partial(_open, bundle, tuple(providers), threads, kernels))

    def open(self) -> "_Opened":
        """Get ready to run, unless that was done before.

        Raises:
            BundleError: the graph is damaged, or has no routers.
        """
        return self._opened.get()

    def run(self, ids: Ids) -> Routing:
        """Run one text.

        Args:
            ids: `[tokens]`, special tokens included.

        Raises:
            BundleError: the graph is damaged, or has no routers.
        """
        opened = self.open()
        names = ["sentence_embedding", *(name for router in opened.routers.values() for name in router)]
        row, mask = ids[None].astype(np.int64), np.ones((1, len(ids)), np.int64)
        vectors, *values = run(opened.session, names, row, mask, str(self._graph))
        weights, experts = np.stack(values[0::2]), np.stack(values[1::2])
        tokens = tuple(self._tokenizer.token_strings(ids.tolist()))
        return Routing(tokens, tuple(opened.routers), experts, weights, opened.num_experts, vectors[0])


class _Opened(NamedTuple):
    """An ONNX Runtime session, and by layer, in order, what a router calls its weights and its chosen experts."""

    session: Any
    routers: dict[int, tuple[str, str]]
    num_experts: int


def _open(bundle: Bundle, providers: tuple[str, ...], threads: int, kernels: str) -> _Opened:
    graph = bundle.graph.read_bytes()
    routers, num_experts = _routers(memoryview(graph))
    options = session_options(Kernels(kernels))
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # It is asked now and then: its threads are not to spin beside those of the bundle's main session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    values = [name for router in routers.values() for name in router]
    session = observing(graph, bundle.graph.parent, values, options, providers)
    return _Opened(session, routers, num_experts)


def _routers(model: memoryview) -> tuple[dict[int, tuple[str, str]], int]:
    """By layer, in order, what a router calls its weights and its chosen experts; and how many experts a layer has."""
    found: dict[int, tuple[str, str]] = {}
    counts: set[int] = set()
    for graph in submessages(model, _GRAPH):
        for node in submessages(graph, _NODE):
            inputs, outputs = strings(node, _INPUT), strings(node, _OUTPUT)
            layer = _ROUTER.fullmatch(inputs[1]) if strings(node, _OP_TYPE) == ["Router"] and len(inputs) == 2 else None
            if layer and len(outputs) == 2:
                found[int(layer[1])] = (outputs[0], outputs[1])
        for tensor in submessages(graph, _INITIALIZER):
            if any(_ROUTER.fullmatch(name) for name in strings(tensor, _TENSOR_NAME)):
                counts.update(islice(numbers(tensor, _DIMS), 1))
    if not found or len(counts) != 1:
        raise BundleError(
            f"the graph has {len(found)} routers of {sorted(counts)} experts, where every router of a bundle has as many: "
            "its routing cannot be shown; export it again"
        )
    return dict(sorted(found.items())), counts.pop()
