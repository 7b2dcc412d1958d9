"""Routing of a text's tokens: which experts a bundle's routers send each token to.

The graph of a bundle declares only vectors as outputs. A second session, opened on first use, runs a copy of the graph in
memory that also outputs the routers' decisions, whose names the manifest lists. Its weights are the same mapped file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.bundle.bundle import Bundle
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.errors import BundleError
from moembed.inference.forks import PerProcess
from moembed.inference.kernels import Kernels
from moembed.inference.session import Output, run, session_options, session_with_outputs
from moembed.tokenizer.tokenizer import Ids, Tokenizer


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
        self._bundle, self._tokenizer = bundle, tokenizer
        self._session = PerProcess(partial(_open, bundle, tuple(providers), threads, kernels))

    def open(self) -> Any:
        """Open the ONNX Runtime session, unless that was done before.

        Raises:
            BundleError: the graph is damaged, or the model has no MoE layers.
        """
        return self._session.get()

    def run(self, ids: Ids) -> Routing:
        """Run one text.

        Args:
            ids: `[tokens]`, special tokens included.

        Raises:
            BundleError: the graph is damaged, or the model has no MoE layers.
        """
        session, manifest = self.open(), self._bundle.manifest
        names = [Output.EMBEDDING, *_names(self._bundle)]
        row, mask = ids[None].astype(np.int64), np.ones((1, len(ids)), np.int64)
        vectors, *values = run(session, names, row, mask, str(self._bundle.graph))
        weights, experts = values[0::2], values[1::2]
        _check(self._bundle, weights, experts, len(ids))
        tokens = tuple(self._tokenizer.token_strings(ids.tolist()))
        layers = tuple(sorted(manifest.routers))
        return Routing(tokens, layers, np.stack(experts), np.stack(weights), manifest.num_experts, vectors[0])


def _open(bundle: Bundle, providers: tuple[str, ...], threads: int, kernels: str) -> Any:
    if not bundle.manifest.routers:
        raise BundleError(f"{bundle.manifest.name} has no MoE layers, so there is no routing to show")
    options = session_options(Kernels(kernels))
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Routing is asked for rarely: these threads must not spin beside those of the bundle's main session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return session_with_outputs(bundle.graph.read_bytes(), bundle.graph.parent, _names(bundle), options, providers)


def _names(bundle: Bundle) -> list[str]:
    """Names of each router's weights and expert indices, layer by layer."""
    return [
        name
        for _, router in sorted(bundle.manifest.routers.items())
        for name in (router.weights, router.expert_indices)
    ]


def _check(bundle: Bundle, weights: list[NDArray[Any]], experts: list[NDArray[Any]], tokens: int) -> None:
    """Refuse values that are not what the manifest says they are."""
    limit = bundle.manifest.num_experts
    shapes = {found.shape for found in (*weights, *experts)}
    ok = len(shapes) == 1 and [len(shape) for shape in shapes] == [2] and {shape[0] for shape in shapes} == {tokens}
    ok = ok and all(found.dtype == np.float32 for found in weights)
    ok = ok and all(found.dtype == np.int64 and ((found >= 0) & (found < limit)).all() for found in experts)
    if not ok:
        raise BundleError(
            f"{bundle.graph}: the values that {MANIFEST_FILE} lists as routers are not the weights and indices of {limit} "
            "experts: export the bundle again"
        )
