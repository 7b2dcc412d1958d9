"""Blocks of vectors with their rows, and the shape of the output."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.corpus.columns import Layout
from moembed.corpus.rows import Rows
from moembed.corpus.vectors import Vectors


@dataclass(frozen=True)
class Shape:
    """What writers know of the output before the first vector.

    Attributes:
        layout: ids and kept columns.
        dtype: dtype of a vector.
        stored: number of items of a stored vector.
        stamp: JSON of the stamp.
        windows: True if a text may have several vectors.
        fixed: True for lists of a fixed size in Parquet and Arrow.
    """

    layout: Layout
    dtype: np.dtype[Any]
    stored: int
    stamp: str
    windows: bool
    fixed: bool = True

    @property
    def scaled(self) -> bool:
        """True if vectors have scales."""
        return self.dtype.kind != "f"


@dataclass(frozen=True)
class Block:
    """Vectors with their rows.

    Attributes:
        rows: the rows.
        vectors: vectors of the rows that have one.
    """

    rows: Rows
    vectors: Vectors

    @property
    def indices(self) -> NDArray[np.int64]:
        """`[n]` int64, number of the row of each vector in the whole corpus."""
        return np.array(self.rows.indices, np.int64)[self.vectors.rows]

    def of_rows(self, values: list[Any]) -> list[Any]:
        """Return the value of each vector's row."""
        return [values[row] for row in self.vectors.rows]
