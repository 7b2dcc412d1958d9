"""Unfinished downloads: `NAME.part` beside the target, a lock on it, and `NAME.part.json`, the record of what it is a part of."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from moembed.files.locks import try_lock

PART, RECORD = ".part", ".part.json"
_SECONDS_TO_ASK = 0.2


@dataclass(frozen=True)
class Version:
    """Content of `NAME.part.json`: what the unfinished file is a part of."""

    sha256: str | None = None
    size: int | None = None
    etag: str | None = None

    def continues(self, expected: "Version") -> bool:
        """Check whether an unfinished file of this version may become one of the expected size and digest."""
        if expected.size is not None and self.size not in (None, expected.size):
            return False
        return self.sha256 == expected.sha256 and (self.sha256 is not None or self.etag is not None)


@dataclass(frozen=True)
class Unfinished:
    """Unfinished file that is open.

    Attributes:
        file: opened for reading and writing, without a buffer: what was written stays when the process is killed.
        locked: its lock keeps other processes away.
    """

    file: BinaryIO
    locked: bool


@contextmanager
def open_unfinished(
    part: Path, target: Path, log: Callable[[str], object], tick: Callable[[], object]
) -> Iterator[Unfinished | None]:
    """Open and lock the unfinished file; None if the target is there, perhaps by another process meanwhile."""
    said = False
    while True:
        if target.is_file():
            yield None
            return
        file: Any = os.fdopen(
            os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b", buffering=0
        )
        try:
            try:
                try_lock(file.fileno())
                locked = not _locks_again(part)
            except BlockingIOError:
                if not said:
                    log(f"waiting for another process that downloads {target.name} ({part} is locked)")
                said = True
                tick()
                time.sleep(_SECONDS_TO_ASK)
                continue
            except OSError:
                locked = False  # no locks on this file system
            if not _is_at(file, part):
                continue  # renamed or removed by its owner before the lock
            if target.is_file():
                # Its owner has finished it since the look above, and this is a new and empty one.
                file.close()
                part.unlink(missing_ok=True)
                continue
            yield Unfinished(file, locked)
            return
        finally:
            file.close()


def _locks_again(part: Path) -> bool:
    """Check whether a locked file can be locked a second time, because locks do nothing on this file system."""
    with part.open("r+b") as file:
        try:
            try_lock(file.fileno())
        except OSError:
            return False
    return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def write_record(part: Path, version: Version) -> None:
    """Write what an unfinished file is a part of."""
    _record(part).write_text(json.dumps(asdict(version)), "utf-8")


def remove_record(part: Path) -> None:
    """Remove the record of an unfinished file."""
    _record(part).unlink(missing_ok=True)


def sweep(target: Path) -> None:
    """Remove the unfinished downloads of other files from a target's folder, unless another process works on them.

    Files are downloaded one after another, so those that an interrupted process left are of versions that nobody asks for now.
    """
    for record in target.parent.glob(f"*{RECORD}"):
        part = record.with_name(record.name.removesuffix(RECORD) + PART)
        if part.name == target.name + PART:
            continue
        with suppress(OSError):
            with part.open("r+b") as file:
                try_lock(file.fileno())
                if sys.platform != "win32":
                    part.unlink()  # while it is locked: nobody else has locked this file
            if sys.platform == "win32":
                part.unlink()  # an open file cannot be removed there
        with suppress(OSError):
            if not part.exists():
                record.unlink()


def read_record(part: Path) -> Version | None:
    """Read what an unfinished file is a part of; None if that is not known."""
    try:
        found = json.loads(_record(part).read_text("utf-8"))
        version = Version(**found)
    except (OSError, ValueError, TypeError):
        return None
    kinds = ((version.sha256, str), (version.size, int), (version.etag, str))
    return version if all(value is None or isinstance(value, kind) for value, kind in kinds) else None


def _record(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(PART) + RECORD)
