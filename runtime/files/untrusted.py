"""Untrusted files and JSON: only regular files of bounded size, and JSON with strict rules.

Reading a FIFO can block forever, a device can do anything, and a sparse file of 10 GB takes no disk space. Links to regular
files are allowed: the hub's cache consists of them.
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
# O_NONBLOCK: do not block on a FIFO that replaces the file between the two checks.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_CHUNK = 1 << 18
_MAX_DIGITS = 18  # any such integer fits 64 bits
_MAX_DEPTH = 32


def stat_regular(path: Path) -> os.stat_result:
    """Return the stat of a regular file, following links.

    Raises:
        OSError: there is no such file, or it is a folder, a FIFO, a socket or a device.
    """
    return _regular(path.stat(), path)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading bytes, following links; never blocks.

    Raises:
        OSError: there is no such file, it is not a regular file, or it is not readable.
    """
    stat_regular(path)  # first, since opening a device can have side effects
    handle = os.open(path, _FLAGS)
    try:
        _regular(os.fstat(handle), path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def lfs_advice(path: Path) -> str:
    """Return the end of an error message if a file is a Git LFS pointer in place of its content; otherwise an empty string."""
    try:
        with open_regular(path) as file:
            is_pointer = file.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return ""
    return (
        ". It is a Git LFS pointer, which names a file in place of holding it: run git lfs pull" if is_pointer else ""
    )


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read, or is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(limit + 1) if size <= limit else b""
    if size > limit or len(content) > limit:
        raise OSError(errno.EFBIG, f"it has {max(size, len(content)):,} bytes; the limit is {limit:,}", str(path))
    return content


def feed(path: Path, consume: Any) -> None:
    """Pass the content of a regular file to a function in pieces, up to the file's size.

    Raises:
        OSError: it cannot be read, or has more bytes than its size (as files in /proc do).
    """
    with open_regular(path) as file:
        left = os.fstat(file.fileno()).st_size
        while left and (piece := file.read(min(left, _CHUNK))):
            consume(piece)
            left -= len(piece)
        if file.read(1):
            raise OSError(errno.EFBIG, "it has more bytes than its size says", str(path))


def parse_object(content: bytes | str) -> dict[str, Any]:
    """Parse a JSON object under strict rules.

    Returns:
        The object. Integers fit 64 bits, strings are valid Unicode, keys are unique, and the nesting depth is at most 32.

    Raises:
        ValueError: it is not such an object; the message says where.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        value = json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is {shown(value)}, not an object")
    _check(value, "", _MAX_DEPTH)
    return value


def _regular(found: os.stat_result, path: Path) -> os.stat_result:
    if stat.S_ISREG(found.st_mode):
        return found
    kind = next((name for test, name in _KINDS if test(found.st_mode)), "not a file")
    raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def _integer(digits: str) -> int:
    if (count := len(digits.lstrip("-"))) > _MAX_DIGITS:
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
    """Check the depth of a value and that its strings are valid Unicode; `name` is its name in errors."""
    if not levels:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
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
