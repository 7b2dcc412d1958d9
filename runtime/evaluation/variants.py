"""What is compared: widths and precisions, all of them made from one full vector per text.

The precision is that of the vectors that are stored: the corpus in retrieval, both sides of pairs. Queries stay float32, as
they are never stored, so that `int8` and `binary` measure what the storage costs when the search is exact (`binary`: float query
times signs). `hamming` stores the same bits and cuts the query to bits too, which is what an index of Hamming distances does.
Every stored vector counts with unit length, so that all scores are cosines.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from moembed.errors import InputError
from moembed.precision import PRECISIONS, Precision, dequantize_embeddings, normalized, quantize_embeddings

HAMMING = "hamming"
CHOICES: tuple[str, ...] = (*PRECISIONS, HAMMING)


class Variant(NamedTuple):
    """A width and one of `CHOICES`."""

    dim: int
    precision: str


def variants(dims: Sequence[int], precisions: Sequence[str], width: int) -> tuple[Variant, ...]:
    """Every width with every precision.

    Raises:
        InputError: a width is not in 1 to `width`, a precision is unknown, or bits do not fill bytes.
    """
    for dim in dims:
        if not 1 <= dim <= width:
            raise InputError(f"dim = {dim}; expected 1 to {width}, the width of the model's vectors")
    for precision in precisions:
        if precision not in CHOICES:
            raise InputError(f"precision = {precision!r}; expected one of {', '.join(CHOICES)}")
        odd = [dim for dim in dims if dim % 8]
        if odd and (precision.endswith("binary") or precision == HAMMING):
            raise InputError(f"{precision} packs 8 dimensions to a byte; {odd[0]} is not a multiple of 8")
    return tuple(dict.fromkeys(Variant(dim, precision) for dim in dims for precision in precisions))


def stored(vectors: NDArray[np.float32], variant: Variant) -> NDArray[np.float32]:
    """Full unit vectors `[n, width]` as the variant keeps them: `[n, variant.dim]` float32 of unit length."""
    cut = _cut(vectors, variant.dim)
    if variant.precision == "float32":
        return cut
    precision = cast("Precision", "ubinary" if variant.precision == HAMMING else variant.precision)
    return dequantize_embeddings(quantize_embeddings(cut, precision).codes, precision)


def asking(vectors: NDArray[np.float32], variant: Variant) -> NDArray[np.float32]:
    """Full unit vectors `[n, width]` of queries as the variant searches with them: `[n, variant.dim]` float32."""
    return stored(vectors, variant if variant.precision == HAMMING else Variant(variant.dim, "float32"))


def _cut(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    # As Embedder.encode(truncate_dim=dim) does, to the bit: full vectors have unit length already.
    return vectors if dim == vectors.shape[1] else normalized(np.ascontiguousarray(vectors[:, :dim]))
