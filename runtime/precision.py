"""Quantized output vectors: float16, one byte or one bit per dimension, and the way back.

A scale is a constant of the bundle or belongs to one vector, so quantized output is batch-invariant too (sentence-transformers
takes int8 ranges from the batch).
"""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import array, one_of
from moembed.bundle.int8 import LARGEST_CODE
from moembed.errors import ClippingWarning, InputError, shown, warn
from moembed.inference.float_mode import DEFAULT_FLOAT_MODE

Precision = Literal["float32", "float16", "int8", "int8-per-vector", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_FLOATS = ("float32", "float16")
# Dtypes of stored vectors, where they have another name than the precision.
DTYPES = {"binary": "int8", "ubinary": "uint8", "int8-per-vector": "int8"}
_BYTES = ("int8", "int8-per-vector", "uint8")
# Share of clipped components that shows that the scale is not that of the vectors.
_MAX_CLIPPED = 0.01


class QuantizedEmbeddings(NamedTuple):
    """Quantized vectors and their scales.

    Attributes:
        codes: `[..., dim]` int8 or uint8, `[..., dim / 8]` for packed bits, or floats.
        scales: `[...]` float32, one per vector: `vector = scale * code` (int8, int8-per-vector), `scale * (code - 128)`
            (uint8), or `+-scale` by bit (binary, ubinary); 1 for floats. The scales of int8 and uint8 are all equal.
    """

    codes: NDArray[Any]
    scales: NDArray[np.float32]


def shares_scale(precision: Precision) -> bool:
    """Return True for precisions whose codes all have one scale, that of `quantize_embeddings(scale=...)`."""
    return precision in ("int8", "uint8")


@DEFAULT_FLOAT_MODE
def quantize_embeddings(
    embeddings: NDArray[Any], precision: Precision, *, scale: float | None = None
) -> QuantizedEmbeddings:
    """Quantize float vectors.

    Args:
        embeddings: `[..., dim]` floats.
        precision: `"float32"`; `"float16"`; `"int8"`: codes from -127 to 127 with one scale, so that they rank by dot product,
            by cosine and by Euclidean distance; `"int8-per-vector"`: the largest absolute component of each vector becomes 127,
            so that codes rank by cosine alone; `"uint8"`: the codes of `"int8"` plus 128, which rank by Euclidean distance
            alone, for stores that have no signed bytes; `"ubinary"`: one bit per dimension (1 for > 0), eight to a byte, first
            dimension in the highest bit; `"binary"`: the same bytes minus 128, as int8.
        scale: size of one step of int8 and uint8 codes, from `Embedder.int8_scale`. Components beyond 127 steps are clipped.

    Raises:
        InputError: unknown precision, vectors that are not finite floats, a scale that is missing, not positive or of no use,
            or bits that do not fill bytes.
    """
    precision, vectors = one_of("precision", precision, PRECISIONS), array("embeddings", embeddings)
    if 0 in (vectors.ndim, *vectors.shape[-1:]) or vectors.dtype.kind != "f":
        raise InputError(f"expected an array of float vectors, found {vectors.dtype} of shape {vectors.shape}")
    vectors, step = _finite("the vectors hold", vectors, np.float32), _step(precision, scale)
    if precision in _FLOATS:
        codes = _finite("float16 would hold", vectors, np.dtype(precision))
        return QuantizedEmbeddings(codes, np.ones(vectors.shape[:-1], np.float32))
    if precision in _BYTES:
        if step is None:
            largest = np.abs(vectors).max(axis=-1, initial=0.0)
            # At least the smallest normal number: the scale of a subnormal vector would round to zero.
            scales = np.maximum(largest / np.float32(LARGEST_CODE), np.finfo(np.float32).tiny).astype(np.float32)
        else:
            scales = np.full(vectors.shape[:-1], step, np.float32)
        codes = _rounded(vectors, scales)
        return QuantizedEmbeddings(_offset(codes) if precision == "uint8" else codes, scales)
    if vectors.shape[-1] % 8:
        raise InputError(f"{precision} packs 8 dimensions into a byte; {vectors.shape[-1]} is not a multiple of 8")
    bits = np.packbits(vectors > 0, axis=-1)
    packed = bits if precision == "ubinary" else _offset(bits)
    return QuantizedEmbeddings(packed, np.abs(vectors).mean(axis=-1, dtype=np.float32))


@DEFAULT_FLOAT_MODE
def dequantize_embeddings(
    codes: NDArray[Any], precision: Precision, scales: NDArray[np.float32] | float | None = None
) -> NDArray[np.float32]:
    """Convert quantized vectors back to float32.

    Args:
        codes: from `quantize_embeddings` or `Embedder.encode(..., precision=...)`.
        precision: the precision of the codes.
        scales: one per vector, or one for all; None if the original vectors had unit length, which determines the scale.

    Returns:
        `[..., dim]` float32; of unit length if `scales` is None.

    Raises:
        InputError: unknown precision, codes with another dtype, scales that are not one number per vector, or NaN or infinity.
    """
    precision, codes = one_of("precision", precision, PRECISIONS), array("codes", codes)
    dtype = DTYPES.get(precision, precision)
    if codes.ndim == 0 or codes.dtype != dtype:
        raise InputError(f"{precision} codes are {dtype} arrays; found {codes.dtype} of shape {codes.shape}")
    if precision in _FLOATS:
        vectors = _finite("the codes hold", codes, np.float32)
    elif precision in _BYTES:
        vectors = (_offset(codes) if precision == "uint8" else codes).astype(np.float32)
    else:
        bits = np.unpackbits(codes if precision == "ubinary" else _offset(codes), axis=-1)
        vectors = bits.astype(np.float32) * 2 - 1
    if scales is not None:
        factors = _finite("the scales hold", array("scales", scales), np.float32)
        if factors.shape not in ((), codes.shape[:-1]):
            raise InputError(
                f"{codes.shape} codes take one scale or scales of shape {codes.shape[:-1]}; found {factors.shape}"
            )
        return np.asarray(vectors * factors[..., None], np.float32)
    return normalized(vectors)


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
    """Return the cosine similarity of each vector of `a` `[n, dim]` with each of `b` `[m, dim]`: `[n, m]` float32.

    A single vector `[dim]` counts as one row; the similarity of a zero vector is 0.

    Raises:
        InputError: the vectors are not finite floats, or their widths differ.
    """
    left, right = np.atleast_2d(a), np.atleast_2d(b)
    if left.dtype.kind != "f" or right.dtype.kind != "f":
        raise InputError(
            f"similarity takes float vectors, found {left.dtype} and {right.dtype}: use dequantize_embeddings first"
        )
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise InputError(f"similarity takes [n, dim] and [m, dim], found {left.shape} and {right.shape}")
    unit = [normalized(_finite("the vectors hold", x, np.float32)) for x in (left, right)]
    return np.asarray(unit[0] @ unit[1].T)


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale vectors `[..., dim]` float32 to unit length; zero vectors stay zero."""
    lengths = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), np.float32)


def layer_normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give vectors `[..., dim]` float32 the mean 0 and the variance 1: a LayerNorm without weights, of epsilon 1e-5."""
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + np.float32(1e-5)), np.float32)


