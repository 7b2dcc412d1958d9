"""Output destinations that users name: regular files, and pipes, terminals and devices.

Regular files are written atomically. Pipes, terminals and devices are opened as they are and get the data as it comes.
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
from moembed.files.addresses import scheme_of
from moembed.files.paths import replacing_file

_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|thread-self))/fd/(\d+)")
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_BINARY = getattr(os, "O_BINARY", 0)  # Windows only
_MAX_LINKS = 40  # as in Linux


@contextmanager
def writing(name: str | Path) -> Iterator[BinaryIO]:
    """Open a destination for writing bytes.

    Symbolic links are followed. `/dev/stdout` and `/dev/fd/N` mean the descriptors of this process at their current position,
    not the files behind them.

    Args:
        name: a path.

    Yields:
        A binary file. If the destination is a regular file, it is readable and seekable.

    Raises:
        OutputError: the destination is a folder or read-only, its folder is missing or not writable, or writing failed; or it
            is an address of a store.
        BrokenPipeError: the destination is a pipe whose reader has exited.
    """
    if scheme := scheme_of(str(name)):
        raise OutputError(f"{name}: {scheme}:// is not written, only local files: write to one of them, and copy it")
    try:
        path = _followed(Path(name))
        number = _descriptor(path)
        if number is None and not _is_stream(path):
            with replacing_file(path) as partial, partial.open("w+b") as file:
                yield file
            return
        # Without O_CREAT, which Linux refuses for FIFOs in folders like /tmp. The duplicate of a descriptor can be closed.
        opened = os.open(path, os.O_WRONLY | _BINARY) if number is None else os.dup(number)
        with os.fdopen(opened, "wb") as file:
            yield file
    except (MoembedError, BrokenPipeError):
        raise
    except OSError as error:
        raise OutputError(f"cannot write {name}: {error.strerror or error}") from error


def is_file(name: str | Path) -> bool:
    """Return whether `writing` makes a regular file of this name, and not a pipe, a terminal, a device or a descriptor."""
    path = _followed(Path(name))
    return _descriptor(path) is None and not _is_stream(path)


def _followed(path: Path) -> Path:
    """Follow symbolic links, up to one that stands for a descriptor of this process."""
    for _ in range(_MAX_LINKS):
        if _descriptor(path) is not None or not path.is_symlink():
            return path
        target = path.parent / path.readlink()
        if path.exists() and not target.exists():
            return path  # a link in /proc of another process: it works, but its text is not a path
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
        return False  # it does not exist yet, or replacing_file reports the error
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
