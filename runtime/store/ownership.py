"""Ownership of a model's folder while it is written: one process works, the others wait for it and see how far it is.

The owner locks the file `lock` in the folder, writes its process id, host and progress into it, and changes the file every
second as a sign of life. A lock is an optimization: every file is written beside its destination and renamed, so two owners do
the work twice and mix nothing. So nobody waits for an owner without a sign of life, and a file system without locks is used
without them.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from moembed.files.locks import is_effective, try_lock

LOCK_FILE = "lock"
_BEAT_SECONDS = 1.0
_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 60.0  # without a sign of life
_FOREIGN_SECONDS = 5.0  # in which an owner on another host, whose lock does not reach us, gives a sign of life
_MAX_STATUS = 4096  # bytes


@dataclass(frozen=True)
class Status:
    """State of an owner's work, as it stands in the lock file.

    Attributes:
        pid: process id of the owner.
        host: name of its machine.
        step: step of the work, such as "downloading".
        done: finished bytes of the step.
        total: bytes of the step; 0 if it has none.
    """

    pid: int
    host: str
    step: str = "starting"
    done: int = 0
    total: int = 0

    @property
    def owner(self) -> str:
        """The owner in words."""
        return f"process {self.pid} on {self.host}"

    @property
    def is_of_this_host(self) -> bool:
        """True if the owner runs, or ran, on this machine."""
        return self.host == socket.gethostname()


class Owner:
    """Owner of a folder: this process.

    Attributes:
        exclusive: False if the file system has no locks that keep others out.
        before: state of an owner that was killed, or None.
    """

    def __init__(self, file: int | None, path: Path, before: Status | None) -> None:
        self._file, self._path = file, path
        self._status = Status(os.getpid(), socket.gethostname())
        self._write_lock, self._stopped = threading.Lock(), threading.Event()
        self.exclusive, self.before = file is not None, before
        self._write()
        self._beats = threading.Thread(target=self._beat, name="moembed-lock", daemon=True)
        self._beats.start()

    def report(self, step: str, done: int = 0, total: int = 0) -> None:
        """Tell those who wait how far the work is."""
        with self._write_lock:
            self._status = replace(self._status, step=step, done=done, total=total)

    def release(self) -> None:
        """Give the folder back."""
        self._stopped.set()
        self._beats.join()
        if self._file is None:
            return
        with suppress(OSError):
            ours = os.path.samestat(os.fstat(self._file), self._path.stat())
            if ours and sys.platform != "win32":
                self._path.unlink()  # while it is locked: nobody else has locked this file
        os.close(self._file)
        if sys.platform == "win32":
            with suppress(OSError):  # another process has opened it by now
                self._path.unlink()

    def _beat(self) -> None:
        while not self._stopped.wait(_BEAT_SECONDS):
            self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        with self._write_lock, suppress(OSError):
            content = json.dumps(asdict(self._status)).encode()
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, content)
            os.ftruncate(self._file, len(content))
            os.utime(self._path)


@contextmanager
def owning(folder: Path, waiting: Callable[[Status | None, Path, float], None]) -> Iterator[Owner]:
    """Make this process the owner of an existing folder for the duration of the block; wait for another owner first.

    Args:
        folder: the folder.
        waiting: called several times a second while another process owns it, with its state (None if that cannot be read), the
            lock file and the seconds waited; raises an exception to stop waiting.
    """
    owner = _acquired(folder / LOCK_FILE, waiting)
    try:
        yield owner
    finally:
        owner.release()


def status_of(folder: Path) -> Status | None:
    """Return the state of a folder's owner, alive or killed; None if there is none, or it cannot be read."""
    try:
        raw = json.loads((folder / LOCK_FILE).read_bytes()[:_MAX_STATUS])
        return Status(int(raw["pid"]), str(raw["host"]), str(raw["step"]), int(raw["done"]), int(raw["total"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_owned(folder: Path) -> bool:
    """Check whether a living process owns a folder, without waiting for a sign of life."""
    try:
        file = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:
        return False
    try:
        try_lock(file)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def _acquired(path: Path, waiting: Callable[[Status | None, Path, float], None]) -> Owner:
    started = time.monotonic()
    life = _SignsOfLife(path)
    while True:
        try:
            file = _opened(path)
            owner = _locked(file, path)
        except BlockingIOError:
            patience = _PATIENCE_SECONDS
        except PermissionError:
            file, patience = None, _FOREIGN_SECONDS  # the file of another user, who may have been killed
        except OSError:
            return Owner(None, path, None)  # the file system has no locks
        else:
            if owner is not None:
                return owner
            patience = _FOREIGN_SECONDS
        if life.absent_for() > patience:
            # The owner is stopped, or was killed and its host still holds the lock.
            with suppress(OSError):
                path.unlink(missing_ok=True)
                life = _SignsOfLife(path)
                continue
            return Owner(None, path, None)
        waiting(status_of(path.parent), path, time.monotonic() - started)
        time.sleep(_POLL_SECONDS)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)


def _locked(file: int, path: Path) -> Owner | None:
    """Lock an open file; None if it has been replaced meanwhile, or an owner on another host has it.

    Raises:
        BlockingIOError: it is locked.
        OSError: the file system has no locks.
    """
    kept = False
    try:
        try_lock(file)
        try:
            if not os.path.samestat(os.fstat(file), path.stat()):
                return None
        except FileNotFoundError:
            return None
        before = status_of(path.parent)
        if before is not None and not before.is_of_this_host and _SignsOfLife(path).appear_within(_FOREIGN_SECONDS):
            return None
        if not is_effective(path):
            return Owner(None, path, None)
        kept = True
        return Owner(file, path, before)
    finally:
        if not kept:
            os.close(file)


class _SignsOfLife:
    """Changes of a lock file, by the clock of this machine: clocks of two hosts may differ."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen, self._at = self._changed(), time.monotonic()

    def absent_for(self) -> float:
        """Return the seconds since the last change."""
        if (now := self._changed()) != self._seen:
            self._seen, self._at = now, time.monotonic()
            return 0.0
        return time.monotonic() - self._at

    def appear_within(self, seconds: float) -> bool:
        """Wait for a change."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
            if not self.absent_for():
                return True
        return False

    def _changed(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = self._path.stat()
            return found.st_ino, found.st_mtime_ns
        return None
