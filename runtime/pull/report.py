"""Progress of a pull: bytes, step and time left, on a terminal in one line that changes, elsewhere in lines of their own."""

import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from moembed.progress import is_terminal
from moembed.store.room import in_words

_LINE_SECONDS = 10.0
_LINE_SHARE = 0.1
_REDRAW_SECONDS = 0.1
_RATE_SECONDS = 1.0  # a rate over less says nothing


class Reporter:
    """Receiver of notes and progress. This one drops them."""

    def note(self, text: str) -> None:
        """Take a sentence that the user should read."""

    def step(self, name: str) -> None:
        """Take the name of the step that begins."""

    def progress(self, done: int, total: int) -> None:
        """Take the finished bytes of the step and all of them."""


class _Notes(Reporter):
    """Reporter that writes notes as lines. A note that is repeated at once, as two requests to a hub may do, is written once."""

    def __init__(self) -> None:
        self._noted = ""

    def note(self, text: str) -> None:
        """Write a line."""
        if text != self._noted:
            self._noted = text
            self._line(f"moembed: {text}")

    def _line(self, text: str) -> None:
        raise NotImplementedError


class LineReporter(_Notes):
    """Reporter that writes a line per step, and during a step one per 10 % or 10 seconds.

    Args:
        write: writes a line; stderr by default.
    """

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        super().__init__()
        self._write = write or _to_stderr
        self._step, self._clock = "", _Clock()
        self._shown_at, self._shown = 0.0, 0

    def step(self, name: str) -> None:
        """Write a line."""
        self._step, self._clock = name, _Clock()
        self._shown_at, self._shown = monotonic(), 0
        self._write(f"moembed: {name}")

    def progress(self, done: int, total: int) -> None:
        """Write a line if the last one is long ago."""
        self._clock.take(done)
        now = monotonic()
        far = done - self._shown >= _LINE_SHARE * total
        if far or now - self._shown_at >= _LINE_SECONDS:
            self._shown_at, self._shown = now, done
            self._write(f"moembed: {self._step}: {self._clock.text(done, total)}")

    def _line(self, text: str) -> None:
        self._write(text)


class TerminalReporter(_Notes):
    """Reporter that shows progress in the last line of a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._step, self._clock, self._drawn_at, self._width = "", _Clock(), 0.0, 0

    def step(self, name: str) -> None:
        """Write a line."""
        self._step, self._clock, self._drawn_at = name, _Clock(), 0.0
        self._line(f"moembed: {name}")

    def progress(self, done: int, total: int) -> None:
        """Draw the progress."""
        self._clock.take(done)
        now = monotonic()
        if done >= total:
            self._draw("")
        elif now - self._drawn_at >= _REDRAW_SECONDS:
            self._drawn_at = now
            self._draw(f"  {self._clock.text(done, total)}")

    def _line(self, text: str) -> None:
        """Write a line above the progress."""
        self._draw("")
        _to_stderr(text)

    def _draw(self, text: str) -> None:
        """Replace the last line; an empty text clears it."""
        text = text[: shutil.get_terminal_size().columns - 1]
        if text or self._width:
            _to_stderr("\r" + text + " " * (self._width - len(text)) + ("" if text else "\r"), end="")
        self._width = len(text)


class _Clock:
    """Rate of a step since its first progress: a download may go on from the middle."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def take(self, done: int) -> None:
        if self._first is None:
            self._first = monotonic(), done

    def text(self, done: int, total: int) -> str:
        """Return the progress in words."""
        parts = [f"{in_words(done)} of {in_words(total)}", f"{100 * done // max(total, 1)} %"]
        started, before = self._first or (monotonic(), done)
        seconds = monotonic() - started
        if seconds >= _RATE_SECONDS and done > before:
            parts.append(f"{_duration((total - done) * seconds / (done - before))} left")
        return ", ".join(parts)


def default_reporter() -> Reporter:
    """Return a reporter to stderr: a line that changes on a terminal, lines of their own elsewhere."""
    return TerminalReporter() if is_terminal(sys.stderr) else LineReporter()


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _to_stderr(text: str, end: str = "\n") -> None:
    # A progress line that cannot be shown must not end the work.
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + end)
        sys.stderr.flush()
