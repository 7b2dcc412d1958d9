"""Standard streams of a command, which may be closed, full, without a reader, or of any encoding.

Data on stdout is always UTF-8, whatever the locale. Messages that stderr cannot take are dropped; the command goes on.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import TextIO

from moembed.errors import MoembedError, OutputError


@contextmanager
def standard_streams() -> Iterator[None]:
    """Prepare the streams of this process for a command. Writing to a closed stdout is an error; see `stdout`."""
    _reserve_descriptors()
    if hasattr(sys.stdout, "reconfigure"):  # a caller may have replaced it by another object
        # A lone surrogate is written as \udcff, its escape in JSON.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    try:
        if sys.stderr is not None:
            yield
            return
        # If stderr is None, print and argparse would write to stdout.
        with Path(os.devnull).open("w", encoding="utf-8") as null, redirect_stderr(null):
            yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _drain(stream)


@contextmanager
def stdout() -> Iterator[TextIO]:
    """Yield stdout for writing.

    Raises:
        OutputError: it is closed, or writing failed.
        BrokenPipeError: its reader has exited.
    """
    if sys.stdout is None:
        raise OutputError("stdout is closed: redirect it to a file")
    try:
        yield sys.stdout
    except (MoembedError, BrokenPipeError):
        raise
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {error.strerror or error}") from error


def flush_stdout() -> None:
    """Flush stdout; raises as `stdout` does, except if it is closed."""
    if sys.stdout is not None:
        with stdout() as out:
            out.flush()


def write_message(text: str) -> None:
    """Write a line to stderr if possible."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        _drain(sys.stderr)


def _reserve_descriptors() -> None:
    """Open closed descriptors 0 to 2: otherwise a file or socket could get one, and receive messages of C libraries."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def _drain(stream: TextIO | None) -> None:
    """Flush a stream, and drop what cannot be written: the interpreter would fail on it at exit and change the exit code."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
