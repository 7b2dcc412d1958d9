"""Folder in which a file or folder is made before it takes its place, and removal of those that killed processes left.

Beside a destination, `.moembed-XXXXXXXX.partial/` holds `new`, what is being written; `old/NAME`, while a folder NAME is
exchanged for a new one; and `lock`, which its owner keeps locked. The kernel unlocks it when the owner ends, however it
ends, so whoever finds it unlocked may clean up. Process ids would not do: they mean nothing in another container, and are
used again.
"""

import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX, _SUFFIX = ".moembed-", ".partial"
_LOCK = "lock"
_SECONDS_TO_LOCK = 60.0


@contextmanager
def aside_folder(parent: Path) -> Iterator[Path]:
    """Yield a new, private folder in `parent`; it is removed at the end, as are those of owners that were killed.

    Raises:
        OSError: it cannot be made.
    """
    sweep(parent)
    folder, lock = _owned(parent)
    try:
        yield folder
    finally:
        os.close(lock)  # first: Windows removes no file that is open
        shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove what killed processes left in a folder; a folder whose exchange was cut short takes its place again."""
    for folder in parent.glob(f"{_PREFIX}*{_SUFFIX}"):
        if not _is_ours(folder):
            continue
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except FileNotFoundError:
            if _age(folder) > _SECONDS_TO_LOCK:  # else its owner is about to lock it
                shutil.rmtree(folder, ignore_errors=True)
            continue
        except OSError:
            continue
        try:
            _lock(lock)
            for old in (folder / "old").glob("*"):
                if not (parent / old.name).exists():
                    old.rename(parent / old.name)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # its owner lives, or the file system has no locks
        finally:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)  # Windows kept the open lock


def _owned(parent: Path) -> tuple[Path, int]:
    """Make and lock a folder, another one if a sweep came between the two."""
    while True:
        folder = Path(tempfile.mkdtemp(_SUFFIX, _PREFIX, parent))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(lock)
        except BlockingIOError:
            os.close(lock)
            continue
        except OSError:
            return folder, lock  # without locks, no sweep takes it for abandoned either
        if (folder / _LOCK).exists():
            return folder, lock
        os.close(lock)


def _is_ours(folder: Path) -> bool:
    """Check for a folder of this user, into which nobody else can have put anything."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and (sys.platform == "win32" or found.st_uid == os.geteuid())


def _age(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:
        return 0.0


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
