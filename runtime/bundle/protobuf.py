"""Minimal reader and writer of protobuf's wire format, to find names in an ONNX file without the package `onnx`.

A message is a sequence of fields: a varint with field number and wire type, then the value. Concatenating serialized messages
merges them (repeated fields are appended, submessages are merged), so appending bytes extends a model.
"""

from collections.abc import Callable, Iterator, Sequence

from moembed.errors import BundleError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of a message, in order.

    Args:
        message: its bytes.

    Yields:
        Field number and value: an int for a varint, else a view of the bytes.

    Raises:
        BundleError: the bytes are not a valid message.
    """
    for number, value, _ in _fields(message):
        yield number, value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview, int]]:
    """Yield the fields of a message, each with the index of the byte after it."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value, at
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise BundleError(f"the graph has a field of wire type {kind} at byte {at}: it is damaged; export it again")
        if size > len(message) - at:
            raise BundleError(f"the graph ends inside a field of {size} bytes: it is damaged; export it again")
        at += size
        yield number, message[at - size : at], at


def submessages(message: memoryview, number: int) -> Iterator[memoryview]:
    """Yield the values of a field of messages, strings or bytes.

    Raises:
        BundleError: the bytes are not a valid message, or the field is a number.
    """
    for found, value in fields(message):
        if found == number:
            if isinstance(value, int):
                raise BundleError(f"the graph's field {number} is a number: it is damaged; export it again")
            yield value


def strings(message: memoryview, number: int) -> list[str]:
    """Return the values of a string field.

    Raises:
        BundleError: the bytes are not a valid message, or the field is not text.
    """
    try:
        return [str(value, "utf-8") for value in submessages(message, number)]
    except UnicodeDecodeError as error:
        raise BundleError(f"the graph has a name that is not UTF-8 ({error}): it is damaged; export it again") from None


def numbers(message: memoryview, number: int) -> Iterator[int]:
    """Yield the values of an integer field, packed or not.

    Raises:
        BundleError: the bytes are not a valid message.
    """
    for found, value in fields(message):
        if found != number:
            continue
        if isinstance(value, int):
            yield value
            continue
        at = 0
        while at < len(value):
            item, at = _varint(value, at)
            yield item


def encoded(number: int, value: bytes) -> bytes:
    """Encode a field of a message, a string or bytes."""
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(value)) + value


def rewritten(message: memoryview, path: Sequence[int], change: Callable[[memoryview], bytes]) -> bytes:
    """Replace submessages of a message; return the new message.

    Args:
        message: its bytes.
        path: field numbers on the path to the submessages.
        change: returns the new bytes of a submessage.

    Raises:
        BundleError: the bytes are not a valid message.
    """
    parts: list[bytes | memoryview] = []
    start = 0
    for number, value, end in _fields(message):
        if number == path[0] and isinstance(value, memoryview):
            parts.append(encoded(number, change(value) if len(path) == 1 else rewritten(value, path[1:], change)))
        else:
            parts.append(message[start:end])
        start = end
    return b"".join(parts)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise BundleError(f"the graph has an invalid number at byte {at}: it is damaged; export it again")


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
