"""Cache of vectors in an SQLite file, so that a repeated `search` embeds only changed passages.

Errors of the file never stop a search; they are logged. Each row has a checksum over its key and its content, and a row with
a wrong checksum counts as missing.
"""

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T")
_KEEP_DAYS = 90
_LOCK_TIMEOUT = 2.0  # seconds
_FORMAT = 2
_TABLE = "CREATE TABLE texts (key BLOB PRIMARY KEY, windows BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID"
_CHECKSUM_BYTES = 16
_NEWEST_HEADER = 2  # version of reading and writing: with a log of changes
_IN_USE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
# For a damaged file, sqlite3 may also fail to decode a name in its message, or request memory for an invalid length.
_ERRORS = (sqlite3.Error, UnicodeDecodeError, MemoryError)
# Errors of the disk or of permissions. Any other error means that the file is not a valid cache.
_DISK_ERRORS = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}

Window = tuple[int, int, NDArray[np.float32]]


class VectorStore:
    """Cache of the windows of texts. Entries that were not used for 90 days are dropped. Methods never raise.

    An invalid file is replaced. On a full or read-only disk, existing entries are read and new ones are not kept. If another
    process holds the lock for more than 2 seconds, the store acts as if it were empty.

    Args:
        path: the file, created if necessary; None for no file.
        log: called with a message if the file cannot be used.
    """

    def __init__(self, path: Path | None, *, log: Callable[[str], None]) -> None:
        self._path, self._log = path, log
        self._today = int(time.time() // 86400)
        self._db: sqlite3.Connection | None = None
        self._writable, self._replaced, self._immutable, self._swept = True, False, False, False
        self._checked = False
        self._stale: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._db is not None and self._stale:
            # On an error, only the day of the last use is lost.
            with suppress(*_ERRORS), self._db:
                today = ((self._today, key) for key in self._stale)
                self._db.executemany("UPDATE texts SET used = ? WHERE key = ?", today)
        self._close()

    def read(self, keys: Iterable[bytes], dim: int) -> dict[bytes, list[Window]]:
        """Return the windows of the cached texts, by key.

        Args:
            keys: keys of texts; they must differ between texts, prompts and models.
            dim: width of the vectors.
        """
        wanted, row = list(keys), _row_type(dim)

        def select(db: sqlite3.Connection) -> dict[bytes, list[Window]]:
            known = {}
            for key in wanted:
                found = db.execute("SELECT windows, used FROM texts WHERE key = ?", (key,)).fetchone()
                if found and (windows := _unpacked(key, found[0], row)):
                    known[key] = windows
                    if found[1] != self._today:
                        self._stale.append(key)
                elif found:
                    self._check(db)
            return known

        return self._run(select) or {}

    def write(self, entries: Iterable[tuple[bytes, Sequence[Window]]]) -> None:
        """Store the windows of texts by key; all of them or, if interrupted, none."""
        rows = [(key, _packed(key, windows), self._today) for key, windows in entries]

        def insert(db: sqlite3.Connection) -> None:
            with db:
                db.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", rows)
                if not self._swept:
                    oldest = self._today - _KEEP_DAYS
                    db.execute("DELETE FROM texts WHERE used NOT BETWEEN ? AND ?", (oldest, self._today))
            self._swept = True

        self._run(insert, writing=True)

    def _run(self, work: Callable[[sqlite3.Connection], _T], *, writing: bool = False) -> _T | None:
        """Call `work` with the database; None if the database cannot be used."""
        while self._path is not None and (self._writable or not writing):
            try:
                if self._db is None:
                    self._db = self._opened(self._path)
                return work(self._db)
            except (OSError, *_ERRORS) as error:
                self._remedy(self._path, error, writing=writing)
        return None

    def _check(self, db: sqlite3.Connection) -> None:
        """Check the whole file once, since a row of it is damaged: where rows overlap, it would be damaged again when written.

        Raises:
            sqlite3.DatabaseError: it is not a sound database.
        """
        if self._checked or not self._writable:
            return
        self._checked = True
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if found != b"ok":
            raise sqlite3.DatabaseError("its rows or pages overlap or are out of order")

    def _opened(self, path: Path) -> sqlite3.Connection:
        if self._immutable:
            uri = path.absolute().as_uri() + "?immutable=1"
            db = sqlite3.connect(uri, uri=True, timeout=_LOCK_TIMEOUT)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_unusable(path)
            # Transactions take the lock first, so that no statement inside one fails for lack of it.
            db = sqlite3.connect(path, timeout=_LOCK_TIMEOUT, isolation_level="IMMEDIATE")
        try:
            db.text_factory = bytes  # a row with invalid UTF-8 counts as damaged, not as an error
            db.execute("PRAGMA trusted_schema = OFF")
            if not self._immutable and not _schema(db):
                _create(db)
            if _schema(db) != [(_TABLE.encode(), _FORMAT)]:
                raise sqlite3.DatabaseError("it is not a cache of this version of moembed")
        except _ERRORS:
            db.close()
            raise
        return db

    def _remedy(self, path: Path, error: Exception, *, writing: bool) -> None:
        """Handle an error; each remedy is tried once."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _IN_USE:
            self._give_up(f"another process has locked the cache {path}")
        elif code in _DISK_ERRORS or isinstance(error, OSError):
            if writing and self._db is not None:
                self._writable = False
                self._log(f"the cache {path} cannot be written ({error}): new vectors are not kept")
            elif self._immutable or code == sqlite3.SQLITE_FULL or not os.path.isfile(path):  # noqa: PTH113 Path.is_file raises if a folder is not accessible
                self._give_up(f"the cache {path} cannot be used ({error})")
            else:
                # A journal cannot be replayed or created here. Rows have checksums, so they can be read without it.
                self._immutable, self._writable = True, False
                self._close()
                self._log(f"the cache {path} cannot be opened for writing ({error}): it is used read-only")
        elif self._replaced or self._immutable:
            self._give_up(f"the cache {path} cannot be used ({error})")
        else:
            self._replace(path, error)

    def _replace(self, path: Path, error: Exception) -> None:
        self._replaced = True
        self._close()
        try:
            # Otherwise the journal of the old database would be replayed into the new one.
            for suffix in ("-journal", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        except OSError as failure:
            self._give_up(f"the cache {path} is damaged ({error}) and cannot be replaced ({failure.strerror})")
        else:
            self._log(f"the cache {path} was damaged ({error}): it was replaced by a new one")

    def _give_up(self, reason: str) -> None:
        self._close()
        self._path = None
        self._log(f"{reason}: searching without it; set MOEMBED_CACHE to another folder, or pass --no-cache")

    def _close(self) -> None:
        self._stale.clear()
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _refuse_unusable(path: Path) -> None:
    # Opening a FIFO would block forever.
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise sqlite3.DatabaseError("it is not a regular file")
    # SQLite opens a file whose header asks for a newer release, and never writes to it.
    with suppress(OSError), path.open("rb") as file:
        header = file.read(20)
        if header.startswith(b"SQLite format 3\0") and max(header[18:], default=0) > _NEWEST_HEADER:
            raise sqlite3.DatabaseError("its header is not that of a cache")


def _schema(db: sqlite3.Connection) -> list[tuple[bytes, int]]:
    """List the SQL of each table, index, view and trigger, with the format version."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return [(sql, version) for (sql,) in db.execute("SELECT sql FROM sqlite_master")]


def _create(db: sqlite3.Connection) -> None:
    with db:
        db.execute("BEGIN IMMEDIATE")
        if not _schema(db):  # otherwise another process was faster
            db.execute(_TABLE)
            db.execute(f"PRAGMA user_version = {_FORMAT}")


def _row_type(dim: int) -> np.dtype[np.void]:
    return np.dtype([("start", "<i8"), ("end", "<i8"), ("vector", "<f4", (dim,))])


def _packed(key: bytes, windows: Sequence[Window]) -> bytes:
    content = np.array(list(windows), _row_type(len(windows[0][2]))).tobytes()
    return _checksum(key, content) + content


def _unpacked(key: bytes, packed: object, row: np.dtype[np.void]) -> list[Window]:
    """Unpack the windows of a row; empty if it is damaged, or has another key or another vector width."""
    if not isinstance(packed, bytes):
        return []
    checksum, content = packed[:_CHECKSUM_BYTES], packed[_CHECKSUM_BYTES:]
    if checksum != _checksum(key, content) or len(content) % row.itemsize:
        return []
    rows = np.frombuffer(content, row)
    return [(int(one["start"]), int(one["end"]), one["vector"]) for one in rows]


def _checksum(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(key + content, digest_size=_CHECKSUM_BYTES).digest()
