"""Second stage of a search: exact scores of the candidates that a first stage found."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import array, whole
from moembed.errors import InputError
from moembed.inference.float_mode import DEFAULT_FLOAT_MODE
from moembed.precision import Precision, dequantize_embeddings
from moembed.stamps.stamped import StampedVectors, check_one_model

_MAX_NUMBERS = 2**22  # of the candidates of one block of queries: 16 MB of float32


class Rescored(NamedTuple):
    """Candidates in their new order, best first.

    Attributes:
        indices: `[k]` for one query, `[queries, k]` for several: int64, rows of the vectors; -1 where there is no candidate.
        scores: float32 of the same shape: cosine of the query and the vector; minus infinity where there is no candidate.
    """

    indices: NDArray[np.int64]
    scores: NDArray[np.float32]


@DEFAULT_FLOAT_MODE
def rescore(
    query: NDArray[Any] | StampedVectors,
    candidates: NDArray[Any],
    vectors: NDArray[Any] | StampedVectors,
    *,
    top_k: int | None = None,
) -> Rescored:
    """Order the candidates of a first stage, such as a search over bits, by their cosine with the float query.

    Only the rows of candidates are read, so `vectors` may be a mapped file. Equal scores keep the order of the candidates.

    Args:
        query: `[dim]` or `[queries, dim]` floats.
        candidates: `[n]` or `[queries, n]` integers: rows of `vectors` for each query. Negative ones, which faiss returns where
            it found too few, are no candidates. For vectors that a store returned in this order pass `np.arange(n)`.
        vectors: `[rows, dim]` floats, or codes of any precision: int8 or uint8 `[rows, dim]`, bits `[rows, dim / 8]`. Neither
            needs its scale, which no cosine depends on.
        top_k: number of results per query; None for all candidates.

    Raises:
        InputError: shapes or dtypes that do not belong together, NaN or infinity, a row that does not exist, or stamps of two
            models.
    """
    check_one_model({"query": query, "vectors": vectors})
    queries, rows, stored = array("query", query), array("candidates", candidates), array("vectors", vectors)
    rows = rows if rows.size else rows.astype(np.int64)  # an empty list gives floats
    if queries.dtype.kind != "f" or queries.ndim not in (1, 2):
        raise InputError(f"query is {queries.dtype} of shape {queries.shape}; expected floats [dim] or [queries, dim]")
    if rows.dtype.kind not in "iu" or rows.shape[:-1] != queries.shape[:-1] or rows.ndim != queries.ndim:
        expected = "[n]" if queries.ndim == 1 else f"[{len(queries)}, n]"
        raise InputError(
            f"candidates is {rows.dtype} of shape {rows.shape}; a query of shape {queries.shape} takes integers {expected}"
        )
    precision = _precision_of(stored, queries.shape[-1])
    if rows.size and rows.max() >= len(stored):
        raise InputError(
            f"candidates has row {rows.max()}, but there are {len(stored)} vectors: both must be of one index"
        )
    count = rows.shape[-1] if top_k is None else min(whole("top_k", top_k), rows.shape[-1])
    unit, found = _unit(np.atleast_2d(queries), "float32"), np.atleast_2d(rows).astype(np.int64)
    scores = np.zeros(found.shape, np.float32)
    block = max(1, _MAX_NUMBERS // max(1, found.shape[1] * unit.shape[1]))
    for first in range(0, len(found), block):
        part = slice(first, first + block)
        if (found[part] >= 0).any():
            read = _unit(stored[np.maximum(found[part], 0)], precision)
            scores[part] = np.einsum("qd,qnd->qn", unit[part], read)
    scores[found < 0], found[found < 0] = -np.inf, -1
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    results = Rescored(np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1))
    return Rescored(results.indices[0], results.scores[0]) if queries.ndim == 1 else results


def _unit(vectors: NDArray[Any], precision: Precision) -> NDArray[np.float32]:
    """Return stored vectors as float32 of unit length."""
    if precision == "float32":
        with np.errstate(over="ignore"):
            vectors = vectors.astype(np.float32, copy=False)
    return dequantize_embeddings(vectors, precision)


def _precision_of(vectors: NDArray[Any], dim: int) -> Precision:
    """Return the precision of stored vectors, which their dtype and width tell."""
    kinds: dict[tuple[str, bool], Precision] = {
        ("int8", False): "int8",
        ("uint8", False): "uint8",
        ("int8", True): "binary",
        ("uint8", True): "ubinary",
        ("float16", False): "float16",
        ("float32", False): "float32",
        ("float64", False): "float32",
    }
    bits = vectors.ndim == 2 and 8 * vectors.shape[1] == dim
    precision = kinds.get((vectors.dtype.name, bits))
    if vectors.ndim != 2 or dim == 0 or precision is None or (not bits and vectors.shape[1] != dim):
        raise InputError(
            f"vectors is {vectors.dtype} of shape {vectors.shape}; a query of {dim} dimensions takes [rows, {dim}] floats, "
            f"int8 or uint8, or bits [rows, {dim} / 8] as uint8 or int8"
        )
    return precision
