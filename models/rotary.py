"""Tables of rotary positions."""

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float32]


def rotary_table(head_dim: int, base: float, positions: int, divisor: float = 1.0) -> tuple[Table, Table]:
    """Compute cosines and sines of every position, each `[positions, head_dim / 2]`; `divisor` divides the frequencies.

    Frequencies and angles are rounded to float32, as upstream does. Everything else is computed in float64, so that maths
    libraries, which differ in the last bit of a result, lead to the same table.
    """
    exponent = np.arange(0, head_dim, 2) / head_dim
    frequencies = np.float32(1) / (base**exponent).astype(np.float32) / np.float32(divisor)
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles, dtype=np.float64).astype(np.float32), np.sin(angles, dtype=np.float64).astype(np.float32)


def no_rotation(head_dim: int, positions: int) -> tuple[Table, Table]:
    """Return cosines and sines that rotate nothing, exactly, each `[positions, head_dim / 2]`."""
    return np.ones((positions, head_dim // 2), np.float32), np.zeros((positions, head_dim // 2), np.float32)
