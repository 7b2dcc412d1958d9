"""Inputs that can be read only once: stdin, FIFOs and devices are copied to a file, so that a shard can start anywhere."""

import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from moembed.corpus.sources import Source
from moembed.corpus.storage import STDIN, is_remote, reading
from moembed.errors import InputError, OutputError

_PIECE = 1 << 20


def spooled(sources: Sequence[Source], place: Path) -> list[Source]:
    """Copy what can be read only once.

    Args:
        sources: the files.
        place: path of the copies, without a suffix; the caller removes them.

    Returns:
        The files, copies in place of what can be read only once.

    Raises:
        InputError: stdin is closed, or a source cannot be read.
        OutputError: a copy cannot be written.
    """
    return [_spooled(source, place.with_name(f"{place.name}{number}")) for number, source in enumerate(sources)]


def _spooled(source: Source, place: Path) -> Source:
    if source.path != STDIN and (is_remote(source.path) or not _is_stream(source)):
        return source
    with reading(source.path, source.name) as file:
        try:
            copy = place.open("wb")
        except OSError as error:
            raise _unwritable(source, place, error) from error
        with copy:
            while piece := file.read(_PIECE):
                try:
                    copy.write(piece)
                    copy.flush()
                except OSError as error:
                    raise _unwritable(source, place, error) from error
    return replace(source, path=str(place), label=source.name)


def _unwritable(source: Source, place: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot copy {source.name} to {place}: {error.strerror or error}")


def _is_stream(source: Source) -> bool:
    try:
        return not stat.S_ISREG(Path(source.path).stat().st_mode)
    except OSError as error:
        raise InputError(f"{source.path} cannot be read: {error.strerror or error}") from error
