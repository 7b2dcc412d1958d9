"""Vectors as the APIs write them."""

import asyncio
import base64
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

# Vectors written between two looks at other requests: about a millisecond's worth.
_AT_ONCE = 32

_encode = msgspec.json.Encoder().encode


def numbers(vector: NDArray[Any]) -> msgspec.Raw:
    """A vector as JSON numbers that read back as the same float32."""
    return msgspec.Raw(_encode(vector.tolist()))


def base64_floats(vector: NDArray[np.float32]) -> str:
    """A vector's little-endian float32 bytes in base64."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii")


async def each(write: Callable[[NDArray[Any]], Any], vectors: Iterable[NDArray[Any]]) -> list[Any]:
    """What `write` gives for each vector; other requests go on meanwhile."""
    written = []
    for count, vector in enumerate(vectors, 1):
        written.append(write(vector))
        if count % _AT_ONCE == 0:
            await asyncio.sleep(0)
    return written
