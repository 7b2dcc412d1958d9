"""Table of rotary positions."""

import numpy as np
from numpy.typing import NDArray

from moembed.models.config import NomicMoeConfig

Table = NDArray[np.float32]


def rotary_table(config: NomicMoeConfig) -> tuple[Table, Table]:
    """Compute cosines and sines of every position, each `[max_positions, head_dim / 2]`.

    Frequencies and angles are rounded to float32, as upstream does. Everything else is computed in float64, so that maths
    libraries, which differ in the last bit of a result, lead to the same table.
    """
    exponent = np.arange(0, config.head_dim, 2) / config.head_dim
    frequencies = np.float32(1) / (config.rotary_base**exponent).astype(np.float32)
    angles = np.arange(config.max_positions, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles, dtype=np.float64).astype(np.float32), np.sin(angles, dtype=np.float64).astype(np.float32)
