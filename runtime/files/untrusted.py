"""Files and JSON that somebody else wrote: regular files only, of bounded size, and JSON without its traps.

Reading a FIFO waits for ever, a device can do anything, and a sparse file of 10 GB takes no room on a disk. A link to a
regular file is as good as the file: the hub's cache is made of such links.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from moembed.errors import shown

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# O_NONBLOCK: a FIFO that takes the file's place between the two looks at it does not keep us.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_CHUNK = 1 << 18
_MOST_DIGITS = 18  # what 64 bits hold, whatever the digits
_MOST_NESTED = 32


def stat_regular(path: Path) -> os.stat_result:
    """The stat result of a regular file, links followed.

    Raises:
        OSError: there is no such file, or it is a folder, a FIFO, a socket or a device.
    """
    return _regular(path.stat(), path)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading bytes, links followed; it never waits.

    Raises:
        OSError: there is no such file, it is no regular file, or it may not be read.
    """
    stat_regular(path)  # opening a device can have effects of its own
    handle = os.open(path, _FLAGS)
    try:
        _regular(os.fstat(handle), path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit + 1) if size <= limit else b""
    if size > limit or len(content) > limit:
        raise OSError(errno.EFBIG, f"it has {max(size, len(content)):,} bytes, at most {limit:,} are read", str(path))
    return content


def feed(path: Path, consume: Any) -> None:
    """Pass the content of a regular file to a function, a piece at a time, and no more than the file's size.

    Raises:
        OSError: it cannot be read, or holds more than it says (as files of /proc do).
    """
    with open_regular(path) as file:
        left = os.fstat(file.fileno()).st_size
        while left and (piece := file.read(min(left, _CHUNK))):
            consume(piece)
            left -= len(piece)
        if file.read(1):
            raise OSError(errno.EFBIG, "it holds more bytes than its size says", str(path))


def parse_object(content: bytes | str) -> dict[str, Any]:
    """A JSON object, without what JSON leaves open.

    Returns:
        The object. Its integers fit 64 bits, its strings are valid Unicode, no key is there twice, and nothing is nested
        more than 32 deep.

    Raises:
        ValueError: it is not such an object; the message says where.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        value = json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"it is nested more than {_MOST_NESTED} deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds {shown(value)}, not an object")
    _check(value, "", _MOST_NESTED)
    return value


def _regular(found: os.stat_result, path: Path) -> os.stat_result:
    if stat.S_ISREG(found.st_mode):
        return found
    kind = next((name for test, name in _KINDS if test(found.st_mode)), "no file")
    raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def _integer(digits: str) -> int:
    if (count := len(digits.lstrip("-"))) > _MOST_DIGITS:
        raise ValueError(f"it has an integer of {count:,} digits: {digits[:20]}…")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        left = dict(made)
        twice = next(name for name, _ in pairs if left.pop(name, left) is left)
        raise ValueError(f"it has the field {shown(twice)} twice")
    return made


def _check(value: Any, name: str, levels: int) -> None:
    """Raise unless every string below `value`, which is called `name`, is valid Unicode."""
    if not levels:
        raise ValueError(f"it is nested more than {_MOST_NESTED} deep")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            found = f"the lone surrogate U+{ord(value[error.start]):04X}"
            raise ValueError(f"{shown(name)} has {found}, which is not valid Unicode") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, f"a key of {name}" if name else "a key", levels)
            _check(item, f"{name}.{key}" if name else key, levels - 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{name}[{index}]", levels - 1)
