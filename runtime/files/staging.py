"""Staging folders, in which files and folders are written before they replace their destination.

The folder `.moembed-XXXXXXXX.partial/` next to the destination has three entries: `new`, the new content; `old/NAME`, the
folder NAME while it is exchanged for the new one; and `lock`, a file that the owner keeps locked. The kernel releases the lock
when the owner exits or is killed, so an unlocked folder is abandoned and may be removed. Process ids could not show that:
they are meaningless in another container, and are reused.
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

from moembed.files.locks import is_effective, try_lock

_PREFIX, _SUFFIX = ".moembed-", ".partial"
_LOCK = "lock"
_SECONDS_TO_LOCK = 60.0


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Yield a new private folder in `parent`; it is removed at the end. Also removes abandoned ones.

    Raises:
        OSError: it cannot be created.
    """
    sweep(parent)
    folder, lock = _owned(parent)
    try:
        yield folder
    finally:
        os.close(lock)  # first, since Windows cannot remove open files
        shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove the staging folders of killed processes from a folder, and restore folders whose exchange was interrupted."""
    for folder in parent.glob(f"{_PREFIX}*{_SUFFIX}"):
        if not _is_ours(folder):
            continue
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR)
        except FileNotFoundError:
            if _age(folder) > _SECONDS_TO_LOCK:  # otherwise its owner may be about to lock it
                shutil.rmtree(folder, ignore_errors=True)
            continue
        except OSError:
            continue
        try:
            try_lock(lock)
            if not is_effective(folder / _LOCK):
                continue  # the owner may be alive, and have locked it just as well
            for old in (folder / "old").glob("*"):
                if not (parent / old.name).exists():
                    old.rename(parent / old.name)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # the owner is alive, or the file system does not support locks
        finally:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)  # again, since Windows kept the open lock file


def _owned(parent: Path) -> tuple[Path, int]:
    """Create and lock a folder; try again if a sweep of another process came in between."""
    while True:
        folder = Path(tempfile.mkdtemp(_SUFFIX, _PREFIX, parent))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try_lock(lock)
        except BlockingIOError:
            os.close(lock)
            continue
        except OSError:
            return folder, lock  # the file system does not support locks, so no sweep removes the folder either
        if (folder / _LOCK).exists():
            return folder, lock
        os.close(lock)


def _is_ours(folder: Path) -> bool:
    """Check that it is a folder of this user, which nobody else can have filled."""
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
