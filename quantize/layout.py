"""Layouts of quantized weights, and quantization to them.

INT8 weights have one layout for every instruction set: `[N/16][K/4][16][4]`, blocks of 16 output channels. A block row of
64 bytes is an AMX tile row, the operand of one AVX512-VNNI `dpbusd`, two AVX2 halves and NEON's `sdot` lanes at once, so that a
kernel reads the mapped file as it is. The bodies of the INT8 functions undo the layout.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.errors import InputError

BLOCK_N, BLOCK_K = 16, 4
BLOCK_4 = 32  # 4-bit values of a row that share a scale
LARGEST = 127  # absolute value of an int8 weight: quantization is symmetric
_ROWS = 4096  # quantized at a time: a table of word embeddings may be larger than memory


def fits(shape: tuple[int, ...]) -> bool:
    """Return True if a matrix `[N, K]` divides into whole blocks."""
    return len(shape) == 2 and shape[0] % BLOCK_N == 0 and shape[1] % BLOCK_K == 0


def pack(matrix: NDArray[np.int8]) -> NDArray[np.int8]:
    """Pack `[N, K]` to `[N/16, K/4, 16, 4]`; N counts output channels."""
    n, k = matrix.shape
    return np.ascontiguousarray(matrix.reshape(n // BLOCK_N, BLOCK_N, k // BLOCK_K, BLOCK_K).transpose(0, 2, 1, 3))


def unpack(packed: NDArray[np.int8]) -> NDArray[np.int8]:
    """Unpack `[N/16, K/4, 16, 4]` to `[N, K]`, the inverse of `pack`."""
    blocks, depth = packed.shape[:2]
    return np.ascontiguousarray(packed.transpose(0, 2, 1, 3).reshape(blocks * BLOCK_N, depth * BLOCK_K))


def quantize_rows(matrix: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize `[N, K]` symmetrically with one scale per row.

    Args:
        matrix: float32, or a dtype of fewer bits.

    Returns:
        int8 values in -127..127 of the same shape, and float32 scales `[N]`.
    """
    integers, scales = np.empty(matrix.shape, np.int8), np.empty(len(matrix), np.float32)
    for start in range(0, len(matrix), _ROWS):
        rows = matrix[start : start + _ROWS].astype(np.float32, copy=False)
        scales[start : start + _ROWS] = found = scales_of(rows)
        integers[start : start + _ROWS] = np.clip(np.rint(rows / found[:, None]), -LARGEST, LARGEST)
    return integers, scales


def quantize_blocks(matrix: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Quantize `[N, K]` to 4 bits with one scale per 32 values of a row.

    A block's value of largest magnitude becomes -8 times the scale, or 7, 6, ... 1 times it, whichever leaves the smallest error:
    values that are 4-bit integers times a float16 scale are reproduced exactly.

    Args:
        matrix: float32, or a dtype of fewer bits; K a multiple of 32.

    Returns:
        4-bit integers with zero point 8, two to a byte, the lower half first, `[N, K/2]` uint8, and scales `[N, K/32]` float16.

    Raises:
        InputError: a value is not finite, or beyond float16, the dtype of the scales.
    """
    parts = [
        _quantize_blocks(matrix[start : start + _ROWS].astype(np.float32, copy=False))
        for start in range(0, len(matrix), _ROWS)
    ]
    return np.concatenate([packed for packed, _ in parts]), np.concatenate([scales for _, scales in parts])


def _quantize_blocks(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    largest, limit = np.abs(matrix).max(initial=0), np.finfo(np.float16).max
    if not largest <= limit:  # also refuses NaN
        raise InputError(
            f"the table has a value of magnitude {largest:g}, but in 4 bits at most {limit:g} is possible: use a recipe with an "
            "8-bit table, such as int8"
        )
    blocks = matrix.reshape(-1, BLOCK_4)
    peaks = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], axis=1)
    best, integers = np.zeros(peaks.shape, np.float16), np.full(blocks.shape, 8, np.uint8)
    least = np.square(blocks).sum(1, keepdims=True)
    # Only -8 has no positive counterpart. For the others the scale is positive, whatever the sign of the peak.
    for scale in (peaks / np.float32(-8), *(np.abs(peaks) / np.float32(integer) for integer in range(7, 0, -1))):
        half = scale.astype(np.float16)
        single = half.astype(np.float32)
        tried = np.clip(np.rint(np.divide(blocks, single, out=np.zeros_like(blocks), where=single != 0)), -8, 7)
        error = np.square(blocks - tried * single).sum(1, keepdims=True)
        better = error < least
        least, best = np.where(better, error, least), np.where(better, half, best)
        integers = np.where(better, tried.astype(np.int8) + 8, integers).astype(np.uint8)
    first, second = integers[:, ::2], integers[:, 1::2]
    packed = (first + 16 * second).astype(np.uint8)
    return packed.reshape(len(matrix), -1), best.astype(np.float16).reshape(len(matrix), -1)


def dequantize_blocks(packed: NDArray[np.uint8], scales: NDArray[np.float16]) -> NDArray[np.float32]:
    """Dequantize the result of `quantize_blocks`: `[N, K/2]` and `[N, K/32]` -> `[N, K]`."""
    centred = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*scales.shape, BLOCK_4).astype(np.float32) - 8
    return (centred * scales.astype(np.float32)[..., None]).reshape(len(packed), -1)


def scales_of(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scale of every row of `[N, K]`: `[N]` float32; 1 for a row of zeros."""
    largest = np.abs(matrix).max(axis=1)
    return np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1)).astype(np.float32)
