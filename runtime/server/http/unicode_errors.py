"""Text of a body that is no Unicode: where it stands, so that a client can mend that one text."""

import re
from typing import Any

import msgspec

# Stands for the first fault while the body is decoded once more; a noncharacter, which no text should hold.
_MARK = "\ufdd0"
# Escaped backslashes, then the escape of one half of a surrogate pair without the other half. Possessive: linear in time, and
# no memory for a long run of backslashes.
_LONE = re.compile(
    rb"(?<!\\)((?:\\\\)*+)(\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|[c-fC-F][0-9a-fA-F]{2}(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})))"
)
# Finds quickly that there is none.
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
# In longer bodies, and in those with more faults, only the byte is told: a hostile one is not to cost much.
_LONGEST = 4 * 2**20
_MOST = 1000


def fault_in(raw: bytes, decoder: "msgspec.json.Decoder[Any]") -> tuple[str | None, str] | None:
    """The first text of a JSON body that is not UTF-8 or has half of a surrogate pair, or None if that is not its fault.

    Returns:
        The place of the text, such as `input[3]`, or None if no field of the request holds it; and what is wrong.
    """
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        start, stop = error.start, error.end
        what = f"byte 0x{raw[start]:02x} is not UTF-8; send the body in UTF-8"
    else:
        half = _HALF.search(raw)
        # From the first of the backslashes in front of it on.
        found = _LONE.search(raw, len(raw[: half.start()].rstrip(b"\\"))) if half else None
        if found is None:
            return None
        start, stop = found.span(2)
        what = (
            f"the escape {found[2].decode()} is half of a surrogate pair without the other half, and no character; "
            "send both halves, or leave it out"
        )
    place = _place(raw[:start], raw[stop:], decoder) if len(raw) <= _LONGEST else None
    if place is None:
        return None, f"at byte {start}, {what}"
    return place[0], f"at character {place[1]}, {what}"


def _place(before: bytes, after: bytes, decoder: "msgspec.json.Decoder[Any]") -> tuple[str, int] | None:
    once = before + _MARK.encode() + after.decode("utf-8", "ignore").encode()
    try:
        found = _found(decoder.decode(_LONE.sub(rb"\1\\ufffd", once, _MOST)))
    except (msgspec.DecodeError, RecursionError):
        return None
    return (found[0].lstrip("."), found[1]) if found else None


def _found(value: Any) -> tuple[str, int] | None:
    """Place of the mark in a decoded body, and its index in the text there."""
    if isinstance(value, str):
        at = value.find(_MARK)
        return None if at < 0 else ("", at)
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if found := _found(getattr(value, name)):
                return f".{name}{found[0]}", found[1]
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if found := _found(item):
                return f"[{index}]{found[0]}", found[1]
    return None
