"""Rounding weights so that the errors of a row cancel on real inputs (GPTQ, arXiv 2210.17323).

Plain rounding treats each weight by itself. Here the columns are rounded one after the other, the most active first, and the
columns that are still to come compensate for the error of each, as far as the correlation of the inputs allows.

With the inputs' second moments `H = L @ L.T`, columns in the order of their activity with the least active first, the weighted
error of a row is the length of `L.T @ error`. Its last entry depends on the last column alone, the one before on two, and so on:
each column is rounded, in this order, to what makes its entry smallest. That gives the integers of GPTQ, which states it with the
inverse of `H` (arXiv 2507.18553), without the inversion.

All sums are exact or in a fixed order, so that a weight is rounded to the same integer on every machine.
"""

import math

import numpy as np
from numpy.typing import NDArray

from moembed.quantize.exact import Matrix, exact_product, fixed_point
from moembed.quantize.layout import LARGEST, scales_of

_BLOCK = 32
_CHUNK = 1024  # rows whose products are added up exactly
_SCALE_BITS = 13  # with 8 bits of an activation: (2^21)^2 * 1024 is below 2^53


def second_moments(quantized: NDArray[np.uint8], scales: NDArray[np.float32], zero_point: int) -> Matrix:
    """Add up the products of all pairs of columns, the same bytes on every machine.

    Args:
        quantized: `[T, K]`.
        scales: `[T]` or `[T, 1]`, positive: the rows are `(quantized - zero_point) * scales`. They are rounded to 13 bits.
        zero_point: the integer that stands for 0.

    Returns:
        `[K, K]`, up to a common factor; zeros without rows.
    """
    width = quantized.shape[1]
    moments = np.zeros((width, width))
    if not len(quantized):
        return moments
    factors = scales.reshape(-1, 1).astype(np.float64)
    factors = np.maximum(np.rint(factors * (math.ldexp(1.0, _SCALE_BITS) / factors.max())), 1.0)
    for start in range(0, len(quantized), _CHUNK):
        rows = (quantized[start : start + _CHUNK] - np.float64(zero_point)) * factors[start : start + _CHUNK]
        moments += rows.T @ rows
    return moments


def rounded(
    matrix: NDArray[np.float32], moments: Matrix, damping: float
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize `[N, K]` symmetrically with one scale per row, for inputs of given second moments.

    Args:
        matrix: `[N, K]`; N counts output channels.
        moments: `[K, K]`, from `second_moments`; zeros give plain rounding.
        damping: addition to the diagonal of the moments, relative to its mean: the weight of directions that the inputs do not
            have.

    Returns:
        int8 values in -127..127 of the same shape, and float32 scales `[N]`, those of plain rounding.
    """
    scales = scales_of(matrix)
    order, spread = spread_of(moments, damping)
    # A column of the matrix is a row here.
    weights = np.ascontiguousarray((matrix / scales[:, None]).T[order], np.float64)
    compensation = np.zeros_like(weights)
    integers = np.empty(weights.shape, np.int8)
    for stop in range(len(weights), 0, -_BLOCK):
        start = max(stop - _BLOCK, 0)
        errors = np.empty((stop - start, weights.shape[1]))
        for k in range(stop - 1, start - 1, -1):
            integer = np.clip(np.rint(weights[k] + compensation[k]), -LARGEST, LARGEST)
            integers[order[k]] = integer
            errors[k - start] = error = weights[k] - integer
            compensation[start:k] += spread[k, start:k, None] * error
        compensation[:start] += exact_product(fixed_point(spread[start:stop, :start].T), fixed_point(errors))
    return np.ascontiguousarray(integers.T), scales


def spread_of(moments: Matrix, damping: float) -> tuple[NDArray[np.int64], Matrix]:
    """Return the order of the columns and the spread of each one's error over the others.

    Returns:
        The columns `[K]`, least active first; and `[K, K]`, whose entry j, k below the diagonal is the share of the error of the
        column at j that the column at k compensates for.
    """
    diagonal = np.einsum("kk->k", moments)
    added = damping * math.fsum(diagonal) / len(diagonal) + 1e-12
    order = np.argsort(diagonal, kind="stable")
    lengths = np.sqrt(diagonal[order] + added)
    correlations = moments[np.ix_(order, order)]
    correlations /= lengths[:, None]
    correlations /= lengths
    np.einsum("kk->k", correlations)[:] = 1.0
    factor = _cholesky(correlations, added / np.square(lengths))
    pivots = np.einsum("kk->k", factor) * lengths
    factor *= lengths[:, None]
    factor /= pivots
    return order, factor


def _cholesky(matrix: Matrix, least: NDArray[np.float64]) -> Matrix:
    """Factor a matrix with a diagonal of ones, `[K, K]`; it is overwritten with the factor, zero above the diagonal.

    Args:
        matrix: positive definite.
        least: `[K]`, what every pivot is at least; only roundings make one smaller.
    """
    size = len(matrix)
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        before = matrix[:, :start]  # the factor's columns so far
        columns = np.ascontiguousarray(matrix[start:, start:stop].T)
        if start:
            columns -= exact_product(before[start:stop], before[start:].T)
        for k in range(stop - start):
            columns[k, k] = max(columns[k, k], least[start + k])
            columns[k, k:] /= math.sqrt(columns[k, k])
            columns[k, :k] = 0.0
            columns[k + 1 :, k + 1 :] -= columns[k, k + 1 : stop - start, None] * columns[k, k + 1 :]
        matrix[start:, start:stop] = fixed_point(columns, 1.0).T
        matrix[start:stop, stop:] = 0.0
    return matrix
