"""Text of a body that is no Unicode: where it stands, so that a client can mend that one text."""

import re
from typing import Any

import msgspec

# Stands for the first fault while the body is decoded once more; a noncharacter, which no text should hold.
_MARK = "\ufdd0"
# The escape of one half of a surrogate pair, without the other half.
_LONE = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|[c-fC-F][0-9a-fA-F]{2}(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
)


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
        found = next((match for match in _LONE.finditer(raw) if _is_escape(raw, match.start())), None)
        if found is None:
            return None
        start, stop = found.span()
        what = (
            f"the escape {found[0].decode()} is half of a surrogate pair without the other half, and no character; "
            "send both halves, or leave it out"
        )
    place = _place(raw[:start], raw[stop:], decoder)
    if place is None:
        return None, f"at byte {start}, {what}"
    return place[0], f"at character {place[1]}, {what}"


def _is_escape(raw: bytes, start: int) -> bool:
    """Tell whether a backslash is not itself escaped."""
    before = raw[:start]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 0


def _place(before: bytes, after: bytes, decoder: "msgspec.json.Decoder[Any]") -> tuple[str, int] | None:
    mended = _LONE.sub(rb"\\ufffd", after.decode("utf-8", "ignore").encode())
    try:
        return _found(decoder.decode(before + _MARK.encode() + mended), "")
    except (msgspec.DecodeError, RecursionError):
        return None


def _found(value: Any, place: str) -> tuple[str, int] | None:
    """Place and index of the mark in a decoded body."""
    if isinstance(value, str):
        at = value.find(_MARK)
        return None if at < 0 else (place, at)
    if isinstance(value, list):
        parts = ((f"{place}[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, msgspec.Struct):
        parts = ((f"{place}.{name}".lstrip("."), getattr(value, name)) for name in value.__struct_fields__)
    else:
        return None
    return next(filter(None, (_found(item, where) for where, item in parts)), None)
