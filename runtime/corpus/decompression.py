"""Compressed input: gzip and zstd as streams of bytes, in which a cut file is an error."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from moembed.errors import InputError, extra

_PIECE = 1 << 18


class CutAfterLineError(EOFError):
    """End of a cut file, raised by a reader that knows its last whole line.

    Attributes:
        line: number of that line, from 1; 0 if there is none.
    """

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


@contextmanager
def decompressed(file: BinaryIO, compression: str | None, name: str) -> Iterator[BinaryIO]:
    """Yield the content of a file.

    Args:
        file: the file at its start.
        compression: `gzip`, `zstd` or None.
        name: of the file, for errors.

    Raises:
        InputError: while it is read: the file is cut, damaged or of another kind.
    """
    if compression is None:
        yield file
        return
    try:
        if compression == "gzip":
            start = io.BufferedReader(file, _PIECE)  # type: ignore[type-var]
            if not start.peek(1):
                raise EOFError  # the module gzip reads an empty file as empty content
            yield io.BufferedReader(_Gzip(start), _PIECE)
            start.detach()
        else:
            yield io.BufferedReader(_Zstd(file), _PIECE)
    except EOFError as error:
        place = f" after line {error.line}" if isinstance(error, CutAfterLineError) else ""
        raise InputError(
            f"{name} is cut{place}: its {compression} stream has no end; copy or download it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is not a sound {compression} file ({error}): copy or download it again") from error


class _Gzip(io.RawIOBase):
    """Content of a gzip file, of which a cut one is given up to its cut: `GzipFile` loses what a buffer holds then."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Zstd(io.RawIOBase):
    """Content of the frames of a zstd file; the reader of `zstandard` takes a cut frame for a short one."""

    def __init__(self, file: BinaryIO) -> None:
        with extra("data", "reading .zst"):
            import zstandard
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._file, self._frame, self._rest, self._ready = file, self._new(), b"", b""
        self._frames, self._inside = 0, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            data = self._rest or self._file.read(_PIECE)
            if not data:
                if self._inside or not self._frames:
                    raise EOFError
                return 0
            self._inside = True
            try:
                self._ready = self._frame.decompress(data)
            except self._error as error:
                raise ValueError(str(error)) from error
            self._rest = b""
            if self._frame.eof:
                self._frames, self._inside, self._rest = self._frames + 1, False, self._frame.unused_data
                self._frame = self._new()
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size
