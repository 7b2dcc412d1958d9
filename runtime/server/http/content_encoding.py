"""Bodies that a client compressed, decoded within the limit of what a body may have."""

import zlib

from moembed.server.errors import InvalidRequestError, UnsupportedEncodingError

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # told apart by their heads
CODINGS = ("gzip", "x-gzip", "deflate")
# Each gzip member costs a copy of what follows it; those who write several write some for each 64 kB.
_MEMBERS = 1024


def decoded(coding: str, body: bytes, most: int) -> bytes | None:
    """A body without its Content-Encoding.

    Args:
        coding: value of the header; "" or `identity` for none.
        body: what arrived.
        most: bytes that may come out.

    Returns:
        The decoded bytes, or None if they are more than `most`.

    Raises:
        UnsupportedEncodingError: another coding than `CODINGS`, or several.
        InvalidRequestError: these are not the bytes of the coding.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in CODINGS:
        raise UnsupportedEncodingError(coding)
    parts: list[bytes] = []
    room = most
    try:
        while body or not parts:  # gzip may consist of several members
            if len(parts) == _MEMBERS:
                raise InvalidRequestError(f"the body has more than {_MEMBERS} members of {coding} data: send it as one")
            decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
            part = decoder.decompress(body, room + 1)
            room -= len(part)
            if room < 0:
                return None
            if not decoder.eof:
                raise InvalidRequestError(f"the body ends in the middle of its {coding} data: send all of it")
            parts.append(part)
            body = decoder.unused_data
    except zlib.error as error:
        raise InvalidRequestError(f"the body is not {coding} data, as its Content-Encoding says: {error}") from None
    return b"".join(parts)
