"""Standard streams of a command, which may be closed, full, without a reader, or of any encoding.

Data on stdout is always UTF-8, independent of the locale. Words that stderr cannot take are lost; the work goes on.
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
    """Make the streams of this process usable while a command runs; see `stdout` for what a closed one means."""
    _reserve_descriptors()
    if hasattr(sys.stdout, "reconfigure"):  # not if a caller put something else in its place
        # A lone surrogate comes out as \udcff, which is its escape in JSON too.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    try:
        if sys.stderr is not None:
            yield
            return
        # print and argparse write to stdout where stderr is None.
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
            yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _drain(stream)


@contextmanager
def stdout() -> Iterator[TextIO]:
    """Yield stdout for writing.

    Raises:
        OutputError: it is closed or takes no more.
        BrokenPipeError: its reader is gone.
    """
    if sys.stdout is None:
        raise OutputError("stdout is closed: there is nowhere to write to")
    try:
        yield sys.stdout
    except (MoembedError, BrokenPipeError):
        raise
    except OSError as error:
        raise OutputError(f"cannot write to stdout: {error.strerror or error}") from error


def flush_stdout() -> None:
    """Write out what is buffered; raises as `stdout` does, but a closed one has nothing buffered."""
    if sys.stdout is not None:
        with stdout() as out:
            out.flush()


def write_words(text: str) -> None:
    """Write a line to stderr if it can be."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        _drain(sys.stderr)


def _reserve_descriptors() -> None:
    """Open those of the descriptors 0 to 2 that are closed: a file or socket that got one would receive C libraries' words."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def _drain(stream: TextIO | None) -> None:
    """Flush a stream, and drop what it cannot take: at exit the interpreter would complain and change the exit code."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
