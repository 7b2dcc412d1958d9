"""The little of protobuf's wire format that it takes to find names in an ONNX file without the package `onnx`.

A message is a sequence of fields: a varint of number and kind, then the value. Serialized messages merge when their bytes are
put one behind the other (a repeated field grows, a submessage merges), so that a model is extended by appending to it.
"""

from collections.abc import Callable, Iterator, Sequence

from moembed.errors import BundleError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message, in order.

    Args:
        message: its bytes.

    Yields:
        Number, and an int for a varint, else the bytes of the value, not copied.

    Raises:
        BundleError: these are not the bytes of a message.
    """
    for number, value, _ in _fields(message):
        yield number, value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview, int]]:
    """The same, each with where it ends."""
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
            raise BundleError(f"the graph has a field of kind {kind} at byte {at}: it is damaged; export it again")
        if size > len(message) - at:
            raise BundleError(f"the graph ends within a field of {size} bytes: it is damaged; export it again")
        at += size
        yield number, message[at - size : at], at


def submessages(message: memoryview, number: int) -> Iterator[memoryview]:
    """The values of a field that holds messages, strings or bytes.

    Raises:
        BundleError: these are not the bytes of a message, or the field is a number.
    """
    for found, value in fields(message):
        if found == number:
            if isinstance(value, int):
                raise BundleError(f"the graph's field {number} is a number: it is damaged; export it again")
            yield value


def strings(message: memoryview, number: int) -> list[str]:
    """The values of a field that holds strings.

    Raises:
        BundleError: these are not the bytes of a message, or the field is not text.
    """
    try:
        return [str(value, "utf-8") for value in submessages(message, number)]
    except UnicodeDecodeError as error:
        raise BundleError(f"the graph has a name that is not UTF-8 ({error}): it is damaged; export it again") from None


def numbers(message: memoryview, number: int) -> Iterator[int]:
    """The values of a field that holds integers, packed into one field or each in its own.

    Raises:
        BundleError: these are not the bytes of a message.
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
    """A field that holds a message, a string or bytes."""
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(value)) + value


def rewritten(message: memoryview, path: Sequence[int], change: Callable[[memoryview], bytes]) -> bytes:
    """A message in which submessages are exchanged.

    Args:
        message: its bytes.
        path: numbers of the fields that lead to the submessages.
        change: gives a submessage's new bytes.

    Raises:
        BundleError: these are not the bytes of a message.
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
    raise BundleError(f"the graph has no number at byte {at}, where one has to be: it is damaged; export it again")


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
