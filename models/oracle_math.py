"""Mathematics of the numpy oracles, in float64: what the descriptions of all models use by the same names."""

import math
from collections.abc import Sequence

import numpy as np

from moembed.models.oracle_result import Array
from moembed.models.pooling import Pooling

_erf = np.frompyfunc(math.erf, 1, 1)


def unit(x: Array) -> Array:
    """Scale `[hidden]` to length 1."""
    return np.asarray(x / max(float(np.sqrt((x**2).sum())), 1e-12))


def pooled_state(x: Array, pooling: Pooling) -> Array:
    """Pool the states `[T, hidden]` of one text to `[hidden]`."""
    return np.asarray(x.sum(axis=0) / len(x) if pooling == Pooling.MEAN else x[0])


def gelu(x: Array) -> Array:
    """Compute the exact GELU, which is defined by the error function."""
    return x * 0.5 * (1.0 + np.asarray(_erf(x / math.sqrt(2.0)), np.float64))


def silu(x: Array) -> Array:
    """Compute SiLU, `x * sigmoid(x)`."""
    return np.asarray(x / (1.0 + np.exp(-x)))


def softmax(x: Array) -> Array:
    """Compute the softmax of every row of `[N, K]`."""
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Normalize every row of `[T, hidden]`."""
    return standardized(x, epsilon) * weight + bias


def standardized(x: Array, epsilon: float) -> Array:
    """Give every row of `[T, hidden]` the mean 0 and the variance 1."""
    centred = x - x.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + epsilon))


def slices(lengths: list[int]) -> list[slice]:
    """Return the rows of each text where texts are packed one behind the other."""
    stops = np.cumsum(lengths).tolist()
    return [slice(stop - length, stop) for length, stop in zip(lengths, stops, strict=True)]


def rotary_frequencies(head_dim: int, base: float, divisor: float = 1.0) -> Array:
    """Return the frequencies `[head_dim / 2]`, which upstream computes in float32; angles of them are not rounded again."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return np.asarray(np.float32(1) / np.float32(base) ** exponent / np.float32(divisor), np.float64)


def attention(
    q: Array, k: Array, v: Array, texts: Sequence[slice], heads: int, frequencies: Array | None = None
) -> Array:
    """Attend within each text.

    Args:
        q: queries `[T, hidden]`, of which each head has a slice of columns.
        k: keys, of the same shape.
        v: values, of the same shape.
        texts: rows of each text.
        heads: number of heads.
        frequencies: rotary frequencies, by which the halves of a head are rotated; None for no rotation.
    """
    out, width = np.empty_like(q), q.shape[1] // heads
    for text in texts:
        length = text.stop - text.start
        angles = np.zeros((length, width // 2)) if frequencies is None else np.outer(np.arange(length), frequencies)
        for head in range(heads):
            columns = slice(head * width, (head + 1) * width)
            rotated_q, rotated_k = (_rotated(rows[text, columns], angles) for rows in (q, k))
            out[text, columns] = softmax(rotated_q @ rotated_k.T / math.sqrt(width)) @ v[text, columns]
    return out


def _rotated(x: Array, angles: Array) -> Array:
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = np.split(x, 2, axis=1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)
