"""The one weight layout of every instruction set: `[N/16][K/4][16][4]`, blocks of 16 output channels.

A block row of 64 bytes is an AMX tile row, the operand of one AVX512-VNNI `dpbusd`, two AVX2 halves and NEON's `sdot`
lanes at once, so that a kernel reads the mapped file as it is. The bodies of the INT8 functions undo it.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK_N, BLOCK_K = 16, 4
LARGEST = 127  # of a code's absolute value: symmetric


def fits(shape: tuple[int, ...]) -> bool:
    """Whether a matrix `[N, K]` divides into whole blocks."""
    return len(shape) == 2 and shape[0] % BLOCK_N == 0 and shape[1] % BLOCK_K == 0


def pack(matrix: NDArray[np.int8]) -> NDArray[np.int8]:
    """`[N, K]` -> `[N/16, K/4, 16, 4]`; N counts output channels."""
    n, k = matrix.shape
    return np.ascontiguousarray(matrix.reshape(n // BLOCK_N, BLOCK_N, k // BLOCK_K, BLOCK_K).transpose(0, 2, 1, 3))


def unpack(packed: NDArray[np.int8]) -> NDArray[np.int8]:
    """`[N/16, K/4, 16, 4]` -> `[N, K]`, the inverse of `pack`."""
    blocks, depth = packed.shape[:2]
    return np.ascontiguousarray(packed.transpose(0, 2, 1, 3).reshape(blocks * BLOCK_N, depth * BLOCK_K))


def quantize_rows(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise `[N, K]` symmetrically with one scale per row.

    Returns:
        int8 codes in -127..127 of the same shape, and float32 scales `[N]`.
    """
    scales = scales_of(matrix)
    return np.clip(np.rint(matrix / scales[:, None]), -LARGEST, LARGEST).astype(np.int8), scales


def scales_of(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scale of every row of `[N, K]`: `[N]` float32; 1 for a row of zeros."""
    largest = np.abs(matrix).max(axis=1)
    return np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1)).astype(np.float32)
