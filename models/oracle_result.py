"""Results of the numpy oracles."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OracleRouting:
    """Decision of one MoE layer's router.

    Attributes:
        probabilities: `[T, experts]` float64, the softmax over all experts.
        expert_indices: `[T, top_k]` int64, most probable first.
        weights: `[T, top_k]` float64.
    """

    probabilities: Array
    expert_indices: NDArray[np.int64]
    weights: Array


@dataclass(frozen=True)
class OracleResult:
    """Everything that is computed for one text.

    Attributes:
        embedding: `[hidden]` float64, unit length.
        pooled: `[hidden]` float64, the pooled state before normalization.
        hidden_states: the embedding LayerNorm's output and every layer's, each `[T, hidden]` float64.
        routing: MoE layer index -> its routing.
    """

    embedding: Array
    pooled: Array
    hidden_states: tuple[Array, ...]
    routing: dict[int, OracleRouting] = field(default_factory=dict)