def shortened(vectors: NDArray[np.float32], dim: int, *, normalize: bool) -> NDArray[np.float32]:
    """Return the first `dim` components of unit vectors `[n, hidden]` float32, scaled to unit length if `normalize`."""
    # Full vectors have unit length already; scaling them again could change their last bit.
    if dim == vectors.shape[-1]:
        return vectors
    shorter = np.ascontiguousarray(vectors[:, :dim])
    return normalized(shorter) if normalize else shorter


def _step(precision: Precision, scale: float | None) -> np.float32 | None:
    """Check the scale of one precision, and return it as float32; None for precisions without one."""
    if not shares_scale(precision):
        if scale is not None:
            raise InputError(f"scale = {shown(scale)}: int8 and uint8 take one, {precision} does not: leave it out")
        return None
    if scale is None:
        raise InputError(
            f"{precision} codes have one scale for all vectors: pass scale=embedder.int8_scale(dim), or choose the precision "
            "int8-per-vector"
        )
    number = array("scale", scale)
    if number.shape != () or number.dtype.kind not in "fiu" or not np.finfo(np.float32).tiny <= number < np.inf:
        raise InputError(f"scale = {shown(scale)}; expected a positive number, such as embedder.int8_scale(dim)")
    return np.float32(number)


def _rounded(vectors: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Divide vectors `[..., dim]` by scales `[...]`, round to codes, and warn if many are clipped."""
    with np.errstate(over="ignore"):
        steps = np.rint(vectors / scales[..., None])
    clipped = int(np.count_nonzero(np.abs(steps) > LARGEST_CODE))
    if clipped > _MAX_CLIPPED * steps.size:
        warn(
            ClippingWarning(
                f"{clipped} of {steps.size} components are larger than {LARGEST_CODE} times the scale {scales.flat[0]:.3g} and "
                "were clipped: the scale is that of other vectors, such as wider ones or ones of another model"
            )
        )
    return np.asarray(np.clip(steps, -LARGEST_CODE, LARGEST_CODE), np.int8)


def _finite(what: str, values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Cast values, and check that none is NaN, infinite or too large for the dtype."""
    with np.errstate(over="ignore"):
        cast = values.astype(dtype, copy=False)
    if not np.isfinite(cast).all():
        raise InputError(f"{what} NaN or infinity, or numbers too large for {cast.dtype}")
    return cast


def _offset(codes: NDArray[Any]) -> NDArray[Any]:
    # int8 <-> uint8, offset by 128: the same byte with its highest bit flipped.
    return (codes.view(np.uint8) ^ np.uint8(0x80)).view(np.uint8 if codes.dtype == np.int8 else np.int8)
