"""Destination of data that a user names, for writing: a file, or whatever else a path can lead to.

A regular file appears complete or not at all. Pipes, terminals and devices are written to as data comes; they stay what
they are.
"""

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from moembed.errors import MoembedError, OutputError
from moembed.files.paths import replacing_file

_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|thread-self))/fd/(\d+)")
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_BINARY = getattr(os, "O_BINARY", 0)  # Windows only
_MOST_LINKS = 40  # as Linux has it


@contextmanager
def writing(name: str | Path) -> Iterator[BinaryIO]:
    """Open a destination for bytes.

    A symbolic link is followed: what it leads to is written. `/dev/stdout` and `/dev/fd/N` are the descriptors of this
    process, at the place where they stand, and not the files behind them.

    Args:
        name: a path.

    Yields:
        A file. That of a regular file can be read and sought, any other one takes bytes in their order.

    Raises:
        OutputError: it is a folder, read-only, in a folder that is missing or not writable, or takes no more.
        BrokenPipeError: it is a pipe whose reader is gone.
    """
    try:
        path = _followed(Path(name))
        number = _descriptor(path)
        if number is None and not _is_stream(path):
            with replacing_file(path) as partial, partial.open("w+b") as file:
                yield file
            return
        # Not created, which Linux refuses for a FIFO in a folder like /tmp; a copy of a descriptor can be closed.
        opened = os.open(path, os.O_WRONLY | _BINARY) if number is None else os.dup(number)
        with os.fdopen(opened, "wb") as file:
            yield file
    except (MoembedError, BrokenPipeError):
        raise
    except OSError as error:
        raise OutputError(f"cannot write {name}: {error.strerror or error}") from error


def _followed(path: Path) -> Path:
    """What a path leads to, or the descriptor of this process that a link on the way stands for."""
    for _ in range(_MOST_LINKS):
        if _descriptor(path) is not None or not path.is_symlink():
            return path
        target = path.parent / path.readlink()
        if path.exists() and not target.exists():
            return path  # of another process: it leads somewhere, and says where only in words
        path = target
    raise OutputError(f"cannot write {path}: too many symbolic links")


def _descriptor(path: Path) -> int | None:
    if sys.platform == "win32":
        return None
    name = os.path.normpath(path)
    match = _DESCRIPTOR.fullmatch(name)
    return int(match[1]) if match else _STREAMS.get(name)


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # new, or replacing_file says what is wrong
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
