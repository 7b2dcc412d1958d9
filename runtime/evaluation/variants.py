"""Variants of a model: widths and precisions, all derived from one full vector per text.

The precision is that of stored vectors: the corpus in retrieval, both sides of pairs. Queries are not stored and stay float32, so
`int8` and `binary` measure the loss by storage under exact search (`binary`: float query times signs). `hamming` stores the same
bits and also binarizes the query, as an index by Hamming distance does. All scores are dot products. Stored vectors have unit
length, so that these are cosines, but for `int8` and `uint8`: their codes share a scale, and stores compare them as they are.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from moembed.errors import InputError
from moembed.precision import (
    PRECISIONS,
    Precision,
    dequantize_embeddings,
    normalized,
    quantize_embeddings,
    shares_scale,
)

HAMMING = "hamming"
CHOICES: tuple[str, ...] = (*PRECISIONS, HAMMING)


class Variant(NamedTuple):
    """Width and precision, one of `CHOICES`."""

    dim: int
    precision: str


def variants(dims: Sequence[int], precisions: Sequence[str], width: int) -> tuple[Variant, ...]:
    """Return every width with every precision.

    Raises:
        InputError: a width is not in 1 to `width`, a precision is unknown, or a width for bits is not a multiple of 8.
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


def as_stored(
    vectors: NDArray[np.float32], variant: Variant, int8_scale: Callable[[int], float]
) -> NDArray[np.float32]:
    """Convert full unit vectors `[n, width]` to stored vectors of the variant: `[n, variant.dim]` float32.

    Args:
        vectors: full unit vectors.
        variant: width and precision.
        int8_scale: returns the model's scale of int8 codes for a width.
    """
    truncated = _truncated(vectors, variant.dim)
    if variant.precision == "float32":
        return truncated
    precision = cast("Precision", "ubinary" if variant.precision == HAMMING else variant.precision)
    scale = int8_scale(variant.dim) if shares_scale(precision) else None
    codes = quantize_embeddings(truncated, precision, scale=scale).codes
    return dequantize_embeddings(codes, precision, scale)


def as_query(vectors: NDArray[np.float32], variant: Variant) -> NDArray[np.float32]:
    """Convert full unit vectors `[n, width]` to query vectors of the variant: `[n, variant.dim]` float32."""
    truncated = _truncated(vectors, variant.dim)
    if variant.precision != HAMMING:
        return truncated
    return dequantize_embeddings(quantize_embeddings(truncated, "ubinary").codes, "ubinary")


def _truncated(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    # Bit-identical to Embedder.encode(truncate_dim=dim): full vectors have unit length already.
    return vectors if dim == vectors.shape[1] else normalized(np.ascontiguousarray(vectors[:, :dim]))
