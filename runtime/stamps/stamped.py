"""Vectors with their stamp, and checks that a stamp agrees with them and with others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import array
from moembed.errors import InputError
from moembed.precision import DTYPES
from moembed.stamps.stamp import Stamp, differences

# Allowed distance of a length from 1. float16 rounds each component to 11 bits.
_UNIT = 1e-3
_BLOCK = 65_536  # rows whose lengths are computed at a time


@dataclass(frozen=True, eq=False)
class StampedVectors:
    """Vectors of one kind, with what they are. `numpy.asarray` returns the vectors.

    Attributes:
        vectors: `[n, width]`, or `[n, width / 8]` for bits, in the precision of the stamp.
        stamp: what decides their bytes; None for vectors that were loaded without a stamp on purpose.
        ids: n ids, if there are any.
        scales: `[n]` float32, for codes with a scale per vector.
        name: of the file or folder, for errors.

    Raises:
        InputError: width, dtype or length of the vectors are not those of the stamp, or another number of ids or scales.
    """

    vectors: NDArray[Any]
    stamp: Stamp | None
    ids: list[Any] | None = None
    scales: NDArray[np.float32] | None = None
    name: str = field(default="the vectors", kw_only=True)

    def __post_init__(self) -> None:
        vectors = array("vectors", self.vectors)
        object.__setattr__(self, "vectors", vectors)
        if vectors.ndim != 2:
            raise InputError(f"{self.name}: expected vectors of shape [n, width], found {vectors.shape}")
        for kind, values in (("ids", self.ids), ("scales", self.scales)):
            if values is not None and len(values) != len(vectors):
                raise InputError(f"{self.name}: {len(vectors)} vectors and {len(values)} {kind}; expected one of each")
        if self.stamp is not None:
            check_stored(vectors.shape[1], str(vectors.dtype), self.stamp, self.name)
            _check_unit(vectors, self.stamp, self.name)

    def __len__(self) -> int:
        return len(self.vectors)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is None:  # NumPy 1 does not know it
            return np.asarray(self.vectors, dtype)
        return np.array(self.vectors, dtype=dtype, copy=copy)


def check_stored(items: int, dtype: str, stamp: Stamp, name: str) -> None:
    """Check the width and the dtype of stored vectors against their stamp.

    Args:
        items: number of items of a stored vector.
        dtype: NumPy's name of their dtype.
        stamp: the stamp.
        name: of the file, for errors.

    Raises:
        InputError: they differ.
    """
    expected = -(-stamp.width // 8) if stamp.precision.endswith("binary") else stamp.width
    expected_dtype = DTYPES.get(stamp.precision, stamp.precision)
    if (items, dtype) != (expected, expected_dtype):
        raise InputError(
            f"{name}: vectors of {items} {dtype}, and their stamp says {stamp.width} dimensions in {stamp.precision}, which are "
            f"{expected} {expected_dtype}: the stamp belongs to other vectors; embed the texts again"
        )


def check_same(stamps: Mapping[str, Stamp | None], purpose: str) -> None:
    """Check that vectors are of one kind, so that they can stand in one index.

    Args:
        stamps: stamps of the vectors by name; the first is what the others are compared with.
        purpose: what needs it; the error's sentence starts with it.

    Raises:
        InputError: a stamp is missing, or differs from the first.
    """
    first: tuple[str, Stamp] | None = None
    for name, stamp in stamps.items():
        if stamp is None:
            raise InputError(f"{purpose} needs the stamp of {name}, which has none: embed its texts again")
        first = first or (name, stamp)
        if found := differences(first[1], stamp):
            raise InputError(f"{purpose} needs vectors of one kind; {first[0]} and {name} differ in {'; '.join(found)}")


def check_model(fingerprint: str, model: str, given: Mapping[str, object]) -> None:
    """Check that vectors with a stamp are of a model, so that their distances to its vectors mean something.

    Prompts, precisions and kernels may differ: queries and documents are compared.

    Args:
        fingerprint: of the model's bundle.
        model: its name.
        given: arguments by name; those that are no `StampedVectors` with a stamp are not checked.

    Raises:
        InputError: vectors are of another model.
    """
    for key, one in given.items():
        if isinstance(one, StampedVectors) and one.stamp is not None and one.stamp.fingerprint != fingerprint:
            raise InputError(
                f"{key} ({one.name}) cannot be compared with vectors of {model}, because it is of another bundle: "
                f"{one.stamp.model}, fingerprint {one.stamp.fingerprint[:16]}…, not {fingerprint[:16]}…: use one model for both"
            )


def check_one_model(given: Mapping[str, object]) -> None:
    """Check that vectors with a stamp are of one model.

    Args:
        given: arguments by name; those that are no `StampedVectors` with a stamp are not checked.

    Raises:
        InputError: vectors are of different models.
    """
    stamped = [one for one in given.values() if isinstance(one, StampedVectors)]
    if first := next((one.stamp for one in stamped if one.stamp is not None), None):
        check_model(first.fingerprint, first.model, given)


def _check_unit(vectors: NDArray[Any], stamp: Stamp, name: str) -> None:
    if not stamp.normalized or vectors.dtype.kind != "f":
        return
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK].astype(np.float32, copy=False)
        lengths = np.sqrt(np.einsum("ij,ij->i", block, block))
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT))
        if len(wrong):
            raise InputError(
                f"{name}: vector {start + wrong[0]} has length {lengths[wrong[0]]:.6g}, and its stamp says unit length: it was "
                "changed after it was stamped; embed the texts again"
            )
