"""Results of the numpy oracles, and the mathematics that all of them share: softmax, GELU, LayerNorm, unit length."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moembed.models.pooling import Pooling

Array = NDArray[np.float64]
_erf = np.frompyfunc(math.erf, 1, 1)


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


def unit(x: Array) -> Array:
    """Scale `[hidden]` to length 1."""
    return np.asarray(x / max(float(np.sqrt((x**2).sum())), 1e-12))


def pooled_state(x: Array, pooling: Pooling) -> Array:
    """Pool the states `[T, hidden]` of one text to `[hidden]`."""
    return np.asarray(x.sum(axis=0) / len(x) if pooling == Pooling.MEAN else x[0])


def gelu(x: Array) -> Array:
    """Compute the exact GELU, which is defined by the error function."""
    return x * 0.5 * (1.0 + np.asarray(_erf(x / math.sqrt(2.0)), np.float64))


def softmax(x: Array) -> Array:
    """Compute the softmax of every row of `[N, K]`."""
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Normalize every row of `[T, hidden]`."""
    centred = x - x.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + epsilon) * weight + bias)


def slices(lengths: list[int]) -> list[slice]:
    """Return the rows of each text where texts are packed one behind the other."""
    stops = np.cumsum(lengths).tolist()
    return [slice(stop - length, stop) for length, stop in zip(lengths, stops, strict=True)]
