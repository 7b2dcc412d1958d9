"""JSON encoding of vectors, in chunks: a response with thousands of them is never in memory as a whole."""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from moembed.digits import json_list

# Vectors encoded before other requests get a turn: about two milliseconds of work.
_ROWS_PER_CHUNK = 32
_CHUNK_BYTES = 262_144

_encode = msgspec.json.Encoder().encode
# JSON string that stands for an array that is encoded later. No response contains it, so no client can send it.
_PLACEHOLDER = _encode(uuid.uuid4().hex)


def json_numbers(vector: NDArray[Any]) -> msgspec.Raw:
    """Return a vector as JSON numbers: the shortest that read back as the same float32."""
    return msgspec.Raw(_encode(json_list(vector)))


def base64_floats(vector: NDArray[np.float32]) -> str:
    """Return a vector's little-endian float32 bytes in base64."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii")


class LazyArray:
    """JSON array whose items are encoded while the response is sent.

    Args:
        write: function from a row to an object that msgspec encodes.
        rows: rows, for example vectors.
    """

    def __init__(self, write: Callable[[Any], Any], rows: "Sequence[Any] | NDArray[Any]") -> None:
        self._write, self._rows = write, rows

    def __len__(self) -> int:
        return len(self._rows)

    def chunk(self, first: int = 0, count: int = _ROWS_PER_CHUNK) -> bytes:
        """Return the JSON of some items, without the brackets of the array."""
        return b",".join(_encode(self._write(row)) for row in self._rows[first : first + count])


def lazy_array(write: Callable[[Any], Any], rows: "Sequence[Any] | NDArray[Any]") -> Any:
    """Return a `LazyArray`, typed so that it can stand where a response type declares a list."""
    return LazyArray(write, rows)


def encode_body(body: Any) -> bytes | AsyncIterator[bytes | memoryview]:
    """Return the JSON of a response body: in chunks if it contains a long array."""
    arrays: list[LazyArray] = []

    def hook(array: Any) -> msgspec.Raw:
        if not isinstance(array, LazyArray):
            raise NotImplementedError(f"cannot encode {type(array).__name__} in a response")
        if len(array) <= _ROWS_PER_CHUNK:
            return msgspec.Raw(b"[" + array.chunk() + b"]")
        arrays.append(array)
        return msgspec.Raw(_PLACEHOLDER)

    frame = msgspec.json.encode(body, enc_hook=hook)
    return _chunks(frame, arrays) if arrays else frame


async def _chunks(frame: bytes, arrays: list[LazyArray]) -> AsyncIterator[bytes | memoryview]:
    start = 0
    for array in arrays:
        end = frame.index(_PLACEHOLDER, start)
        for chunk in _slices(frame, start, end):
            yield chunk
        start = end + len(_PLACEHOLDER)
        for first in range(0, len(array), _ROWS_PER_CHUNK):
            yield (b"," if first else b"[") + array.chunk(first)
            await asyncio.sleep(0)  # let other requests run
        yield b"]"
    for chunk in _slices(frame, start, len(frame)):
        yield chunk


def _slices(frame: bytes, start: int, end: int) -> list[memoryview]:
    view = memoryview(frame)
    return [view[first : min(first + _CHUNK_BYTES, end)] for first in range(start, end, _CHUNK_BYTES)]
