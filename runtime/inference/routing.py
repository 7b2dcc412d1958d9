"""Expert routing of a text's tokens.

The graph of a bundle has only vectors as outputs. A second session, opened on first use, runs a copy of the graph in memory
with the values of the routers as further outputs; the manifest lists their names. The weights are the same mapped file.
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
    """Expert routing of one text.

    Attributes:
        tokens: vocabulary pieces of the tokens, prompt and special tokens included.
        layers: indices of the MoE layers.
        experts: `[layers, tokens, top_k]` int64, the experts of each token, by decreasing weight.
        weights: `[layers, tokens, top_k]` float32, their router weights: probabilities among all experts.
        num_experts: number of experts in a layer.
        vector: `[hidden]` float32, vector of the text from the same run, with the bytes that `Embedder.encode` returns.
    """

    tokens: tuple[str, ...]
    layers: tuple[int, ...]
    experts: NDArray[np.int64]
    weights: NDArray[np.float32]
    num_experts: int
    vector: NDArray[np.float32]

    @property
    def load(self) -> NDArray[np.int64]:
        """Number of tokens of each expert: `[layers, num_experts]`."""
        counts = [np.bincount(layer.ravel(), minlength=self.num_experts) for layer in self.experts]
        return np.array(counts, np.int64).reshape(len(self.layers), self.num_experts)


class Routers:
    """Routers of a bundle, opened on first use. Safe to share between threads.

    Args:
        bundle: a checked bundle.
        tokenizer: tokenizer of the bundle.
        providers: names of ONNX Runtime's execution providers.
        threads: threads per call.
        kernels: name of the kernels of the bundle's custom operators; see `moembed.inference.kernels`.
    """

    def __init__(
        self, bundle: Bundle, tokenizer: Tokenizer, *, providers: Sequence[str], threads: int, kernels: str
    ) -> None:
        self._bundle, self._tokenizer = bundle, tokenizer
        self._session = PerProcess(partial(_open, bundle, tuple(providers), threads, kernels))

    def open(self) -> Any:
        """Return the ONNX Runtime session, opened on the first call.

        Raises:
            BundleError: the graph is damaged, or the model has no MoE layers.
        """
        return self._session.get()

    def run(self, ids: Ids) -> Routing:
        """Return the routing of one text.

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
        raise BundleError(f"{bundle.manifest.name} has no MoE layers, so it has no routing")
    options = session_options(Kernels(kernels))
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Routing is rare: its threads must not spin while those of the main session work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return session_with_outputs(bundle.graph.read_bytes(), bundle.graph.parent, _names(bundle), options, providers)


def _names(bundle: Bundle) -> list[str]:
    """List the names of each router's weights and expert indices, layer by layer."""
    return [
        name
        for _, router in sorted(bundle.manifest.routers.items())
        for name in (router.weights, router.expert_indices)
    ]


def _check(bundle: Bundle, weights: list[NDArray[Any]], experts: list[NDArray[Any]], tokens: int) -> None:
    """Check that the values are router weights and expert indices."""
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
