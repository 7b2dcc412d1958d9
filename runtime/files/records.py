"""Dataclasses read from parsed JSON or TOML, with errors that name the file, the field, the value and the remedy."""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from moembed.errors import MoembedError, shown

_T = TypeVar("_T")
# Metadata of a dataclass field that may always be missing: `field(default=None, metadata=OPTIONAL)`.
OPTIONAL: Mapping[str, bool] = MappingProxyType({"optional": True})
_PLAIN_KEY = re.compile(r"[\w-]+", re.ASCII)
_INTEGER_KEY = re.compile("0|[1-9][0-9]{0,8}")  # every integer has one spelling


@dataclass(frozen=True)
class Rule:
    """Condition on a value beyond its type, as in `Annotated[int, Rule(lambda n: n > 0, "a positive integer")]`.

    Attributes:
        holds: takes a value of the type.
        expected: completes "expected ..." in the error, also for a value of another type.
    """

    holds: Callable[[Any], object]
    expected: str


Count = Annotated[int, Rule(lambda value: value >= 0, "an integer of at least 0")]
Positive = Annotated[int, Rule(lambda value: value > 0, "a positive integer")]
Sha256 = Annotated[str, Rule(re.compile("[0-9a-f]{64}").fullmatch, "a sha256 of 64 hex digits")]


def _is_number(value: object) -> bool:
    # Compared, not converted: JSON has integers that no float holds.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


_SCALARS: dict[Any, tuple[Callable[[object], bool], str]] = {
    bool: (lambda value: isinstance(value, bool), "true or false"),
    int: (lambda value: isinstance(value, int) and not isinstance(value, bool), "an integer"),
    float: (_is_number, "a finite number"),
    str: (lambda value: isinstance(value, str), "a string"),
}


def read_record(
    kind: type[_T],
    value: object,
    name: str,
    *,
    error: Callable[[str], MoembedError],
    remedy: str,
    use_defaults: bool = False,
) -> _T:
    """Make a dataclass of what a JSON or TOML parser returned.

    Args:
        kind: a dataclass. Its fields are dataclasses, `tuple[T, ...]`, `list[T]`, `dict[str, T]`, `dict[int, T]`, `T | None`,
            a `Literal` of strings, `bool`, `int`, `float`, `str`, or one of these in `Annotated` with a `Rule`.
        value: the parsed value. What is of no such type, such as a date of TOML, is refused.
        name: name of the file, for errors.
        error: class of the error.
        remedy: what to do about it; ends the message.
        use_defaults: let all fields that have defaults be missing; without it, only those with the metadata `OPTIONAL` may be.

    Raises:
        MoembedError: of the class `error`: a field is missing, unknown, of the wrong type, not finite, or against its rule.
    """
    made: _T = _Reader(name, error, remedy, use_defaults).read(kind, value, "")
    return made


def read_toml(
    kind: type[_T],
    text: str,
    name: str,
    *,
    error: Callable[[str], MoembedError],
    remedy: str,
    use_defaults: bool = False,
) -> _T:
    """Make a dataclass of a TOML document; arguments as for `read_record`.

    Raises:
        MoembedError: of the class `error`: as for `read_record`, or `text` is not TOML.
    """
    import tomllib

    try:
        value = tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{name} is not valid TOML ({problem}): {remedy}") from problem
    return read_record(kind, value, name, error=error, remedy=remedy, use_defaults=use_defaults)


@dataclass(frozen=True)
class _Reader:
    """Reader of one document; `path` leads from its root to a value, such as `source.repo`."""

    name: str
    error: Callable[[str], MoembedError]
    remedy: str
    use_defaults: bool

    def read(self, kind: Any, value: Any, path: str) -> Any:
        origin, parts = get_origin(kind), get_args(kind)
        if is_dataclass(kind):
            return self._dataclass(kind, value, path)
        if origin is Annotated:
            return self._annotated(parts[0], parts[1], value, path)
        if origin in (UnionType, Union):  # `Annotated[...] | None` is one of typing
            (other,) = set(parts) - {NoneType}
            return None if value is None else self.read(other, value, path)
        if origin is Literal:
            if value not in parts:
                raise self._unexpected(path, value, f"one of {', '.join(parts)}")
            return value
        if origin in (tuple, list):
            if not isinstance(value, list):
                raise self._unexpected(path, value, "a list")
            return origin(self.read(parts[0], item, f"{path}[{index}]") for index, item in enumerate(value))
        if origin is dict:
            items = self._object(value, path).items()
            return {self._key(parts[0], key, path): self.read(parts[1], item, _join(path, key)) for key, item in items}
        holds, expected = _SCALARS[kind]
        if not holds(value):
            raise self._unexpected(path, value, expected)
        return kind(value)

    def _dataclass(self, kind: Any, value: Any, path: str) -> Any:
        found, types = self._object(value, path), _types(kind)
        required = [item.name for item in fields(kind) if not self._may_be_missing(item)]
        missing = [name for name in required if name not in found]
        unknown = [name for name in found if name not in types]
        if missing or unknown:
            known = f"; the fields are {', '.join(types)}" if unknown else ""
            raise self.error(f"{self._where(path)}: missing {missing}, unknown {shown(unknown)}{known}: {self.remedy}")
        return kind(**{name: self.read(types[name], item, _join(path, name)) for name, item in found.items()})

    def _may_be_missing(self, item: Field[Any]) -> bool:
        return "optional" in item.metadata or (self.use_defaults and _has_default(item))

    def _annotated(self, kind: Any, rule: Rule, value: Any, path: str) -> Any:
        if kind in _SCALARS and not _SCALARS[kind][0](value):
            raise self._unexpected(path, value, rule.expected)
        made = self.read(kind, value, path)
        if not rule.holds(made):
            raise self._unexpected(path, value, rule.expected)
        return made

    def _object(self, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._unexpected(path, value, "an object")
        return value

    def _key(self, kind: Any, key: str, path: str) -> Any:
        if kind is int and not _INTEGER_KEY.fullmatch(key):
            raise self._unexpected(_join(path, key), key, "an integer as the key")
        return kind(key)

    def _unexpected(self, path: str, value: Any, expected: str) -> MoembedError:
        return self.error(f"{self._where(path)} = {shown(value)}; expected {expected}: {self.remedy}")

    def _where(self, path: str) -> str:
        return f"{self.name}: {path}" if path else self.name


@cache
def _types(kind: Any) -> dict[str, Any]:
    """Types of a dataclass's fields."""
    hints = get_type_hints(kind, include_extras=True)
    return {item.name: hints[item.name] for item in fields(kind)}


def _has_default(item: Field[Any]) -> bool:
    return item.default is not MISSING or item.default_factory is not MISSING


def _join(path: str, key: str) -> str:
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{shown(key)}]"
    return f"{path}.{key}" if path else key
