"""Decompression of request bodies, within the size limit of a body."""

import zlib

from moembed.server.errors import InvalidRequestError, UnsupportedEncodingError

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # zlib detects which from the header
CODINGS = ("gzip", "x-gzip", "deflate")
# Each gzip member copies the data that follows it. Writers of several members emit one per 64 kB or so.
_MAX_MEMBERS = 1024


def decompress(coding: str, body: bytes, max_bytes: int) -> bytes | None:
    """Decode a body's Content-Encoding.

    Args:
        coding: value of the header; "" or `identity` for none.
        body: the body as received.
        max_bytes: size of the result, at most.

    Returns:
        The decoded bytes, or None if there are more than `max_bytes`.

    Raises:
        UnsupportedEncodingError: the coding is not one of `CODINGS`.
        InvalidRequestError: the bytes are not valid in this coding.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in CODINGS:
        raise UnsupportedEncodingError(coding)
    parts: list[bytes] = []
    room = max_bytes
    try:
        while body or not parts:  # gzip data may consist of several members
            if len(parts) == _MAX_MEMBERS:
                raise InvalidRequestError(
                    f"the body has more than {_MAX_MEMBERS} {coding} members: compress it as a single one"
                )
            decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
            part = decoder.decompress(body, room + 1)
            room -= len(part)
            if room < 0:
                return None
            if not decoder.eof:
                raise InvalidRequestError(f"the {coding} data of the body is incomplete: send all of it")
            parts.append(part)
            body = decoder.unused_data
    except zlib.error as error:
        raise InvalidRequestError(
            f"the body is not valid {coding} data, as its Content-Encoding claims: {error}"
        ) from None
    return b"".join(parts)
