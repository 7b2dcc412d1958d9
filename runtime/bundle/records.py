"""JSON values read into dataclasses, with errors that name the field."""

import re
import sys
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from moembed.errors import BundleError, shown


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    # Compared, not converted: JSON has integers that no float holds.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_SCALARS = {
    int: (_is_count, "an integer of at least 0"),
    float: (_is_number, "a finite number"),
    str: (lambda value: isinstance(value, str), "a string"),
}


def read_record(kind: Any, value: Any, name: str) -> Any:
    """Read a JSON value as a type.

    Args:
        kind: a dataclass, `tuple[T, ...]`, `dict[K, T]`, a `Literal` of strings, or a scalar type; nested as you like.
        value: what `json` made of it.
        name: what to call it in an error.

    Raises:
        BundleError: a field is missing, unknown or of the wrong type, or a number is not finite.
    """
    if is_dataclass(kind):
        return _fields(kind, value, name)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in parts:
            raise malformed(name, value, f"one of {', '.join(parts)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise malformed(name, value, "a list")
        return tuple(read_record(parts[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise malformed(name, value, "an object")
        return {_key(parts[0], key, name): read_record(parts[1], item, f"{name}.{key}") for key, item in value.items()}
    holds, expected = _SCALARS[kind]
    if not holds(value):
        raise malformed(name, value, expected)
    return kind(value)


def _fields(kind: Any, value: Any, name: str) -> Any:
    wanted = {field.name for field in fields(kind)}
    if not isinstance(value, dict):
        raise malformed(name, value, "an object")
    if problems := sorted(wanted ^ set(value)):
        missing = [problem for problem in problems if problem in wanted]
        unknown = [problem for problem in problems if problem not in wanted]
        raise BundleError(
            f"{name}: missing {missing}, unknown {shown(unknown)}; the bundle is damaged or of another version of moembed: "
            "export or quantize it again"
        )
    kinds = get_type_hints(kind)
    return kind(**{key: read_record(kinds[key], value[key], f"{name}.{key}") for key in value})


def _key(kind: Any, key: str, name: str) -> Any:
    # JSON's keys are strings; a layer's number has one spelling.
    if kind is int and not re.fullmatch("0|[1-9][0-9]{0,5}", key):
        raise malformed(f"{name}.{key}", key, "a layer's number as the key")
    return kind(key)


def malformed(name: str, value: Any, expected: str) -> BundleError:
    """The error for a value that is not what was expected."""
    return BundleError(f"{name} = {shown(value)}; expected {expected}: the bundle is damaged; export or copy it again")
