"""Checks of what callers pass: texts, prompts, numbers and words. An error says what was given and what to pass instead.

Containers of other libraries are recognized by what they can do, so that none of these libraries is imported.
"""

import operator
import os
from collections.abc import Iterator, KeysView, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from moembed.errors import InputError, shown

_Word = TypeVar("_Word", bound=str)
_EXPECTED = "expected a string, or a list, tuple, 1-d array or other iterable of strings"
_MISSING = "fill or drop missing values first"
# Type of an item that is no string -> what to do about it.
_ITEM_ADVICE = {
    "NoneType": _MISSING,
    "NAType": _MISSING,
    "NaTType": _MISSING,
    "float": f"{_MISSING}, and turn numbers into strings",
    "bytes": "decode it first",
    "dict": "pass one field of every row",
    "list": "pass one flat sequence of texts",
    "tuple": "pass one flat sequence of texts",
}


def text_list(texts: object) -> tuple[list[str], bool]:
    """The texts of an argument, and whether it was one string instead of several.

    Args:
        texts: a string, or any container that `text_stream` reads.

    Raises:
        InputError: the argument is no container of texts, or an item of it is no string.
    """
    if isinstance(texts, str):
        return [one_text(texts)], True
    return list(text_stream(texts)), False


def text_stream(texts: object) -> Iterator[str]:
    """Check a container at once, and yield its texts as they are asked for.

    Args:
        texts: any ordered iterable of strings: a list, a generator, a 1-d NumPy array, a Series, an Arrow array, ...

    Raises:
        InputError: the argument is no such container; later, an item is no string.
    """
    return _strings(_iterator(texts))


def one_text(text: object) -> str:
    """A single text, as `str` itself and none of its subclasses.

    Raises:
        InputError: it is no string.
    """
    if not isinstance(text, str):
        raise InputError(f"the text is {_type_of(text)}; expected one string")
    return str.__str__(text)


def prompt_text(prompt: object) -> str:
    """A prompt that can be put in front of texts.

    Raises:
        InputError: it is no string, or not valid Unicode.
    """
    if not isinstance(prompt, str):
        raise InputError(f"prompt = {shown(prompt)}; expected a string, '' for none")
    if found := surrogate(prompt):
        raise InputError(f"the prompt has {found}")
    return str.__str__(prompt)


def surrogate(text: str) -> str | None:
    """Description of the first lone surrogate of a text and of what to do about it, or None if the text is valid Unicode."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return (
            f"the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, which is not valid Unicode: "
            "decode its source with errors='replace', or text.encode('utf-8', 'replace').decode()"
        )
    return None


def whole(
    name: str, value: Any, expected: str = "a positive integer", *, least: int = 1, most: int | None = None
) -> int:
    """An integer argument: an `int`, a NumPy integer, or any other object with `__index__`, but no boolean.

    Raises:
        InputError: it is no integer, or out of range.
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        raise InputError(f"{name} = {shown(value)}; expected {expected}")
    return number


def flag(name: str, value: object) -> bool:
    """A boolean argument.

    Raises:
        InputError: it is neither True nor False.
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} = {shown(value)}; expected True or False")
    return bool(value)


def word(name: str, value: object, words: Sequence[_Word]) -> _Word:
    """An argument that is one of a few words.

    Raises:
        InputError: it is none of them.
    """
    for one in words:
        if isinstance(value, str) and value == one:
            return one
    raise InputError(f"{name} = {shown(value)}; expected one of {', '.join(words)}")


def optional_string(name: str, value: object) -> str | None:
    """A string argument, or None.

    Raises:
        InputError: it is something else.
    """
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} = {shown(value)}; expected a string or None")
    return value


def path(name: str, value: object) -> Path | None:
    """A path argument, or None.

    Raises:
        InputError: it is something else.
    """
    if value is None:
        return None
    if isinstance(value, str | os.PathLike) and value != "" and isinstance(found := os.fspath(value), str):
        return Path(found)
    raise InputError(f"{name} = {shown(value)}; expected a path or None")


def source_name(value: object) -> str | Path:
    """The source of a model: a path, or a string that may be a path or a hub name.

    Raises:
        InputError: it is neither.
    """
    found = path("source", value)
    if found is None:
        raise InputError("source = None; expected a folder or a hub name owner/name")
    return value if isinstance(value, str) else found


def array(name: str, value: object) -> NDArray[Any]:
    """An argument as an array.

    Raises:
        InputError: no array of numbers can be made of it.
    """
    try:
        found = np.asarray(value)
    except Exception as error:  # an array-like of another library raises what it pleases
        raise InputError(f"{name} cannot be read as an array: {error}") from error
    if found.dtype.kind not in "biuf":
        raise InputError(f"{name} is {_type_of(value)}, as an array of {found.dtype}; expected numbers")
    return found


def _iterator(texts: Any) -> Iterator[object]:
    shape = getattr(texts, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1:
        # The rows of a matrix are no texts, and iterating a DataFrame gives the names of its columns.
        advice = "pass one column or row of it" if shape else "pass texts.item()"
        raise InputError(f"texts is {_type_of(texts)} of shape {tuple(shape)}; expected one dimension: {advice}")
    if isinstance(texts, Mapping):
        raise InputError(f"texts is {_type_of(texts)}, of which only the keys would be read; pass list(texts.values())")
    if isinstance(texts, Set) and not isinstance(texts, KeysView):
        raise InputError(f"texts is {_type_of(texts)}, which has no order; pass a list, for example sorted(texts)")
    if isinstance(texts, bytes | bytearray | memoryview):
        raise InputError(f"texts is {_type_of(texts)}; decode it first: texts.decode('utf-8')")
    if isinstance(texts, np.ndarray):
        texts = texts.tolist()
    try:
        # What has neither of the two only looks like a sequence: a LazyFrame of Polars can be sliced, not read.
        if hasattr(type(texts), "__iter__") or hasattr(type(texts), "__len__"):
            return iter(texts)
    except TypeError:
        pass
    raise InputError(f"texts is {_type_of(texts)}; {_EXPECTED}")


def _strings(items: Iterator[Any]) -> Iterator[str]:
    for index, item in enumerate(items):
        # Iterating an Arrow array gives scalars, whose value is `as_py()`.
        text = item if isinstance(item, str) or not hasattr(item, "as_py") else item.as_py()
        if not isinstance(text, str):
            kind = type(text).__name__
            raise InputError(
                f"text {index} is {kind}, expected str" + (f": {_ITEM_ADVICE[kind]}" if kind in _ITEM_ADVICE else "")
            )
        yield str.__str__(text)


def _type_of(value: object) -> str:
    return f"of type {type(value).__name__}"
