"""Vectors that were computed before, in an SQLite file: what `search` keeps so as to embed only what changed."""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moembed.errors import OutputError

_KEPT_DAYS = 90
_SCHEMA = """
CREATE TABLE IF NOT EXISTS windows (
    model TEXT NOT NULL, text BLOB NOT NULL, window INTEGER NOT NULL,
    start INTEGER NOT NULL, end INTEGER NOT NULL, vector BLOB NOT NULL, used INTEGER NOT NULL,
    PRIMARY KEY (model, text, window)
) WITHOUT ROWID
"""

Window = tuple[int, int, NDArray[np.float32]]


class VectorStore:
    """Windows of texts by model and digest; entries not used for 90 days are dropped.

    Args:
        path: the file, made if need be; a damaged one is started anew. None keeps everything in memory.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._today = int(time.time() // 86400)
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._db = self._open(path)
            except sqlite3.DatabaseError as error:
                if path is None or isinstance(error, sqlite3.OperationalError):
                    raise
                path.unlink()  # not a database any more: a cache can be lost
                self._db = self._open(path)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"cannot use the cache {path}: {error}; set MOEMBED_CACHE, or pass --no-cache") from error

    def _open(self, path: Path | None) -> sqlite3.Connection:
        db = sqlite3.connect(path or ":memory:", timeout=30)
        with db:
            db.execute(_SCHEMA)
            db.execute("DELETE FROM windows WHERE used < ?", (self._today - _KEPT_DAYS,))
        return db

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def get(self, model: str, text: bytes) -> list[Window]:
        """The windows of a text by its digest, in order; empty if it is not known."""
        rows = self._db.execute(
            "SELECT start, end, vector FROM windows WHERE model = ? AND text = ? ORDER BY window", (model, text)
        ).fetchall()
        return [(start, end, np.frombuffer(vector, np.float32)) for start, end, vector in rows]

    def put(self, model: str, entries: Iterable[tuple[bytes, Sequence[Window]]]) -> None:
        """Keep the windows of texts; all of them or, if interrupted, none."""
        rows = [
            (model, text, number, start, end, vector.astype(np.float32).tobytes(), self._today)
            for text, windows in entries
            for number, (start, end, vector) in enumerate(windows)
        ]
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def touch(self, model: str, texts: Iterable[bytes]) -> None:
        """Note that texts are still in use."""
        with self._db:
            self._db.executemany(
                "UPDATE windows SET used = ? WHERE model = ? AND text = ? AND used <> ?",
                ((self._today, model, text, self._today) for text in texts),
            )
