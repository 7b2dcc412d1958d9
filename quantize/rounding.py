"""Rounding weights so that the errors of a row cancel on real inputs (GPTQ, arXiv 2210.17323).

Plain rounding treats each weight by itself. Here the columns are rounded one after the other, the most active first, and the
columns that are still to come compensate for the error of each, as far as the correlation of the inputs allows.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from moembed.quantize.layout import LARGEST, scales_of

_BLOCK = 64


def rounded(
    matrix: NDArray[np.float32], inputs: NDArray[np.float32], damping: float
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize `[N, K]` symmetrically with one scale per row, for inputs like the given ones.

    Args:
        matrix: `[N, K]`; N counts output channels.
        inputs: `[T, K]`, rows that `matrix` is multiplied with; zero rows give plain rounding.
        damping: addition to the diagonal of the inputs' second moments, relative to its mean: the weight of directions that the
            inputs do not have.

    Returns:
        int8 values in -127..127 of the same shape, and float32 scales `[N]`, those of plain rounding.
    """
    scales = scales_of(matrix)
    order, spread = spread_of(inputs, damping)
    left = np.ascontiguousarray((matrix / scales[:, None]).T[order])  # [K, N]: a column of the matrix is a row here
    integers = np.empty(left.shape, np.int8)
    for start in range(0, len(left), _BLOCK):
        stop = min(start + _BLOCK, len(left))
        errors = np.empty((stop - start, left.shape[1]), np.float32)
        for k in range(start, stop):
            integer = np.clip(np.rint(left[k]), -LARGEST, LARGEST)
            integers[order[k]] = integer
            errors[k - start] = (left[k] - integer) / spread[k, k]
            left[k + 1 : stop] -= spread[k, k + 1 : stop, None] * errors[k - start]
        left[stop:] -= spread[start:stop, stop:].T @ errors
    return np.ascontiguousarray(integers.T), scales


def spread_of(inputs: NDArray[np.float32], damping: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the order of the columns `[K]`, and the spread of each one's error over later ones, `[K, K]` upper triangular."""
    moments = (inputs.T @ inputs).astype(np.float64) / max(len(inputs), 1)
    diagonal = np.einsum("kk->k", moments)
    diagonal += damping * diagonal.mean() + 1e-12
    order = np.argsort(-diagonal, kind="stable")
    lower = torch.linalg.cholesky(torch.from_numpy(moments[np.ix_(order, order)]))
    return order, torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).float().numpy()
