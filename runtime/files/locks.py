"""Locks of open files between processes. The kernel releases them when their owner exits or is killed."""

import os
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # a locked byte cannot be read by others, so it is one behind the content

    def try_lock(file: int) -> None:
        """Lock an open file for this process.

        Raises:
            BlockingIOError: somebody has locked it.
            OSError: the file system does not support locks.
        """
        os.lseek(file, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
else:
    import fcntl

    def try_lock(file: int) -> None:
        """Lock an open file for this process.

        Raises:
            BlockingIOError: somebody has locked it.
            OSError: the file system does not support locks.
        """
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_effective(path: Path) -> bool:
    """Check that the lock which the caller has on a file keeps others out; on some network file systems it does not."""
    try:
        second = os.open(path, os.O_RDWR)
    except OSError:
        return True  # such as a file of another user: it cannot be checked
    try:
        try_lock(second)
    except OSError:
        return True
    finally:
        os.close(second)
    return False
