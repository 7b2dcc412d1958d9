"""Files of a corpus, local or in S3, and stdin: opened, listed and read."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from moembed.errors import InputError, MoembedError, extra

STDIN = "-"
_S3 = "s3://"


def is_remote(path: str) -> bool:
    """Check whether a path is an `s3://` address."""
    return path.startswith(_S3)


@cache
def _filesystem(bucket: str, query: str) -> Any:
    with extra("data", "reading s3://"):
        from pyarrow.fs import FileSystem
    return FileSystem.from_uri(f"{_S3}{bucket}?{query}" if query else f"{_S3}{bucket}")[0]


def remote(path: str) -> tuple[Any, str]:
    """Return pyarrow's file system of an `s3://` address, and the path in it.

    Raises:
        InputError: the address cannot be used.
        MissingExtraError: pyarrow is not installed.
    """
    address, _, query = path.partition("?")
    inner = address.removeprefix(_S3).rstrip("/")
    try:
        return _filesystem(inner.partition("/")[0], query), inner
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a usable address: {error}") from error


def list_remote(path: str) -> tuple[bool, list[str]]:
    """Return whether an address is a folder, and the addresses of all files below it, without its query.

    Raises:
        InputError: nothing is there, or it cannot be listed.
    """
    system, inner = remote(path)
    with extra("data", "reading s3://"):
        from pyarrow.fs import FileSelector, FileType
    try:
        kind = system.get_file_info(inner).type
        if kind == FileType.File:
            return False, [_S3 + inner]
        infos = system.get_file_info(FileSelector(inner, recursive=True)) if kind == FileType.Directory else []
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error
    files = [_S3 + info.path for info in infos if info.type == FileType.File]
    if kind == FileType.NotFound:
        raise InputError(f"{path} cannot be read: no such file or folder")
    return True, files


@contextmanager
def reading(path: str, name: str = "") -> Iterator[BinaryIO]:
    """Open a file for reading bytes; regular files and those in S3 can be positioned.

    Args:
        path: path or `s3://` address; `-` for stdin, which stays open.
        name: in messages, if it is not the path.

    Raises:
        InputError: it cannot be opened or read.
    """
    try:
        if path == STDIN:
            if sys.stdin is None:
                raise InputError("stdin is closed: pass texts as arguments, or files with -i")
            yield sys.stdin.buffer
            return
        if is_remote(path):
            system, inner = remote(path)
            with system.open_input_file(inner) as file:
                yield io.BufferedReader(file)  # pyarrow's files have no lines
            return
        with Path(path).open("rb") as file:
            yield file
    except MoembedError:  # of the block: an OutputError is an OSError
        raise
    except OSError as error:
        raise InputError(f"{name or path} cannot be read: {_reason(error)}") from error


def size_of(path: str) -> int:
    """Return the bytes of a file.

    Raises:
        InputError: it is not there, or is a folder.
    """
    if is_remote(path):
        system, inner = remote(path)
        return int(system.get_file_info(inner).size or 0)
    try:
        return Path(path).stat().st_size
    except OSError as error:
        raise InputError(f"{path} cannot be read: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else (str(error).splitlines() or [type(error).__name__])[0]
