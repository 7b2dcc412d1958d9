"""Vectors as the APIs write them: in parts, so that an answer of thousands is nowhere in memory as a whole."""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

# Vectors written between two looks at other requests: about a millisecond's worth.
_AT_ONCE = 32
_PART_BYTES = 262_144

_encode = msgspec.json.Encoder().encode


def numbers(vector: NDArray[Any]) -> msgspec.Raw:
    """A vector as JSON numbers that read back as the same float32."""
    return msgspec.Raw(_encode(vector.tolist()))


def base64_floats(vector: NDArray[np.float32]) -> str:
    """A vector's little-endian float32 bytes in base64."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii")


class Rows:
    """A JSON array in an answer, whose items are written when it is sent.

    Args:
        write: makes of a row what msgspec encodes.
        rows: for example vectors.
    """

    def __init__(self, write: Callable[[Any], Any], rows: "Sequence[Any] | NDArray[Any]") -> None:
        self._write, self._rows = write, rows

    def __len__(self) -> int:
        return len(self._rows)

    def part(self, first: int = 0, count: int = _AT_ONCE) -> bytes:
        """The JSON of some items, without the brackets around."""
        return b",".join(_encode(self._write(row)) for row in self._rows[first : first + count])


def each(write: Callable[[Any], Any], rows: "Sequence[Any] | NDArray[Any]") -> Any:
    """An array of what `write` makes of each row; it stands where an answer's type says list."""
    return Rows(write, rows)


def encoded(body: Any) -> bytes | AsyncIterator[bytes | memoryview]:
    """The JSON of an answer: in parts if it holds many rows."""
    mark = _encode(uuid.uuid4().hex)  # stands for rows that are written later
    later: list[Rows] = []

    def hook(rows: Any) -> msgspec.Raw:
        if not isinstance(rows, Rows):
            raise NotImplementedError(f"{type(rows).__name__} in an answer")
        if len(rows) <= _AT_ONCE:
            return msgspec.Raw(b"[" + rows.part() + b"]")
        later.append(rows)
        return msgspec.Raw(mark)

    frame = msgspec.json.encode(body, enc_hook=hook)
    return _parts(frame, mark, later) if later else frame


async def _parts(frame: bytes, mark: bytes, later: list[Rows]) -> AsyncIterator[bytes | memoryview]:
    start = 0
    for rows in later:
        end = frame.index(mark, start)
        for part in _sliced(frame, start, end):
            yield part
        start = end + len(mark)
        for first in range(0, len(rows), _AT_ONCE):
            yield (b"," if first else b"[") + rows.part(first)
            await asyncio.sleep(0)  # other requests go on meanwhile
        yield b"]"
    for part in _sliced(frame, start, len(frame)):
        yield part


def _sliced(frame: bytes, start: int, end: int) -> list[memoryview]:
    view = memoryview(frame)
    return [view[first : min(first + _PART_BYTES, end)] for first in range(start, end, _PART_BYTES)]
