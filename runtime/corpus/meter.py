"""Progress of a run: rows and tokens per second, and the time left, of this run alone.

The time left is that of the bytes of text that are left, not of the rows: long texts may come last.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from moembed.progress import is_terminal

_TERMINAL_SECONDS, _LINE_SECONDS = 0.5, 30.0


class Meter:
    """Progress on stderr: one line that is rewritten on a terminal, and a plain line twice a minute elsewhere.

    Use it as a context manager.
    """

    def __init__(
        self,
        total: int,
        *,
        show: bool | None,
        log: Callable[[str], object],
        sizes: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Prepare the meter.

        Args:
            total: rows that this run has to do.
            show: False for no progress; None and True for progress.
            log: writes a plain line.
            sizes: pairs of a number of rows and the bytes of text in the first so many, ascending; empty if nobody knows.
        """
        self._total, self._show, self._log = total, show is not False, log
        self._sizes = np.array(sizes if sizes and sizes[-1][1] else [(0, 0), (max(total, 1), 1)], np.float64).T
        self._terminal = is_terminal(sys.stderr)
        self._lock = threading.Lock()
        self.rows = self.tokens = 0
        self._started = self._told = time.monotonic()
        self._width = 0

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_error: object) -> None:
        if self._width:
            self._rewrite("")

    def advance(self, rows: int, tokens: int) -> None:
        """Count rows and tokens that were finished."""
        with self._lock:
            self.rows, self.tokens = self.rows + rows, self.tokens + tokens
            now = time.monotonic()
            if self._show and now - self._told >= (_TERMINAL_SECONDS if self._terminal else _LINE_SECONDS):
                self._told = now
                text = self.text(now - self._started)
                if self._terminal:
                    self._rewrite(text)
                else:
                    self._log(f"moembed: {text}")

    def text(self, seconds: float) -> str:
        """Describe the progress after so many seconds."""
        share = f" ({100 * self.rows / self._total:.0f} %)" if self._total else ""
        rate, tokens = self.rows / max(seconds, 1e-9), self.tokens / max(seconds, 1e-9)
        rows, sizes = self._sizes
        done = float(np.interp(self.rows, rows, sizes) / sizes[-1])
        left = f"about {duration(seconds * (1 - done) / done)} left" if self.rows and done else "time left unknown"
        return f"{self.rows:,} of {self._total:,} rows{share}, {rate:,.0f} rows/s, {tokens:,.0f} tokens/s, {left}"

    def _rewrite(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write("\r" + text.ljust(self._width) + ("" if text else "\r"))
            sys.stderr.flush()
        self._width = len(text)


def duration(seconds: float) -> str:
    """Write a number of seconds as `45 s`, `3 min 5 s`, `2 h 10 min` or `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
