"""Progress bar on stderr for long work, by tqdm (which tokenizers installs)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

_QUIET_SECONDS = 1.5


class Advance(Protocol):
    """Function that takes the number of units finished since the last call."""

    def __call__(self, units: int, /) -> object: ...  # noqa: D102


@contextmanager
def progress(total: int | None, unit: str, *, show: bool | None) -> Iterator[Advance]:
    """Yield a function that advances the bar.

    Args:
        total: total number of units, or None if unknown.
        unit: name of a unit.
        show: True, False, or None to show it on a terminal once the work has taken 1.5 seconds. Without a usable stderr (missing,
            closed or full) there is no bar, and no error.
    """
    if show is False or (show is None and not is_terminal(sys.stderr)):
        yield lambda _units: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, delay=0 if show else _QUIET_SECONDS, file=_LenientStderr(), leave=False) as bar:
        yield bar.update


def is_terminal(stream: object) -> bool:
    """Check whether a stream is a terminal; also takes None, closed streams and objects without `isatty`."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


class _LenientStderr:
    """Stderr without its errors: a bar that cannot be shown must not end the work."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
