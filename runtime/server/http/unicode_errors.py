"""Location of invalid Unicode in a JSON body, so that a client can fix the one text that holds it."""

import re
from typing import Any

import msgspec

# Marks the first error when the body is decoded again; a noncharacter, which no text should contain.
_MARK = "\ufdd0"
# Escaped backslashes, then the escape of one half of a surrogate pair without the other half. Possessive: linear in time, and
# no memory for a long run of backslashes.
_LONE = re.compile(
    rb"(?<!\\)((?:\\\\)*+)(\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|[c-fC-F][0-9a-fA-F]{2}(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})))"
)
# Quick test for a body without surrogates.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
# In longer bodies, and in those with more errors, only the byte is reported: this bounds the cost of a hostile body.
_MAX_BYTES = 4 * 2**20
_MAX_ERRORS = 1000


def find_invalid_text(raw: bytes, decoder: "msgspec.json.Decoder[Any]") -> tuple[str | None, str] | None:
    """Find the first text of a JSON body that is not UTF-8 or holds half of a surrogate pair.

    Returns:
        None if there is none. Otherwise the field that holds the text, such as `input[3]` (None if no field of the request
        does), and the problem.
    """
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        start, stop = error.start, error.end
        problem = f"byte 0x{raw[start]:02x} is not UTF-8; send the body in UTF-8"
    else:
        half = _HALF.search(raw)
        # Start at the first of the backslashes in front of it.
        lone = _LONE.search(raw, len(raw[: half.start()].rstrip(b"\\"))) if half else None
        if lone is None:
            return None
        start, stop = lone.span(2)
        problem = f"the escape {lone[2].decode()} is half of a surrogate pair: send both halves, or leave it out"
    location = _locate(raw[:start], raw[stop:], decoder) if len(raw) <= _MAX_BYTES else None
    if location is None:
        return None, f"at byte {start}, {problem}"
    return location[0], f"at character {location[1]}, {problem}"


def _locate(before: bytes, after: bytes, decoder: "msgspec.json.Decoder[Any]") -> tuple[str, int] | None:
    """Return the field and character of an error between two parts of a body, or None."""
    marked = before + _MARK.encode() + after.decode("utf-8", "ignore").encode()
    try:
        found = _find_mark(decoder.decode(_LONE.sub(rb"\1\\ufffd", marked, _MAX_ERRORS)))
    except (msgspec.DecodeError, RecursionError):
        return None
    return (found[0].lstrip("."), found[1]) if found else None


def _find_mark(value: Any) -> tuple[str, int] | None:
    """Return the path of the mark in a decoded body, and its index in the text there."""
    if isinstance(value, str):
        index = value.find(_MARK)
        return None if index < 0 else ("", index)
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if found := _find_mark(getattr(value, name)):
                return f".{name}{found[0]}", found[1]
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if found := _find_mark(item):
                return f"[{index}]{found[0]}", found[1]
    return None
