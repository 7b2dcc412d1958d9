"""Outputs of an implementation of the network for one text: what comparisons are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.bundle.bundle import Bundle
from moembed.inference.session import Output, session_options, session_with_outputs


@dataclass(frozen=True)
class Routing:
    """Decision of the router of one MoE layer.

    Attributes:
        expert_indices: `[T, top_k]` int64.
        weights: `[T, top_k]`.
        margin: `[T]`, the probability of the last expert chosen minus that of the first not chosen; None where it is not known.
    """

    expert_indices: NDArray[np.int64]
    weights: NDArray[Any]
    margin: NDArray[Any] | None = None


@dataclass(frozen=True)
class ModelOutput:
    """Output of one implementation for one text.

    Attributes:
        embedding: `[hidden]`.
        hidden_states: `[T, hidden]` of the embedding's norm and of every layer.
        routing: MoE layer -> its routing.
    """

    embedding: NDArray[Any]
    hidden_states: list[NDArray[Any]]
    routing: dict[int, Routing]


Runner = Callable[[list[int]], ModelOutput]


def bundle_runner(bundle: Bundle) -> Runner:
    """Return a runner of a bundle that needs no extra: of the hidden states it has only the graph's `token_embeddings`."""
    routers = sorted(bundle.manifest.routers.items())
    names = [name for _, router in routers for name in (router.weights, router.expert_indices)]
    session = session_with_outputs(bundle.graph.read_bytes(), bundle.graph.parent, names, session_options())

    def run(ids: list[int]) -> ModelOutput:
        feed = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
        embeddings, tokens, *values = session.run([Output.EMBEDDING, Output.TOKENS, *names], feed)
        decisions = zip(routers, values[0::2], values[1::2], strict=True)
        routing = {layer: Routing(indices, weights) for (layer, _), weights, indices in decisions}
        return ModelOutput(embeddings[0], [tokens[0]], routing)

    return run
