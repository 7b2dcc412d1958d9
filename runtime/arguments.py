"""Checks of arguments: texts, prompts, numbers and names. Errors say what was passed and what to pass instead.

Containers of other libraries are recognized by their methods, so that none of these libraries is imported.
"""

import operator
import os
from collections.abc import Iterator, KeysView, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from moembed.errors import InputError, shown

_Name = TypeVar("_Name", bound=str)
_EXPECTED = "expected a string, or a list, tuple, 1-d array or other iterable of strings"
_MISSING = "fill or drop missing values first"
# Type of an item that is not a string -> what to do about it.
_ITEM_ADVICE = {
    "NoneType": _MISSING,
    "NAType": _MISSING,
    "NaTType": _MISSING,
    "float": f"{_MISSING}, and convert numbers to strings",
    "bytes": "decode it first",
    "dict": "pass one field of each row",
    "list": "pass one flat sequence of texts",
    "tuple": "pass one flat sequence of texts",
}


def text_list(texts: object) -> tuple[list[str], bool]:
    """Return the texts of an argument, and whether it was a single string.

    Args:
        texts: a string, or any container that `text_stream` reads.

    Raises:
        InputError: the argument is not a container of texts, or an item is not a string.
    """
    if isinstance(texts, str):
        return [one_text(texts)], True
    return list(text_stream(texts)), False


def text_stream(texts: object) -> Iterator[str]:
    """Check a container now, and its texts when they are consumed.

    Args:
        texts: any ordered iterable of strings: a list, a generator, a 1-d NumPy array, a Series, an Arrow array, ...

    Raises:
        InputError: the argument is not such a container; or later, an item is not a string.
    """
    return _strings(_iterator(texts))


def one_text(text: object) -> str:
    """Check a single text and return it as a plain `str`, even if it is of a subclass.

    Raises:
        InputError: it is not a string.
    """
    if not isinstance(text, str):
        raise InputError(f"the text is {_type_of(text)}; expected one string")
    return str.__str__(text)


def prompt_text(prompt: object) -> str:
    """Check a prompt and return it as a plain `str`.

    Raises:
        InputError: it is not a string, or not valid Unicode.
    """
    if not isinstance(prompt, str):
        raise InputError(f"prompt = {shown(prompt)}; expected a string, '' for no prompt")
    if found := surrogate(prompt):
        raise InputError(f"the prompt has {found}")
    return str.__str__(prompt)


def surrogate(text: str) -> str | None:
    """Describe the first lone surrogate of a text and its remedy; None if the text is valid Unicode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return (
            f"the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, which is not valid Unicode: "
            "decode its source with errors='replace', or use text.encode('utf-8', 'replace').decode()"
        )
    return None


def whole(
    name: str, value: Any, expected: str = "a positive integer", *, least: int = 1, most: int | None = None
) -> int:
    """Check an integer argument: an `int`, a NumPy integer, or another object with `__index__`, except booleans.

    Raises:
        InputError: it is not an integer, or out of range.
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise InputError(f"{name} = {shown(value)}; expected {expected}")
    return number


def flag(name: str, value: object) -> bool:
    """Check a boolean argument.

    Raises:
        InputError: it is neither True nor False.
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} = {shown(value)}; expected True or False")
    return bool(value)


def one_of(name: str, value: object, choices: Sequence[_Name]) -> _Name:
    """Check an argument that is one of a few names.

    Raises:
        InputError: it is none of them.
    """
    if isinstance(value, str):
        for choice in choices:
            if value == choice:
                return choice
    raise InputError(f"{name} = {shown(value)}; expected one of {', '.join(choices)}")


def optional_string(name: str, value: object) -> str | None:
    """Check an argument that is a string or None.

    Raises:
        InputError: it is something else.
    """
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} = {shown(value)}; expected a string or None")
    return value


def path(name: str, value: object) -> Path | None:
    """Check an argument that is a path or None.

    Raises:
        InputError: it is something else.
    """
    if value is None:
        return None
    if isinstance(value, str | os.PathLike) and value != "" and isinstance(found := os.fspath(value), str):
        return Path(found)
    raise InputError(f"{name} = {shown(value)}; expected a path or None")


def source_name(value: object) -> str | Path:
    """Check the source of a model: a path, or a string that is a path or a hub name.

    Raises:
        InputError: it is neither.
    """
    found = path("source", value)
    if found is None:
        raise InputError("source = None; expected a folder, or a hub name of the form owner/name")
    return value if isinstance(value, str) else found


def array(name: str, value: object) -> NDArray[Any]:
    """Convert an argument to an array.

    Raises:
        InputError: it cannot be converted to an array of numbers.
    """
    try:
        found = np.asarray(value)
    except Exception as error:  # of any class, if the value is an array-like of another library
        raise InputError(f"{name} cannot be converted to an array: {error}") from error
    if found.dtype.kind not in "biuf":
        raise InputError(f"{name} is {_type_of(value)}, which gives an array of {found.dtype}; expected numbers")
    return found


def _iterator(texts: Any) -> Iterator[object]:
    shape = getattr(texts, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1:
        # Rows of a matrix are not texts, and iterating a DataFrame yields its column names.
        advice = "pass one column or row of it" if shape else "pass texts.item()"
        raise InputError(f"texts is {_type_of(texts)} of shape {tuple(shape)}; expected one dimension: {advice}")
    if isinstance(texts, Mapping):
        raise InputError(f"texts is {_type_of(texts)}, which would yield its keys; pass list(texts.values())")
    if isinstance(texts, Set) and not isinstance(texts, KeysView):
        raise InputError(f"texts is {_type_of(texts)}, which has no order; pass a list, for example sorted(texts)")
    if isinstance(texts, bytes | bytearray | memoryview):
        raise InputError(f"texts is {_type_of(texts)}; decode it first: texts.decode('utf-8')")
    if isinstance(texts, np.ndarray):
        texts = texts.tolist()
    try:
        # Without either method it is not iterable, although iter() accepts it: a Polars LazyFrame, for example.
        if hasattr(type(texts), "__iter__") or hasattr(type(texts), "__len__"):
            return iter(texts)
    except TypeError:
        pass
    raise InputError(f"texts is {_type_of(texts)}; {_EXPECTED}")


def _strings(items: Iterator[Any]) -> Iterator[str]:
    for index, item in enumerate(items):
        text = item if isinstance(item, str) or not hasattr(item, "as_py") else _arrow_value(index, item)
        if not isinstance(text, str):
            kind = type(text).__name__
            raise InputError(
                f"text {index} is {kind}, expected str" + (f": {_ITEM_ADVICE[kind]}" if kind in _ITEM_ADVICE else "")
            )
        yield str.__str__(text)


def _arrow_value(index: int, scalar: Any) -> object:
    """Return the value of an item of an Arrow array, whose strings may hold any bytes."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        raise InputError(
            f"text {index} is not valid UTF-8 ({error.reason} at byte {error.start}): cast the column to binary, and decode it "
            "with its encoding or with errors='replace'"
        ) from error


def _type_of(value: object) -> str:
    return f"of type {type(value).__name__}"
